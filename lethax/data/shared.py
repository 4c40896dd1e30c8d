"""What a data set shares with the classes that a run was trained on: their names, and their very pictures."""

import hashlib
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lethax.data.store import ClassSplit, Store, open_store
from lethax.errors import DataError

SEEN = ("train", "val")  # the splits that training and the choice of a checkpoint have seen


class Shared(NamedTuple):
    """The classes of a split that a run has seen, of as many classes and pictures as the split has.

    by_name: those with the name of a class that it has seen. by_picture: those of which it has seen half of the pictures or more,
    bit for bit; seen: the pictures of the split that it has seen. Both are None if pictures were not compared.
    """

    classes: int
    pictures: int
    by_name: tuple[str, ...]
    by_picture: tuple[str, ...] | None = None
    seen: int | None = None

    def record(self) -> dict[str, Any]:
        """The same as JSON has it."""
        found = None if self.by_picture is None else list(self.by_picture)
        return {**self._asdict(), "by_name": list(self.by_name), "by_picture": found}


def shared(split: ClassSplit, data: str, identity: str | None, classes: Collection[str]) -> Shared:
    """Compare the classes of a split with those that a run has seen.

    data, identity: the name and `Store.identity` of the run's data set, whose pictures are compared if it is still there and its
    pictures have the same size. classes: the names of the run's training classes.
    """
    seen = _store(data, identity)
    names = (
        set(classes).union(*(seen.splits[name].classes for name in SEEN if name in seen.splits))
        if seen
        else set(classes)
    )
    lowered = {name.lower() for name in names}
    by_name = tuple(name for name in split.classes if name.lower() in lowered)
    parts = [seen.splits[name] for name in SEEN if name in seen.splits] if seen else []
    if not parts or parts[0].images.shape[1:] != split.images.shape[1:]:
        return Shared(len(split.classes), len(split.images), by_name)
    there = _digests_of(data, seen.identity) if seen else frozenset()
    found = np.array([digest in there for digest in _digests(split.images)])
    pairs = zip(split.classes, split.starts[:-1], split.starts[1:], strict=True)
    by_picture = tuple(name for name, a, b in pairs if b > a and found[a:b].mean() >= 0.5)
    return Shared(len(split.classes), len(split.images), by_name, by_picture, int(found.sum()))


def _store(data: str, identity: str | None) -> Store | None:
    """The data set of a run; None if it is gone, damaged or another one by now."""
    try:
        store = open_store(data)
    except DataError:
        return None
    return store if identity in (None, store.identity) else None


def _digests(images: np.ndarray) -> Iterator[bytes]:
    """A digest of every picture's bytes."""
    return (hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in images)


@lru_cache(maxsize=4)  # several runs are judged one after another, and large data sets take a while
def _digests_of(data: str, identity: str) -> frozenset[bytes]:
    splits = open_store(data).splits
    return frozenset(digest for name in SEEN if name in splits for digest in _digests(splits[name].images))
