"""Figures D and E: curves, the points that a method adapts to, and what it says of the curve before and after inner steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lethax.analysis import regression
from lethax.methods import method_of
from lethax.records import EpisodeShape
from lethax.report.figures import COLOURS, TITLES, Numbers, plt
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import Run
from lethax.streams import test_key
from lethax.text import counted

STEPS = (0, 1, 5, 10)  # after so many inner steps the curves are drawn
_LINES: tuple[Any, ...] = tuple(
    zip(STEPS, (":", "--", "--", "--"), (0.6, 0.4, 0.7, 1.0), strict=True)
)  # style and strength
DRAWN = 3  # curves, the first ones of the test
JUDGED = 1000  # curves whose errors are summarised
POINTS = 100  # of a curve, as in the published protocol


def numbers(runs: Sequence[Run]) -> Numbers:
    """The points of all drawn curves, a row each, and the errors of each run after 0, 1, … inner steps over more curves."""
    rows: list[dict[str, Any]] = []
    errors = []
    for run in runs:
        name = {"method": method_of(run.recipe).full, "shot": run.recipe.episode.shot, "seed": run.recipe.seed}
        shape = EpisodeShape(1, run.recipe.episode.shot, POINTS)
        tasks, source = run.domain.family(run.recipe, "test")
        meta = best_metas(run, 1)[0][0]
        fits = regression.fits(run.learner(), meta, tasks, source, shape, test_key(0), curves=JUDGED, steps=max(STEPS))
        of_curves = np.asarray(fits.errors(), float)
        errors.append({
            **name, "curves": JUDGED, "mean": of_curves.mean(axis=0).tolist(), "median": np.median(of_curves, axis=0).tolist(),
        })  # fmt: skip
        for curve in range(DRAWN):
            for x, y in zip(*_points(fits.support, curve), strict=True):
                rows.append(
                    {**name, "curve": curve, "points": "support", "x": x, "y": y} | {_after(j): None for j in STEPS}
                )
            outputs = np.asarray(fits.outputs[curve], float)
            for i, (x, y) in enumerate(zip(*_points(fits.query, curve), strict=True)):
                said = {_after(j): float(outputs[j, i]) for j in STEPS}
                rows.append({**name, "curve": curve, "points": "query", "x": x, "y": y, **said})
    return Numbers(rows, {"squared_errors_after_inner_steps": errors})


def _points(split: Any, curve: int) -> tuple[list[float], list[float]]:
    return np.asarray(split.x[curve, :, 0], float).tolist(), np.asarray(split.y[curve, :, 0], float).tolist()


def _after(steps: int) -> str:
    return f"after_{steps}"


def draw(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """A row of panels for each curve, a column for each method and number of shots. The runs are those of the first seed."""
    first = min(row["seed"] for row in rows)
    rows = [row for row in rows if row["seed"] == first]
    columns = list(dict.fromkeys((row["method"], row["shot"]) for row in rows))
    figure, panels = plt.subplots(
        DRAWN, len(columns), figsize=(2.9 * len(columns), 2.2 * DRAWN + 0.8), layout="constrained", squeeze=False,
        sharex=True, sharey="row",
    )  # fmt: skip
    for curve, line in enumerate(panels):
        for axes, column in zip(line, columns, strict=True):
            here = [row for row in rows if (row["method"], row["shot"]) == column and row["curve"] == curve]
            _panel(axes, here, COLOURS.get(column[0], "black"))
            if curve == 0:
                axes.set_title(f"{TITLES.get(column[0], column[0])}, {column[1]}-shot")
        # A net that diverges on one curve must not flatten the curve itself.
        height = 1.7 * max(abs(row["y"]) for row in rows if row["curve"] == curve)
        line[0].set(ylim=(-height, height), ylabel=f"curve {curve + 1}")
    for axes in panels[-1]:
        axes.set_xlabel("x")
    grey = plt.get_cmap("Greys")  # the colour of a line says its method, and the legend holds for all of them
    handles = [
        Line2D([], [], color="black", label="curve"),
        Line2D([], [], color="black", marker="^", linestyle="", label="support"),
        *[Line2D([], [], color=grey(shade), linestyle=style, label=_when(j)) for j, style, shade in _LINES],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _when(steps: int) -> str:
    return f"after {counted(steps, 'inner step')}" if steps else "before"


def _panel(axes: Any, rows: Sequence[dict[str, Any]], colour: str) -> None:
    query, support = ([row for row in rows if row["points"] == points] for points in ("query", "support"))
    x, y = (np.array([row[key] for row in query]) for key in ("x", "y"))
    axes.plot(x, y, color="black", linewidth=1.4)
    errors = []
    for steps, style, strength in _LINES:
        said = np.array([row[_after(steps)] for row in query], float)
        axes.plot(x, said, linestyle=style, color=colour if steps else "grey", alpha=strength, linewidth=1.3)
        errors.append(f"{np.mean(np.square(said - y)):.2g}")
    axes.plot([row["x"] for row in support], [row["y"] for row in support], "^", color="black", markersize=4)
    axes.text(0.02, 0.02, "MSE " + " → ".join(errors), transform=axes.transAxes, fontsize=7)
