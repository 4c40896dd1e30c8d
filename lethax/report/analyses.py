"""Analyses as tables, CSV and figures. `VIEWS` has a view for every analysis of `runs.analyses.MEASURES`.

A view is given what was measured of each run, by the run's short name: several runs stand in one figure.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lethax.analysis.attenuation import ByHand, Effects, Gates
from lethax.analysis.surface import Surface
from lethax.files import to_json, write_all
from lethax.report import gradient_views
from lethax.report.figures import pictures, plt, sheet
from lethax.report.scores import interval
from lethax.report.view import Results, Row, View, colour_of, label_of, names_at


def write(what: str, record: Mapping[str, Any], results: Results, folder: Path) -> list[Path]:
    """Write WHAT.json, WHAT.csv, WHAT.png and WHAT.svg into a folder that exists.

    `record` says what was analysed; the rows of all runs are added to it.
    """
    view = VIEWS[what]
    rows = [{"run": name, **row} for name, result in results.items() for row in view.rows(result)]
    record = {**record, "rows": rows}
    return write_all(
        folder, what, {"json": to_json(record) + "\n", "csv": sheet(rows), **pictures(lambda: view.draw(results))}
    )


def _gates_rows(result: Gates) -> list[Row]:
    summary = result.summary()
    tasks = len(result.per_task)
    return [
        {"gate": name, "tasks": tasks, **{key: float(values[place]) for key, values in summary.items()}}
        for place, name in enumerate(result.names)
    ]


def _gates_table(results: Results) -> list[list[str]]:
    lines = [["run", "gate", "mean", "deviation", "5 %", "median", "95 %"]]
    for run, result in results.items():
        for row in _gates_rows(result):
            lines.append([run, row["gate"], *(f"{row[key]:.4f}" for key in ("mean", "std", "q05", "q50", "q95"))])
    return lines


def _draw_gates(results: Results) -> Figure:
    """γ of every gate over tasks: a dot at the median, a thick line from quartile to quartile, a thin one from 5 % to 95 %."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.names))
    figure, axes = plt.subplots(figsize=(max(5.0, min(0.55 * len(names) + 2, 14)), 3.8), layout="constrained")
    axes.axhline(1.0, color="grey", linewidth=0.8, linestyle="--", label="no attenuation")
    width = 0.6 / max(len(results), 1)
    for number, (run, result) in enumerate(results.items()):
        places = np.array([names.index(name) for name in result.names]) + (number - (len(results) - 1) / 2) * width
        summary, colour = result.summary(), colour_of(number)
        axes.vlines(places, summary["q05"], summary["q95"], color=colour, linewidth=1)
        axes.vlines(places, summary["q25"], summary["q75"], color=colour, linewidth=4, alpha=0.55)
        axes.plot(places, summary["q50"], "o", color=colour, markersize=4.5, label=label_of(run))
    names_at(axes, names)
    tasks = len(next(iter(results.values())).per_task)
    axes.set(ylabel="gate γ", title=f"{tasks:,} tasks: median, quartiles, 5 % and 95 %")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _by_hand_rows(result: ByHand) -> list[Row]:
    rows = []
    for place, layer in enumerate(result.layers):
        for number, factor in enumerate(result.factors):
            found, change = result.score(place, number), result.change(place, number)
            rows.append({
                "layer": layer, "factor": factor, "episodes": found.n, "mean": found.mean, "ci95": found.ci95,
                "change": change.mean, "change_ci95": change.ci95,
            })  # fmt: skip
    return rows


def _by_hand_table(results: Results) -> list[list[str]]:
    """The score without attenuation, and what factors of 0.1 and 0.5 change."""
    shown = (0, 4)
    factors = next(iter(results.values())).factors
    lines = [["run", "layer", "at 1", *(f"change at {factors[number]:g}" for number in shown)]]
    for run, result in results.items():
        for place, layer in enumerate(result.layers):
            whole = result.score(place, -1)
            changes = (result.change(place, number) for number in shown)
            lines.append([run, layer, interval(whole.mean, whole.ci95, whole.n),
                          *(interval(change.mean, change.ci95, change.n, "+") for change in changes)])  # fmt: skip
    return lines


def _draw_by_hand(results: Results) -> Figure:
    """Scores against the factor of one layer: a panel for each run, a line for each layer, and 95 % intervals of the change."""
    figure, panels = plt.subplots(
        1, len(results), figsize=(4.2 * len(results) + 0.6, 3.8), layout="constrained", squeeze=False, sharey=True
    )
    for axes, (run, result) in zip(panels[0], results.items(), strict=True):
        shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(result.layers)))
        axes.axhline(result.score(0, -1).mean, color="grey", linewidth=0.8, linestyle="--")
        for place, (layer, shade) in enumerate(zip(result.layers, shades, strict=True)):
            means = result.scores[place].mean(axis=-1)
            half = np.array([result.change(place, number).ci95 for number in range(len(result.factors))])
            axes.plot(result.factors, means, marker="o", markersize=3.5, linewidth=1.3, color=shade, label=layer)
            axes.fill_between(result.factors, means - half, means + half, color=shade, alpha=0.15, linewidth=0)
        axes.set(xlabel="factor of one layer", title=run)
    panels[0][0].set_ylabel(next(iter(results.values())).score_name)
    panels[0][-1].legend(title="attenuated layer", title_fontsize=8, loc="best")
    return figure


