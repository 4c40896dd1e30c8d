"""Which episodes the splits of a store allow. `data prepare` reports this, and `train` takes it where nothing else is given.

Nothing here imports JAX.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from lethax.data.store import ClassSplit
from lethax.text import counted, shown

WAY, SHOT, QUERY = 5, 5, 15  # the usual episode of `train`: five classes, five examples and fifteen queries of each


class Room(NamedTuple):
    """The largest episodes that fit: `way` classes, and `examples` of each (support and queries together).

    narrow: the split of fewest classes, which bounds `way`. small: (split, class) of fewest examples, which bounds `examples`.
    """

    way: int
    examples: int
    narrow: str
    small: tuple[str, str]

    def __str__(self) -> str:
        split, name = self.small
        return (
            f"at most {self.way}-way, because {self.narrow} has {counted(self.way, 'class')}; shot and query together at most "
            f"{self.examples}, because class '{shown(name, 60)}' of {split} has {counted(self.examples, 'example')}"
        )


def room(splits: Mapping[str, ClassSplit]) -> Room:
    """The largest episodes that all of these splits allow. There has to be at least one split."""
    narrow = min(splits, key=lambda split: len(splits[split].classes))
    examples, split, place = min(
        (int(counts.min()), split, int(counts.argmin()))
        for split, counts in ((split, np.diff(part.starts)) for split, part in splits.items())
    )
    return Room(len(splits[narrow].classes), examples, narrow, (split, splits[split].classes[place]))


def nearest(
    splits: Mapping[str, ClassSplit], way: int, shot: int, query: int, fixed: Collection[str] = ()
) -> tuple[int, int, int] | None:
    """Find (way, shot, query) that fit, at most what is wanted, with fewer queries rather than fewer shots. None if none fit.

    fixed: those of "way", "shot" and "query" that stay as they are. An episode has two classes or more.
    """
    most = room(splits)
    if "way" not in fixed:
        way = min(way, most.way)
    if "query" not in fixed:
        query = max(min(query, most.examples - shot), 1)
    if "shot" not in fixed:
        shot = max(min(shot, most.examples - query), 1)
    return (way, shot, query) if 2 <= way <= most.way and shot + query <= most.examples else None


def enough(splits: Mapping[str, ClassSplit], examples: int, anew: bool) -> bool:
    """Whether two classes a split are left without those of fewer `examples`. anew: these would be split at random again."""
    left = [int((np.diff(part.starts) >= examples).sum()) for part in splits.values()]
    return sum(left) >= 2 * len(left) if anew else min(left) >= 2


def too_small(splits: Mapping[str, ClassSplit], examples: int) -> list[tuple[str, str, int]]:
    """List (split, class, its examples) of the classes that have fewer than `examples`, the smallest first."""
    found = [
        (count, split, name)
        for split, part in splits.items()
        for name, count in zip(part.classes, np.diff(part.starts).tolist(), strict=True)
        if count < examples
    ]
    return [(split, name, count) for count, split, name in sorted(found)]
