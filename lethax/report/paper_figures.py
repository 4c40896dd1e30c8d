"""The figures of the paper's supplement that `lethax reproduce` draws: which runs each needs, and what is drawn of them."""

from collections.abc import Mapping
from typing import NamedTuple

from lethax.errors import RecipeError
from lethax.text import shown

METHODS = ("maml", "l2f")


class PaperFigure(NamedTuple):
    """A figure of Baik et al. 2020, supplement.

    cells: the names of its cells, by data; the first data are those of the paper. drawing: its name in `figure_files.DRAWINGS`.
    probes: what its runs are probed with while they train.
    """

    name: str
    title: str
    cells: Mapping[str, tuple[str, ...]]
    drawing: str
    probes: tuple[str, ...] = ()

    def cells_on(self, data: str | None) -> tuple[str, ...]:
        """The cells on some data, or on those of the paper. RecipeError if the figure has none there."""
        if data is None:
            return next(iter(self.cells.values()))
        if data not in self.cells:
            raise RecipeError(f"{self.name} cannot be drawn for data '{shown(data)}'; it has {', '.join(self.cells)}.")
        return self.cells[data]


def _images() -> dict[str, tuple[str, ...]]:
    """5-way 5-shot with the 4-conv network."""
    tables = {"miniimagenet": "miniimagenet", "cifar_fs": "table_b"}
    return {
        data: tuple(f"{table}/{method}_{data}_5way5shot_conv4" for method in METHODS) for data, table in tables.items()
    }


def _sines(data: str) -> dict[str, tuple[str, ...]]:
    return {data: tuple(f"table_d/{method}_{data}_{shot}shot_1step" for shot in (5, 10) for method in METHODS)}


_LANDSCAPE, _CONFLICT = ("landscape",), ("conflict",)
_EVERY = (
    PaperFigure("figure-a", "The loss along the inner steps, training tasks", _images(), "training tasks", _LANDSCAPE),
    PaperFigure(
        "figure-b", "The loss along the inner steps, validation tasks", _images(), "validation tasks", _LANDSCAPE
    ),
    PaperFigure("figure-c", "The outer loss around the initialisation", _images(), "initialisation", _LANDSCAPE),
    PaperFigure("figure-d", "Sinusoids from one set of ranges", _sines("sinusoid"), "fits"),
    PaperFigure("figure-e", "Sinusoids from ranges apart from those of training", _sines("sinusoid_shift"), "fits"),
    PaperFigure("figure-g", "Conflict of gradients within a task and between tasks", _images(), "conflict", _CONFLICT),
)
FIGURES = {figure.name: figure for figure in _EVERY}


def named(target: str) -> PaperFigure | None:
    """The figure that a target names, such as "figure-d" or "Figure_D"; None if it names none of these."""
    return FIGURES.get(target.lower().replace("_", "-"))
