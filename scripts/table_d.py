"""Sinusoid regression, MAML and MAML+L2F: trains and evaluates every cell, writes docs/results/table-d.json and .md.

    python scripts/table_d.py --out runs/table-d [--steps 50000] [--seeds 5] [--shots 5 10 20]

Protocol 100 × 100 × 100: 100 curves of 100 points, 100 times; the interval is the mean of the repeats' 1.96 s/√100.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from lethax import assemble, runs, training
from lethax.evaluate import paired
from lethax.recipe import Recipe

METHODS = ("maml", "l2f")
EPISODES = 10_000
ROOT = Path(__file__).parent.parent


def cell(out: Path, data: str, shot: int, method: str, seeds: int, steps: int) -> tuple[dict[str, Any], np.ndarray]:
    """One cell over all seeds, and every episode's squared error, seed after seed."""
    means, intervals, per_episode, seconds = [], [], [], 0.0
    for seed in range(seeds):
        folder = out / f"{data}-{shot}shot-{method}-seed{seed}"
        recipe = Recipe(data=data, shot=shot, method=method, seed=seed, steps=steps, epoch=2_500)
        run = runs.open_run(folder) if (folder / "recipe.toml").exists() else runs.create(recipe, folder)
        begun = time.monotonic()
        for _ in training.train(run):
            pass
        seconds += time.monotonic() - begun
        result = runs.evaluate_run(run, episodes=EPISODES, ensemble=1, steps=5, seed=0)
        means.append(result.record["mean_100"])
        intervals.append(result.record["ci95_100"])
        per_episode.append(result.score.per_task)
        print(f"{folder.name}: {means[-1]:.4f} ± {intervals[-1]:.4f}", flush=True)
    record = {
        "method": "maml+l2f" if method == "l2f" else method, "data": data, "net": "mlp 40-40", "way": 1, "shot": shot,
        "published": None, "published_interval": None, "ours": float(np.mean(means)), "interval": float(np.mean(intervals)),
        "by_seed": means, "median_by_seed": float(np.median(means)), "std_over_seeds": float(np.std(means)),
        "episodes": EPISODES, "seeds": seeds, "outer_steps": steps, "full_outer_steps": 50_000, "inner_steps": 1,
        "device": f"cpu-{os.cpu_count()}", "seconds_with_compiling": round(seconds, 1),
    }  # fmt: skip
    return record, np.concatenate(per_episode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/table-d"))
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10, 20])
    args = parser.parse_args()
    assemble.use_all_cores()
    shots = " ".join(map(str, args.shots))
    command = f"python scripts/table_d.py --steps {args.steps} --seeds {args.seeds} --shots {shots}"
    cells = []
    for data in ("sinusoid", "sinusoid_shift"):
        for shot in args.shots:
            both = {m: cell(args.out, data, shot, m, args.seeds, args.steps) for m in METHODS}
            gap = paired(both["l2f"][1], both["maml"][1])
            both["l2f"][0]["minus_maml"] = {"mean": gap.mean, "ci95": gap.ci95, "n": gap.n}
            cells += [both[m][0] | {"command": command} for m in METHODS]
            _write(cells)


def _write(cells: list[dict[str, Any]]) -> None:
    folder = ROOT / "docs" / "results"
    (folder / "table-d.json").write_text(json.dumps({"table": "D", "cells": cells}, indent=1) + "\n")
    lines = [
        "# Table D: sinusoid regression, mean squared error, one inner step\n",
        "± is the mean over 100 repeats of 1.96 s/√100 over curves; the paired difference is over all episodes of all seeds.\n",
        f"`{cells[0]['command']}`\n",
        "| ranges | shot | method | ours | by seed | minus MAML, paired | outer steps | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        gap = c.get("minus_maml")
        change = f"{gap['mean']:+.4f} ± {gap['ci95']:.4f}" if gap else ""
        seeds = ", ".join(f"{m:.3f}" for m in c["by_seed"])
        lines.append(
            f"| {c['data']} | {c['shot']} | {c['method']} | {c['ours']:.3f} ± {c['interval']:.3f} | {seeds} | {change} "
            f"| {c['outer_steps']} | {c['seeds']} |"
        )
    (folder / "table-d.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
