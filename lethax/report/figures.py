"""Figures from the records of runs, and the colours and the files of all figures."""

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image

from lethax.files import write_atomic
from lethax.report.table_rows import name_of
from lethax.text import counted

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # the name of a run may have signs of dollars
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.labelsize": 9,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "lethax",  # text is text, and equal figures are equal files
}  # fmt: skip
COLOURS = {"maml": "#4c72b0", "l2f": "#dd8452", "maml+l2f": "#dd8452"}
_OTHER_COLOURS = "#55a868 #c44e52 #8172b3 #937860 #da8bc3 #8c8c8c #ccb974 #64b5cd".split()  # of other methods
TITLES = {"maml": "MAML", "l2f": "MAML+L2F", "maml+l2f": "MAML+L2F"}


class Numbers(NamedTuple):
    """The numbers behind a figure: a row for each point, with equal keys in all rows, and what else its JSON says."""

    rows: list[dict[str, Any]]
    more: dict[str, Any] = {}


def sheet(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with a column for each key that any of them has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def pictures(draw: Callable[[], Any]) -> dict[str, bytes]:
    """A figure that is drawn in our style, as "png" and as "svg". Equal figures give equal bytes."""
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        made = {kind: _rendered(figure, kind) for kind in ("png", "svg")}
        plt.close(figure)
    return made


def _rendered(figure: Any, kind: str) -> bytes:
    content, about = io.BytesIO(), {"svg": {"Date": None}, "png": {"Software": None}}
    figure.savefig(content, format=kind, dpi=120, metadata=about[kind])
    if kind == "png":
        content.seek(0)
        picture = Image.open(content).convert("RGB").quantize(256)  # half the size
        content = io.BytesIO()
        picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def _save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and close it. The file is there as a whole or not at all."""
    write_atomic(path, _rendered(figure, "png"))
    plt.close(figure)


def adaptation_curves(records: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Draw scores against inner steps: a line for each method, with its 95 % interval as a band."""
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for method, record in records.items():
        curve = record["by_inner_steps"]
        steps, means = [c["steps"] for c in curve], [c["mean"] for c in curve]
        axes.plot(steps, means, marker="o", label=TITLES.get(method, method), color=COLOURS.get(method))
        low, high = ([c["mean"] + sign * c["ci95"] for c in curve] for sign in (-1, 1))
        axes.fill_between(steps, low, high, alpha=0.2, color=COLOURS.get(method))
    first = next(iter(records.values()))
    axes.axvline(first["inner_steps"], color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="inner steps (dotted: trained for)",
        ylabel=first["score"],
        title=f"{first['data']}, {counted(first['n'], 'test episode')}",
    )
    axes.legend(frameon=False)
    _save(figure, path)


def sinusoid_fits(fits: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Draw one curve before and after adaptation, with a panel for each method."""
    figure, panels = plt.subplots(
        1, len(fits), figsize=(4.5 * len(fits), 3.5), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (method, fit) in zip(panels[0], fits.items(), strict=True):
        x = fit["query"].x[:, 0]
        axes.plot(x, fit["query"].y[:, 0], color="black", label="task")
        for steps, style in ((0, ":"), (1, "--"), (5, "-")):
            label = f"after {counted(steps, 'step')}"
            axes.plot(x, fit["path"][steps], linestyle=style, color=COLOURS.get(method), label=label)
        axes.scatter(fit["support"].x[:, 0], fit["support"].y[:, 0], color="black", zorder=3, label="support")
        axes.set(title=TITLES.get(method, method), xlabel="x")
        axes.legend(frameon=False, fontsize=8)
    panels[0][0].set_ylabel("y")
    _save(figure, path)


def returns_after_updates(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw returns against updates: a panel for each setting, a line for each method, its 95 % interval over tasks as a band."""
    settings = list(dict.fromkeys(row["data"] for row in rows))
    names, others = dict.fromkeys(map(name_of, rows)), itertools.cycle(_OTHER_COLOURS)
    colours = {name: COLOURS.get(name) or next(others) for name in names}
    figure, panels = plt.subplots(
        1, len(settings), figsize=(3.4 * len(settings), 3.2), layout="constrained", squeeze=False
    )
    for axes, setting in zip(panels[0], settings, strict=True):
        for row in (row for row in rows if row["data"] == setting):
            updates, means, ci95 = (
                np.array([at[key] for at in row["by_updates"]]) for key in ("updates", "mean", "ci95")
            )
            axes.plot(updates, means, marker="o", label=name_of(row), color=colours[name_of(row)])
            axes.fill_between(updates, means - ci95, means + ci95, alpha=0.2, color=colours[name_of(row)])
            if row["published_by_updates"]:
                known = row["published_by_updates"]
                axes.plot(range(len(known)), known, "x", color="black", label=f"{row['method']}, published")
        axes.set(title=setting, xlabel="updates", xticks=updates)
    panels[0][0].set_ylabel("return")
    shown = panels[0][0].get_legend_handles_labels()
    figure.legend(*shown, frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    _save(figure, path)


def learning_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw validation scores against outer steps: a panel for each setting, a line for each method, thin ones for seeds.

    The line is the mean accuracy over seeds in %, or the median error, on a logarithmic axis, because one seed may diverge.
    `rows`: those of a table of scores, as `table_rows.compare` gives them, whose seeds were validated at the same steps.
    """
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for row, setting in zip(rows, _settings(rows), strict=True):
        panels.setdefault(setting, []).append(row)
    names = dict.fromkeys(map(name_of, rows))
    others = itertools.product(("-", "--", ":"), _OTHER_COLOURS)
    looks = {name: ("-", COLOURS[name]) if name in COLOURS else next(others, ("-.", "black")) for name in names}
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    figure, grid = plt.subplots(down, across, figsize=(3.6 * across, 3 * down), layout="constrained", squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (title, of_panel) in zip(grid.flat, panels.items(), strict=False):
        for row in of_panel:
            _curve(axes, row, *looks[name_of(row)])
        accuracy = of_panel[0]["score"] == "accuracy"
        axes.set_title(title, fontsize=9)
        axes.set(xlabel="outer steps", ylabel="validation accuracy, %" if accuracy else "validation error")
        axes.set_yscale("linear" if accuracy else "log")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines() if line.get_label() in names}
    figure.legend(handles=[lines[name] for name in names], loc="outside right upper", frameon=False, fontsize=8)
    _save(figure, path)


def _settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The setting of each row in words: its data and shots, and what else differs between rows of one method."""
    words: dict[str, Callable[[Any], str]] = {
        "data": str, "net": str, "shot": "{}-shot".format, "batch": lambda n: f"meta-batch {n}",
        "inner_steps": lambda n: counted(n, "inner step"),
    }  # fmt: skip
    values = {key: {(name_of(row), row[key]) for row in rows} for key in words}
    several = [key for key, found in values.items() if len(found) > len({name for name, _ in found})]
    told = [key for key in words if key in ("data", "shot") or key in several]
    return [", ".join(words[key](row[key]) for key in told) for row in rows]


def _curve(axes: Any, row: Mapping[str, Any], style: str, colour: str) -> None:
    """Draw the curve of a row, and thin ones for its seeds if it has several."""
    steps = [at["step"] for at in row["learning_curve"][0]]
    seeds = np.array([[at["val_score"] for at in curve] for curve in row["learning_curve"]], float)
    if row["score"] == "accuracy":
        seeds *= 100
        middle = seeds.mean(axis=0)
    else:
        middle = np.median(np.nan_to_num(seeds, nan=np.inf), axis=0)
    axes.plot(steps, middle, style, label=name_of(row), color=colour)
    for seed in seeds if len(seeds) > 1 else ():
        axes.plot(steps, seed, linewidth=0.5, alpha=0.5, color=colour)


def navigation_paths(paths: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], path: Path) -> None:
    """Figure F: the way of one rollout before and after updates, a row a method, a column a setting, the same task in a column.

    The task is the second one, or the only one.

    `paths`: by method and setting, what `runs.read_rollouts` gives.
    """
    count = len(next(iter(paths.values())))
    figure, panels = plt.subplots(
        len(paths),
        count,
        figsize=(3 * count, 3 * len(paths)),
        layout="constrained",
        squeeze=False,
        sharex="col",
        sharey="col",
    )
    shades = plt.get_cmap("viridis")
    for row, (method, settings) in zip(panels, paths.items(), strict=True):
        for axes, seen, letter in zip(row, settings.values(), settings, strict=True):
            task = min(1, len(seen["tasks"]) - 1)
            goal = seen["tasks"][task, :2]
            for updates, (way, alive) in enumerate(zip(seen["observations"][task], seen["alive"][task], strict=True)):
                way = way[: max(int(alive.sum()), 1)]
                axes.plot(
                    *way.T,
                    color=shades(updates / 4.5),
                    linewidth=1,
                    marker=".",
                    markersize=2,
                    label=f"{updates} updates",
                )
            axes.plot(*seen["observations"][task, 0, 0], "s", color="black", markersize=5, label="start")
            axes.plot(*goal, "*", color="red", markersize=11, label="goal")
            axes.set_title(f"{TITLES.get(method, method.upper())} ({letter})")
            axes.set_aspect("equal", adjustable="box")
    panels[0][0].legend(frameon=False, fontsize=7)
    _save(figure, path)
