"""Figures from the records of runs; the only place where matplotlib draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"maml": "#4c72b0", "l2f": "#dd8452"}
TITLES = {"maml": "MAML", "l2f": "MAML+L2F"}


def adaptation_curves(records: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Score against inner steps, one line a method, its 95 % interval as a band."""
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
        title=f"{first['data']}, {first['n']} test episodes",
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def sinusoid_fits(fits: Mapping[str, dict[str, Any]], path: Path) -> None:
    """One curve before and after adaptation, a panel a method."""
    figure, panels = plt.subplots(
        1, len(fits), figsize=(4.5 * len(fits), 3.5), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (method, fit) in zip(panels[0], fits.items(), strict=True):
        x = fit["query"].x[:, 0]
        axes.plot(x, fit["query"].y[:, 0], color="black", label="task")
        for steps, style in ((0, ":"), (1, "--"), (5, "-")):
            label = f"after {steps} step{'' if steps == 1 else 's'}"
            axes.plot(x, fit["path"][steps], linestyle=style, color=COLOURS.get(method), label=label)
        axes.scatter(fit["support"].x[:, 0], fit["support"].y[:, 0], color="black", zorder=3, label="support")
        axes.set(title=TITLES.get(method, method), xlabel="x")
        axes.legend(frameon=False, fontsize=8)
    panels[0][0].set_ylabel("y")
    figure.savefig(path, dpi=120)
    plt.close(figure)
