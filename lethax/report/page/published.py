"""Runs beside the numbers of the paper, where a run has the recipe of a cell of a table."""

from collections.abc import Sequence
from typing import NamedTuple

from lethax.recipe import Resolved
from lethax.recipe.resolve import resolve
from lethax.report.cells import Cell, every_cell
from lethax.report.page.gather import At, Evaluated, Told
from lethax.runs.folder import SCALED, made_with

_FREE = {"seed", "memory", "outer.val_episodes", *SCALED}  # in which a run may differ from its cell


class Beside(NamedTuple):
    """An evaluation of a run beside the published number of its cell. share: of the published outer steps, those trained so far."""

    told: Told
    cell: Cell
    evaluation: Evaluated
    ours: At
    published: float | None
    published_interval: float | None
    source: str
    share: float


def beside(runs: Sequence[Told]) -> list[Beside]:
    """All test evaluations of runs that are cells, on their own data."""
    cells = every_cell()
    return [
        Beside(
            told, cell, one, one.at, known.value if known else None, known.interval if known else None,
            known.source if known else "", told.steps / max(told.run.recipe.outer.full_steps, 1),
        )
        for told in runs
        for cell in cells_of(told.run.recipe, cells)
        for known in [cell.published]
        for one in told.evaluations
        if one.split == "test" and one.own
    ]  # fmt: skip


def cells_of(recipe: Resolved, cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose recipe a run has."""
    mine = _told(recipe)
    alike = [cell for cell in cells if (cell.recipe.data, cell.recipe.method) == (recipe.data, recipe.method)]
    return [cell for cell in alike if _told(resolve(cell.recipe)) == mine]


def _told(recipe: Resolved) -> dict[str, object]:
    return {key: value for key, value in made_with(recipe).items() if key not in _FREE}
