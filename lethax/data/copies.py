"""What an import does with pictures that are there more than once: report them, leave them out, or refuse them."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from lethax.data.layout import Plan
from lethax.data.twins import Twins, find_twins
from lethax.errors import DataError
from lethax.text import counted, shown

Rule = Literal["report", "drop", "error"]
REPORT = "duplicates.csv"  # in the folder of the store
NAMED = 10  # pairs that the manifest has, and the screen shows
LIKENESS = ("same pixels", "nearly the same")
PLACES = ("in two splits", "in two classes", "in one class")  # the worst first
LEFT_OUT = "left out"  # stands for the split of a class that is in none


class Copy(NamedTuple):
    """A pair of pictures that are the same or nearly so. A picture is (file, class, split)."""

    likeness: str
    place: str
    first: tuple[str, str, str]
    second: tuple[str, str, str]


class Found(NamedTuple):
    """The duplicates of some pictures: pairs, the worst first; whether these are all; reasons by name of what `drop` leaves out."""

    pairs: list[Copy]
    whole: bool
    superfluous: dict[str, str]

    def __or__(self, more: "Found") -> "Found":
        return Found(_sorted(self.pairs + more.pairs), self.whole and more.whole, self.superfluous | more.superfluous)

    def of(self, plan: Plan) -> "Found":
        """The same where the classes are in these splits. A class that is in none of them was left out."""
        split_of = {name: split for split, classes in plan.items() for name in classes}

        def now(picture: tuple[str, str, str]) -> tuple[str, str, str]:
            file, name, _ = picture
            return file, name, split_of.get(name, LEFT_OUT)

        return self._replace(
            pairs=_sorted([_copy(one.likeness, now(one.first), now(one.second)) for one in self.pairs])
        )


class Copies(DataError):
    """The error of pictures that are there more than once."""

    def __init__(self, found: Found) -> None:
        least = "" if found.whole else "At least "
        super().__init__(
            f"{least}{counted(len(found.pairs), 'pair')} of pictures are duplicates; the first is {_pair(found.pairs[0])}. "
            "Leave them out with --duplicates drop, or have them listed only with --duplicates report."
        )
        self.found = found


def find_copies(plan: Plan, arrays: dict[str, np.ndarray], bits: int) -> Found:
    """Find the duplicates. arrays: the pictures of each split, in the order of the plan."""
    pictures = [(file, name, split) for split in arrays for name, files in plan[split].items() for file in files]
    twins = find_twins(list(arrays.values()), bits, _numbered([(split, name) for _, name, split in pictures]))
    pairs = [
        _copy(likeness, pictures[a], pictures[b])
        for likeness, found in zip(LIKENESS, (_pairs(twins.same), twins.near), strict=True)
        for a, b in found
    ]
    return Found(_sorted(pairs), twins.whole, _superfluous(pictures, twins))


def _numbered(rows: Sequence[tuple[str, ...]]) -> np.ndarray:
    """A number in place of each different word of a column."""
    return np.stack(
        [np.unique(np.array(column, object), return_inverse=True)[1] for column in zip(*rows, strict=True)], 1
    )


def _sorted(pairs: list[Copy]) -> list[Copy]:
    return sorted(pairs, key=lambda pair: (PLACES.index(pair.place), LIKENESS.index(pair.likeness)))


def _pairs(groups: list[list[int]]) -> list[tuple[int, int]]:
    return [(rows[0], row) for rows in groups for row in rows[1:]]


def _copy(likeness: str, first: tuple[str, str, str], second: tuple[str, str, str]) -> Copy:
    apart = first[2] != second[2] and LEFT_OUT not in (first[2], second[2])
    place = PLACES[0] if apart else PLACES[1] if first[1] != second[1] else PLACES[2]
    return Copy(likeness, place, first, second)


def _superfluous(pictures: Sequence[tuple[str, str, str]], twins: Twins) -> dict[str, str]:
    """Reasons by name of what `drop` leaves out.

    Of duplicates in one class the first stays. Those in several classes all go, because nobody can say which class is right.
    """
    gone: dict[int, str] = {}
    equal = {rows[0]: rows for rows in twins.same}
    classes = {first: {pictures[row][1] for row in rows} for first, rows in equal.items()}
    several = [(first, first) for first, found in classes.items() if len(found) > 1]
    several += [(a, b) for a, b in twins.near if pictures[a][1] != pictures[b][1]]
    for a, b in several:
        every = [*equal.get(a, [a]), *equal.get(b, [b])]
        for row in every:
            other = next(one for one in every if pictures[one][1] != pictures[row][1])
            gone.setdefault(row, f"it is also in another class, as {shown(pictures[other][0])}")
    for first, rows in equal.items():
        gone = {**{row: f"it has the same pixels as {shown(pictures[first][0])}" for row in rows[1:]}, **gone}
    for a, b in sorted(twins.near, key=lambda pair: pair[1]):  # whether the first goes is known before the second
        if a not in gone:
            for row in equal.get(b, [b]):
                gone.setdefault(row, f"it is nearly the same as {shown(pictures[a][0])}")
    return {pictures[row][0]: why for row, why in gone.items()}


def counts(found: Found, rule: Rule, bits: int) -> dict[str, Any]:
    """What the manifest keeps: how many there are of each kind, whether these are all, and the first ones."""
    pairs = found.pairs
    numbers = Counter((pair.likeness, pair.place) for pair in pairs)
    return {
        "rule": rule, "bits": bits, "file": REPORT, "whole": found.whole,
        "pairs": {likeness: {place: numbers[likeness, place] for place in PLACES} for likeness in LIKENESS},
        "first": [_pair(pair) for pair in pairs[:NAMED]],
    }  # fmt: skip


def _pair(pair: Copy) -> str:
    (a, of_a, split_a), (b, of_b, split_b) = pair.first, pair.second
    where = f"({_class(of_a, split_a)}) and {shown(b, 80)} ({_class(of_b, split_b)})"
    return f"{shown(a, 80)} {where}: {pair.likeness}, {pair.place}"


def _class(name: str, split: str) -> str:
    return f"{shown(name, 40)}, {LEFT_OUT}" if split == LEFT_OUT else f"{shown(name, 40)} of {split}"


def table(pairs: Sequence[Copy]) -> bytes:
    """The report as CSV: a line for each pair. Bytes of names that are not UTF-8 appear as escapes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["likeness", "place", "first", "class", "split", "second", "class_of_second", "split_of_second"])
    rows.writerows([pair.likeness, pair.place, *pair.first, *pair.second] for pair in pairs)
    return text.getvalue().encode("utf-8", "backslashreplace")
