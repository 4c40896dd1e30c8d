"""Figures A, B, C and G: what the probes of a run found while it trained, against the outer steps."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lethax.errors import RunError
from lethax.files import read_log
from lethax.methods import method_of
from lethax.report.figures import COLOURS, TITLES, Numbers, plt
from lethax.runs.folder import PROBES, Run
from lethax.text import counted, shown

Row = dict[str, Any]
MEASURES = (
    "loss_min", "loss_max", "loss_variation", "difference_min", "difference_max", "difference_mean", "smoothness",
)  # fmt: skip
ANGLES = ("between", "between_std", "within", "within_std", "random", "random_std")
_SMOOTHED = 5  # measurements whose mean the thick lines are, where there are at least three times as many


def along_the_inner_steps(runs: Sequence[Run], split: str) -> Numbers:
    """Figure A, of training tasks, and B, of validation tasks: means over the inner steps, a row for each measurement."""
    return Numbers([
        {**_name(run, line), **{name: _mean(line[name]) for name in MEASURES}}
        for run in runs
        for line in lines(run, "landscape", split)
    ])  # fmt: skip


def of_initialisation(runs: Sequence[Run]) -> Numbers:
    """Figure C: the same measures of the initialisation under the meta-gradient."""
    return Numbers([
        {**_name(run, line), **{name: _number(line["initialisation"][name]) for name in MEASURES}}
        for run in runs
        for line in lines(run, "landscape", "train")
    ])  # fmt: skip


def of_conflict(runs: Sequence[Run]) -> Numbers:
    """Figure G: angles between gradients in radians, a row for each measurement and tensor."""
    return Numbers([
        {**_name(run, line), "tensor": tensor, **{name: _number(line[name][place]) for name in ANGLES}}
        for run in runs
        for line in lines(run, "conflict", "train")
        for place, tensor in enumerate(line["tensors"])
    ])  # fmt: skip


def lines(run: Run, probe: str, split: str) -> list[dict[str, Any]]:
    """The lines of a probe on the tasks of a split; RunError where the run has none."""
    found = [
        line for line in read_log(run.folder / PROBES) if line.get("probe") == probe and line.get("split") == split
    ]
    if not found:
        raise RunError(
            f"{shown(run.folder)} was trained without the probe {probe}, and a trained run cannot be probed afterwards: "
            "give reproduce another --out, where it trains the run anew with the probe."
        )
    return found


def _name(run: Run, line: dict[str, Any]) -> Row:
    return {"method": method_of(run.recipe).full, "seed": run.recipe.seed, "step": line["step"], "tasks": line["tasks"]}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)  # JSON has null for what is not finite


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean([_number(value) for value in values]))


def draw_landscape(rows: Sequence[Row], title: str) -> Figure:
    """Three panels: loss variation, band and mean of the gradient's change, and effective β-smoothness."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
    for (method, seed), mine in _by_run(rows).items():
        colour, label = COLOURS.get(method, "black"), _label(method, seed, rows)
        step = [row["step"] for row in mine]
        values = {name: np.array([row[name] for row in mine], float) for name in MEASURES}
        panels[1].fill_between(
            step, values["difference_min"], values["difference_max"], color=colour, alpha=0.15, linewidth=0
        )
        for axes, name in zip(panels, ("loss_variation", "difference_mean", "smoothness"), strict=True):
            _line(axes, step, values[name], colour, label)
    for axes, name in zip(panels, (
        "loss variation: max − min", "ℓ2 gradient difference: mean, min to max",
        "max. gradient difference over distance",
    ), strict=True):  # fmt: skip
        axes.set(title=name, xlabel="outer step")
        axes.title.set_fontsize(9)
        axes.set_ylim(bottom=0)
    _legend(figure, panels[0], rows, "over steps of 0.5 to 4 inner rates along the negative gradient")
    figure.suptitle(title, fontsize=10)
    return figure


def draw_conflict(rows: Sequence[Row], title: str) -> Figure:
    """A panel for each layer's weights: the angle between tasks and within a task, beside that of random directions."""
    tensors = list(dict.fromkeys(row["tensor"] for row in rows))
    # Biases before a batch norm have no gradient, and few entries say little: of each layer its weights are drawn.
    drawn = [name for name in tensors if name.endswith("weight")] or tensors
    wide = min(len(drawn), 5)
    figure, panels = plt.subplots(
        math.ceil(len(drawn) / wide), wide, figsize=(2.8 * wide, 3.2 * math.ceil(len(drawn) / wide) + 0.6),
        layout="constrained", squeeze=False, sharex=True,
    )  # fmt: skip
    for axes in panels.flat[len(drawn) :]:
        axes.set_visible(False)
    for axes, tensor in zip(panels.flat, drawn, strict=False):
        of_tensor = [row for row in rows if row["tensor"] == tensor]
        for (method, seed), mine in _by_run(of_tensor).items():
            step, colour = [row["step"] for row in mine], COLOURS.get(method, "black")
            for name, style in (("between", "-"), ("within", "--")):
                values = np.array([row[name] for row in mine], float)
                what = "between tasks" if name == "between" else "within a task"
                _line(axes, step, values, colour, f"{_label(method, seed, rows)}, {what}", style)
        axes.axhline(math.pi / 2, color="grey", linewidth=0.9, linestyle=":", label="random directions (π/2)")
        spread = of_tensor[0]["random_std"]
        axes.axhspan(math.pi / 2 - spread, math.pi / 2 + spread, color="grey", alpha=0.15, linewidth=0)
        axes.set(title=tensor, xlabel="outer step")
        axes.title.set_fontsize(9)
    for line in panels:
        line[0].set_ylabel("angle, radians")
    _legend(figure, panels[0][0], rows, "grey band: ± one deviation of random directions")
    figure.suptitle(title, fontsize=10)
    return figure


def _by_run(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["seed"]), []).append(row)
    return found


def _label(method: str, seed: int, rows: Sequence[Row]) -> str:
    several = len({row["seed"] for row in rows}) > 1
    return TITLES.get(method, method) + (f", seed {seed}" if several else "")


def _long(step: Collection[int]) -> bool:
    return len(step) >= 3 * _SMOOTHED


def _line(axes: Any, step: Sequence[int], values: np.ndarray, colour: str, label: str, style: str = "-") -> None:
    """Draw what was measured; where it is long enough, that is thin, and the mean over neighbours is thick."""
    if not _long(step):
        axes.plot(step, values, color=colour, label=label, linestyle=style, marker=".", markersize=4, linewidth=1.2)
        return
    axes.plot(step, values, color=colour, linewidth=0.6, alpha=0.5, linestyle=style)
    axes.plot(step, running_mean(values), color=colour, linewidth=1.8, label=label, linestyle=style)


def running_mean(values: np.ndarray, width: int = _SMOOTHED) -> np.ndarray:
    """The mean of each value and its neighbours, `width` in all and fewer at the ends."""
    half = width // 2
    return np.array([np.mean(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))])


def _legend(figure: Figure, axes: Any, rows: Sequence[Row], note: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    long = any(_long({row["step"] for row in mine}) for mine in _by_run(rows).values())
    how = f"thin: as measured; thick: mean of {counted(_SMOOTHED, 'neighbouring measurement')}; " if long else ""
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False, fontsize=8, title=how + note,
        title_fontsize=8,
    )  # fmt: skip
