"""What episodes a store allows, and what comes nearest to what is wanted."""

import numpy as np
import pytest

from lethax.data.fits import nearest, room, too_small
from lethax.data.store import ClassSplit


def split(*counts: int) -> ClassSplit:
    starts = np.cumsum([0, *counts])
    names = tuple(f"c{i}" for i in range(len(counts)))
    return ClassSplit(np.zeros((starts[-1], 2, 2, 1), np.uint8), starts, names, ("",) * len(counts))


SPLITS = {"train": split(30, 20, 9, 40, 40, 40), "val": split(20, 20, 20), "test": split(12, 20, 8, 20)}


def test_room_is_that_of_the_narrowest_split_and_the_smallest_class() -> None:
    assert room(SPLITS) == (3, 8, "val", ("test", "c2"))
    assert str(room(SPLITS)) == (
        "at most 3-way, because val has 3 classes; shot and query together at most 8, because class 'c2' of test has 8 examples"
    )
    assert too_small(SPLITS, 13) == [("test", "c2", 8), ("train", "c2", 9), ("test", "c0", 12)]


@pytest.mark.parametrize(
    ("wanted", "fixed", "fits"),
    [
        ((5, 1, 15), (), (3, 1, 7)),
        ((2, 1, 5), (), (2, 1, 5)),
        ((5, 5, 15), (), (3, 5, 3)),
        ((5, 20, 15), (), (3, 7, 1)),
        ((5, 1, 15), ("way",), None),
        ((5, 20, 15), ("shot",), None),
        ((5, 5, 6), ("query",), (3, 2, 6)),
        ((5, 1, 8), ("query",), None),
        ((3, 1, 7), ("way", "shot", "query"), (3, 1, 7)),
        ((1, 1, 1), ("way",), None),
    ],
)
def test_nearest(wanted: tuple[int, int, int], fixed: tuple[str, ...], fits: tuple[int, int, int] | None) -> None:
    assert nearest(SPLITS, *wanted, fixed) == fits


def test_where_nothing_fits() -> None:
    assert nearest({"train": split(1, 30, 30)}, 5, 1, 15) is None
    assert nearest({"train": split(30)}, 5, 1, 15) is None
