"""Analyses as tables, CSV and figures. `VIEWS` has a view for every analysis of `runs.analyses.MEASURES`.

A view is given what was measured of each run, by the run's short name: several runs stand in one figure.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lethax.analysis.attenuation import ByHand, Gates
from lethax.files import to_json, write_atomic
from lethax.report import gradient_views
from lethax.report.figures import pictures, plt, sheet
from lethax.report.scores import interval
from lethax.report.view import Results, Row, View, colour_of, label_of, names_at


def write(what: str, record: Mapping[str, Any], results: Results, folder: Path) -> list[Path]:
    """Write WHAT.json, WHAT.csv, WHAT.png and WHAT.svg. `record` says what was analysed; "rows" of its runs are added here."""
    view = VIEWS[what]
    rows = [{"run": name, **row} for name, result in results.items() for row in view.rows(result)]
    contents: dict[str, str | bytes] = {
        "json": to_json({**record, "rows": rows}) + "\n",
        "csv": sheet(rows),
        **pictures(lambda: view.draw(results)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{what}.{kind}" for kind in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths


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
    axes.legend()
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
    lines = [["run", "layer", "score at 1", *(f"change at {factors[number]:g}" for number in shown)]]
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
    panels[0][0].set_ylabel("score")
    panels[0][-1].legend(title="attenuated layer", title_fontsize=8, loc="best")
    return figure


VIEWS: dict[str, View] = {
    "gates": View(_gates_rows, _gates_table, _draw_gates),
    "attenuation": View(_by_hand_rows, _by_hand_table, _draw_by_hand),
    "landscape": gradient_views.LANDSCAPE,
    "conflict": gradient_views.CONFLICT,
}
