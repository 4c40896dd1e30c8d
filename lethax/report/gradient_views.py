"""Views of what is measured on gradients: the landscape of the loss, and the degree of conflict."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lethax.analysis.conflict import Conflicts, mean_std
from lethax.report.view import Results, Row, View, colour_of, label_of, names_at
from lethax.runs.analyses import Landscapes
from lethax.text import counted

_SHOWN = {
    "loss_variation": "loss variation",
    "difference_mean": "gradient difference",
    "smoothness": "effective β-smoothness",
}


def _ci95(values: np.ndarray) -> np.ndarray:
    """The half-width of the 95 % interval over tasks."""
    return np.asarray(1.96 * values.std(axis=0) / len(values) ** 0.5)


def _landscape_rows(result: Landscapes) -> list[Row]:
    inner = result.inner._asdict()
    tasks, steps = result.inner.loss.shape
    rows: list[Row] = []
    for step in range(steps):
        row: Row = {"at": f"inner step {step}", "tasks": tasks}
        for name, values in inner.items():
            row |= {name: float(values[:, step].mean()), f"{name}_ci95": float(_ci95(values)[step])}
        rows.append(row)
    whole = {name: float(value) for name, value in result.initialisation._asdict().items()}
    return [*rows, {"at": f"initialisation, {counted(result.batch, 'task')}", "tasks": result.batch, **whole}]


def _landscape_table(results: Results) -> list[list[str]]:
    lines = [["run", "at", "variation", "difference", "smoothness"]]
    for run, result in results.items():
        for row in _landscape_rows(result):
            lines.append([run, row["at"], *(f"{row[name]:.4g}" for name in _SHOWN)])
    return lines


def _draw_landscape(results: Results) -> Figure:
    """A panel for each measure: means over tasks at the points where inner steps begin, with 95 % intervals."""
    figure, panels = plt.subplots(1, len(_SHOWN), figsize=(3.6 * len(_SHOWN), 3.4), layout="constrained")
    for axes, (name, title) in zip(panels, _SHOWN.items(), strict=True):
        for number, (run, result) in enumerate(results.items()):
            values, colour = getattr(result.inner, name), colour_of(number)
            steps = np.arange(values.shape[1]) + 0.1 * (number - (len(results) - 1) / 2)  # beside each other
            mean, half = values.mean(axis=0), _ci95(values)
            axes.errorbar(steps, mean, half, fmt="o-", markersize=4, linewidth=1, color=colour, label=label_of(run))
        axes.set(title=title, xlabel="inner step j, at w_j", xticks=list(range(values.shape[1])))
        axes.set_ylim(bottom=0)
    panels[0].legend()
    return figure


def _conflict_rows(result: Conflicts) -> list[Row]:
    between, within = mean_std(result.between), mean_std(result.within)
    return [
        {
            "tensor": name, "tasks": len(result.between), "between": float(between[0][i]), "between_std": float(between[1][i]),
            "tasks_within": len(result.within), "within": float(within[0][i]), "within_std": float(within[1][i]),
            "random": mean, "random_std": std,
        }
        for i, (name, (mean, std)) in enumerate(zip(result.tensors, result.random, strict=True))
    ]  # fmt: skip


def _conflict_table(results: Results) -> list[list[str]]:
    lines = [["run", "tensor", "between", "within", "random"]]
    for run, result in results.items():
        for row in _conflict_rows(result):
            lines.append([
                run, row["tensor"], f"{row['between']:.3f} ± {row['between_std']:.3f}",
                "" if math.isnan(row["within"]) else f"{row['within']:.3f} ± {row['within_std']:.3f}",
                f"{row['random']:.3f} ± {row['random_std']:.3f}",
            ])  # fmt: skip
    return lines


def _draw_conflict(results: Results) -> Figure:
    """A panel for each kind: mean angles of every tensor with their deviation over tasks, and the band of random directions."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.tensors))
    width = max(4.2, min(0.42 * len(names) + 1.5, 9))
    figure, panels = plt.subplots(1, 2, figsize=(2 * width, 3.8), layout="constrained", sharey=True)
    for axes, (kind, title) in zip(
        panels, {"between": "between tasks", "within": "within a task"}.items(), strict=True
    ):
        axes.axhline(math.pi / 2, color="grey", linewidth=0.8, linestyle="--", label="random directions (π/2)")
        for number, (run, result) in enumerate(results.items()):
            at = np.array([names.index(name) for name in result.tensors]) + 0.22 * (number - (len(results) - 1) / 2)
            mean, std = mean_std(getattr(result, kind))
            axes.errorbar(
                at, mean, std, fmt="o", markersize=4, linewidth=1, color=colour_of(number), label=label_of(run)
            )
            if number == 0:
                low, high = (np.array([m + sign * s for m, s in result.random]) for sign in (-1, 1))
                axes.bar(at, high - low, 0.9, bottom=low, color="grey", alpha=0.15, linewidth=0)
        names_at(axes, names)
        axes.set(title=title)
    panels[0].set_ylabel("angle, radians")
    panels[0].legend()
    return figure


LANDSCAPE = View(_landscape_rows, _landscape_table, _draw_landscape)
CONFLICT = View(_conflict_rows, _conflict_table, _draw_conflict)