def _effects_rows(result: Effects) -> list[Row]:
    rows = []
    for place, way in enumerate(result.ways):
        found, change = result.score(place), result.change(place)
        rows.append({"way": way, "episodes": found.n, "mean": found.mean, "ci95": found.ci95,
                     "less_l2f": change.mean, "less_l2f_ci95": change.ci95})  # fmt: skip
    return rows


def _effects_table(results: Results) -> list[list[str]]:
    lines = [["run", "before a batch norm", "score", "less L2F"]]
    for run, result in results.items():
        for row in _effects_rows(result):
            n = row["episodes"]
            gap = interval(row["less_l2f"], row["less_l2f_ci95"], n, "+") if row["way"] != result.ways[0] else ""
            lines.append([run, row["way"], interval(row["mean"], row["ci95"], n), gap])
    return lines


def _draw_effects(results: Results) -> Figure:
    """The score of every way to use the gates: a dot with its 95 % interval, a colour for each run."""
    ways, score_name = next((result.ways, result.score_name) for result in results.values())
    figure, axes = plt.subplots(figsize=(6.4, 0.45 * len(ways) + 0.25 * len(results) + 1.2), layout="constrained")
    width = 0.5 / len(results)
    for number, (run, result) in enumerate(results.items()):
        found = [result.score(place) for place in range(len(ways))]
        places = np.arange(len(ways)) + (number - (len(results) - 1) / 2) * width
        axes.errorbar(
            [one.mean for one in found], places, xerr=[one.ci95 for one in found], fmt="o", markersize=5,
            color=colour_of(number), label=label_of(run), capsize=2, linewidth=1.2,
        )  # fmt: skip
        axes.axvline(found[0].mean, color=colour_of(number), linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    axes.set(xlabel=f"{score_name} (95 % interval over episodes)", title="What gates do before a batch norm")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _surface_rows(result: Surface) -> list[Row]:
    rows = [
        {"kind": "grid", "x": float(x), "y": float(y), "support_loss": float(result.support[j, i]),
         "query_loss": float(result.query[j, i])}
        for j, y in enumerate(result.across) for i, x in enumerate(result.along)
    ]  # fmt: skip
    stops = [{"kind": f"w_{step}", "x": float(x), "y": float(y)} for step, (x, y) in enumerate(result.stops)]
    return [*stops, *rows]


def _surface_table(results: Results) -> list[list[str]]:
    lines = [["run", "moved", *(f"{split} at {end}" for end in ("w_0", "w_J") for split in ("support", "query"))]]
    for run, result in results.items():
        losses = [*result.at(0.0), *result.at(1.0)]
        lines.append([run, f"{result.moved:.4f}", *(f"{loss:.4f}" for loss in losses)])
    return lines


def _draw_surface(results: Results) -> Figure:
    """A column for each run: support and query loss on the plane, in colours that all runs share, and both on the line y = 0."""
    # A column of its own for the colour bars keeps the panels square and in line.
    figure, panels = plt.subplots(
        3, len(results) + 1, figsize=(3.0 * len(results) + 1.6, 8.6), layout="constrained", squeeze=False,
        width_ratios=(*[1.0] * len(results), 0.06), height_ratios=(1, 1, 0.7),
    )  # fmt: skip
    for row, split in enumerate(("support", "query")):
        values = np.concatenate([getattr(result, split).ravel() for result in results.values()])
        finite = values[np.isfinite(values)]
        low, high = np.quantile(finite, (0.0, 0.95)) if finite.size else (0.0, 1.0)
        levels = np.linspace(low, high if high > low else low + 1.0, 21)
        for axes, result in zip(panels[row], results.values(), strict=False):
            losses, colours = np.ma.masked_invalid(getattr(result, split)), "viridis"
            drawn = axes.contourf(result.along, result.across, losses, levels, cmap=colours, extend="max")
            axes.contour(result.along, result.across, losses, levels[::2], colors="white", linewidths=0.3)
            axes.plot(*result.stops.T, "-o", color="white", markersize=3.5, linewidth=1.2, markeredgecolor="black")
            axes.plot(*result.stops[-1], "*", color="#D55E00", markersize=11, markeredgecolor="white")
        panels[row][0].set_ylabel("random direction")
        figure.colorbar(drawn, cax=panels[row][-1], label=f"{split} loss", format="%.3g", ticks=levels[::4])
    for axes, result in zip(panels[2], results.values(), strict=False):
        for losses, split, style in zip(result.line(), ("support", "query"), ("-", "--"), strict=True):
            axes.plot(result.along, losses, style, color="black", label=split)
        for x in (0.0, 1.0):
            axes.axvline(x, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="from w_0 (0) to w_J (1)", xlim=(result.along[0], result.along[-1]))
    for axes, (run, result) in zip(panels[0], results.items(), strict=False):
        axes.set_title(f"{run}\none unit is {result.moved:.2g} of |w_0|")
    for axes in panels[2][1:-1]:
        axes.sharey(panels[2][0])
    panels[2][0].relim()
    panels[2][0].autoscale(axis="y")
    panels[2][0].set_ylabel("loss on the line")
    panels[2][0].legend()
    panels[2][-1].axis("off")
    return figure


VIEWS: dict[str, View] = {
    "gates": View(_gates_rows, _gates_table, _draw_gates),
    "attenuation": View(_by_hand_rows, _by_hand_table, _draw_by_hand),
    "effects": View(_effects_rows, _effects_table, _draw_effects),
    "surface": View(_surface_rows, _surface_table, _draw_surface),
    "landscape": gradient_views.LANDSCAPE,
    "conflict": gradient_views.CONFLICT,
}
