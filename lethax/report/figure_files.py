"""The files of a figure of the paper: the picture as PNG and SVG, and the numbers behind it as CSV and JSON."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lethax.files import to_json, write_all
from lethax.methods import method_of
from lethax.report import figures, fit_figures, probe_figures, table_rows
from lethax.report.cells import Cell
from lethax.report.figures import Numbers
from lethax.report.paper_figures import PaperFigure
from lethax.runs.folder import Run, reached
from lethax.text import counted


class Drawing(NamedTuple):
    """How a figure is made of trained runs: the numbers behind it, and the picture of their rows under a title."""

    numbers: Callable[[Sequence[Run]], Numbers]
    draw: Callable[[Sequence[dict[str, Any]], str], Any]


DRAWINGS = {
    "fits": Drawing(fit_figures.numbers, fit_figures.draw),
    "training tasks": Drawing(
        partial(probe_figures.along_the_inner_steps, split="train"), probe_figures.draw_landscape
    ),
    "validation tasks": Drawing(
        partial(probe_figures.along_the_inner_steps, split="val"), probe_figures.draw_landscape
    ),
    "initialisation": Drawing(probe_figures.of_initialisation, probe_figures.draw_landscape),
    "conflict": Drawing(probe_figures.of_conflict, probe_figures.draw_conflict),
}


def write(figure: PaperFigure, found: Sequence[tuple[Cell, Run]], command: str, folder: Path) -> list[Path]:
    """Write FIGURE.json, .csv, .png and .svg of trained runs, each of a cell of the figure. Returns the files."""
    drawing, runs = DRAWINGS[figure.drawing], [run for _, run in found]
    rows, more = drawing.numbers(runs)
    rows = [{key: _shortened(value) for key, value in row.items()} for row in rows]
    record = {
        "figure": figure.name, "title": figure.title, "command": command,
        "runs": [
            {"seed": run.recipe.seed, "reached": reached(run), **table_rows.common_entry(cell, run.recipe, [run.folder], command)}
            for cell, run in found
        ],
        **more, "columns": list(rows[0]), "rows": [list(row.values()) for row in rows],
    }  # fmt: skip
    title = f"{figure.title}\n{trained(runs)}"
    numbers = {"json": to_json(record, indent=None) + "\n", "csv": figures.sheet(rows)}
    return write_all(folder, figure.name, {**numbers, **figures.pictures(lambda: drawing.draw(rows, title))})


def _shortened(value: Any) -> Any:
    """A number with six digits, so that CSV and JSON say the same; None, an empty cell, for one that is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def trained(runs: Sequence[Run]) -> str:
    """What a figure says of the training behind it: outer steps, with the share of the published number where it is smaller.

    The steps are those that a run has reached, which may go on.
    """
    recipes = [run.recipe for run in runs]
    said: dict[str, list[str]] = {}
    for run, recipe in zip(runs, recipes, strict=True):
        steps, full = reached(run), recipe.outer.full_steps
        share = f" ({100 * steps / full:.2g} % of the published budget)" if steps < full else ""
        name = method_of(recipe).full
        method = said.setdefault(f"{counted(steps, 'outer step')}{share}", [])
        if (title := figures.TITLES.get(name, name)) not in method:
            method.append(title)
    seeds = counted(len({recipe.seed for recipe in recipes}), "seed")
    of_methods = [f"{' and '.join(methods)}: {steps}" for steps, methods in said.items()]
    if len(said) == 1:
        return f"{recipes[0].data}, {next(iter(said))}, {seeds}"
    return f"{recipes[0].data}, {'; '.join(of_methods)}; {seeds}"
