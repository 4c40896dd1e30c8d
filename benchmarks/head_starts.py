"""Accuracy with each head start and mode of batch norm, at other numbers of classes than in training.

    python benchmarks/head_starts.py RUN... [--episodes 150] [--out docs/results/head-starts.json]

RUN is a 5-way run on pictures. Every cell is the accuracy on the same fixed test episodes after the inner steps of training,
with its 95 % interval over episodes. A Markdown table is written beside the JSON file.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import get_args

from lethax.devices import use_all_cores
from lethax.files import to_json
from lethax.hardware import processor
from lethax.nets.heads import HeadStart
from lethax.runs.evaluation import evaluate_run
from lethax.runs.folder import open_run

WAYS = (2, 5, 10)
CELLS = [(start, "support") for start in get_args(HeadStart)] + [("trained", "batch"), ("prototypes", "batch")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("docs/results/head-starts.json"))
    args = parser.parse_args()
    use_all_cores()
    rows = []
    for folder in args.runs:
        run = open_run(folder, "Name those that you mean")
        for start, norm in CELLS:
            for way in WAYS:
                changed = {"way": way, "head": start, "norm": norm}
                steps = run.recipe.inner.steps
                record = evaluate_run(
                    run, episodes=args.episodes, ensemble=1, steps=steps, seed=0, changed=changed
                ).record
                wanted = (
                    "method",
                    "way",
                    "shot",
                    "norm",
                    "mean",
                    "ci95",
                    "n",
                    "inner_steps",
                    "checkpoints",
                    "episodes_hash",
                )
                rows.append({"head": start, **{name: record[name] for name in wanted}})
                print(f"{record['method']} {start} {norm} {way}-way: {shown(rows[-1])}", flush=True)
    made = {"command": shlex.join(["python", *sys.argv]), "processor": processor().model, "rows": rows}
    args.out.write_text(to_json(made) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(table(rows), encoding="utf-8")


def shown(row: dict[str, float]) -> str:
    """A mean and its interval, in per cent."""
    return f"{100 * row['mean']:.1f} ± {100 * row['ci95']:.1f}"


def table(rows: list[dict]) -> str:
    """A line for each method, head start and mode; a column for each number of classes."""
    lines = ["| method | `--head` | `--norm` | " + " | ".join(f"{way}-way" for way in WAYS) + " |"]
    lines.append("|---" * (3 + len(WAYS)) + "|")
    for first in rows[:: len(WAYS)]:
        same = [row for row in rows if all(row[name] == first[name] for name in ("method", "head", "norm"))]
        cells = [f"{first['method']}", f"`{first['head']}`", f"`{first['norm']}`", *map(shown, same)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
