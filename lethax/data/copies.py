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


class Copy(NamedTuple):
    """A pair of pictures that are the same or nearly so. A picture is (file, class, split)."""

    likeness: str
    place: str
    first: tuple[str, str, str]
    second: tuple[str, str, str]


class Copies(DataError):
    """The error of pictures that are there more than once. `found` has the reasons by name of those that have to go."""

    def __init__(self, pairs: Sequence[Copy], found: dict[str, str]) -> None:
        one = pairs[0]
        super().__init__(
            f"{counted(len(pairs), 'pair')} of pictures are duplicates; the first is {_pair(one)}. "
            "Leave them out with --duplicates drop, or have them listed only with --duplicates report."
        )
        self.pairs, self.found = list(pairs), found


def find_copies(plan: Plan, arrays: dict[str, np.ndarray], bits: int) -> tuple[list[Copy], dict[str, str]]:
    """Find (the pairs of duplicates, the worst first; reasons by name of the pictures that `drop` leaves out).

    arrays: the pictures of each split, in the order of the plan.
    """
    pictures = [(file, name, split) for split in arrays for name, files in plan[split].items() for file in files]
    twins = find_twins(list(arrays.values()), bits)
    pairs = [
        _copy(likeness, pictures[a], pictures[b])
        for likeness, found in zip(LIKENESS, (_pairs(twins.same), twins.near), strict=True)
        for a, b in found
    ]
    pairs.sort(key=lambda pair: (PLACES.index(pair.place), LIKENESS.index(pair.likeness)))
    return pairs, _superfluous(pictures, twins)


def _pairs(groups: list[list[int]]) -> list[tuple[int, int]]:
    return [(rows[0], row) for rows in groups for row in rows[1:]]


def _copy(likeness: str, first: tuple[str, str, str], second: tuple[str, str, str]) -> Copy:
    place = PLACES[0] if first[2] != second[2] else PLACES[1] if first[1] != second[1] else PLACES[2]
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


def counts(pairs: Sequence[Copy], rule: Rule, bits: int) -> dict[str, Any]:
    """What the manifest keeps: how many there are of each kind, and the first ones."""
    numbers = Counter((pair.likeness, pair.place) for pair in pairs)
    return {
        "rule": rule, "bits": bits, "file": REPORT,
        "pairs": {likeness: {place: numbers[likeness, place] for place in PLACES} for likeness in LIKENESS},
        "first": [_pair(pair) for pair in pairs[:NAMED]],
    }  # fmt: skip


def _pair(pair: Copy) -> str:
    (a, of_a, split_a), (b, of_b, split_b) = pair.first, pair.second
    where = f"({shown(of_a, 40)} of {split_a}) and {shown(b, 80)} ({shown(of_b, 40)} of {split_b})"
    return f"{shown(a, 80)} {where}: {pair.likeness}, {pair.place}"


def table(pairs: Sequence[Copy]) -> bytes:
    """The report as CSV: a line for each pair. Bytes of names that are not UTF-8 appear as escapes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["likeness", "place", "first", "class", "split", "second", "class_of_second", "split_of_second"])
    rows.writerows([pair.likeness, pair.place, *pair.first, *pair.second] for pair in pairs)
    return text.getvalue().encode("utf-8", "backslashreplace")
