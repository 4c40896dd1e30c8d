"""What all views of analyses share: their parts, colours of runs, and names at an axis."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart; a run keeps its colour in all figures.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MOST_TICKS = 24  # names of gates at an axis; of more, every second, third, … has its name

Row = dict[str, Any]
Results = Mapping[str, Any]  # what was measured, by the short name of the run


class View(NamedTuple):
    """How an analysis is shown: rows of the CSV of one run, lines of the terminal's table with their header, and the figure."""

    rows: Callable[[Any], list[Row]]
    table: Callable[[Results], list[list[str]]]
    draw: Callable[[Results], Figure]


def label_of(name: str) -> str:
    """The name of a run in a legend, which would pass over names that begin with _."""
    return f" {name}" if name.startswith("_") else name


def colour_of(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def names_at(axes: Any, names: Sequence[str]) -> None:
    """Write the names of layers or tensors at the x axis, not all of them if they are many."""
    every = -(-len(names) // _MOST_TICKS)
    axes.set_xticks(range(0, len(names), every), names[::every], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
