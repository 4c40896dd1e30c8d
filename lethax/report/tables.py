"""Tables as JSON, Markdown and CSV. They are made from run folders and from nothing else."""

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lethax.evaluation import by_repeats, score
from lethax.files import read_json, read_log, to_json, write_all
from lethax.methods import METHODS, method_of
from lethax.recipe import Resolved
from lethax.report.cells import Cell
from lethax.runs.folder import read_environment
from lethax.text import counted, plural


def entry(
    cell: Cell, recipe: Resolved, folders: Sequence[Path], evaluation: str, command: str
) -> dict[str, Any] | None:
    """Make the row of a cell from its runs, one for each seed, of the resolved `recipe`. None if a run is not evaluated yet.

    The interval is over test episodes, each one's score a mean over seeds: 1.96 s/√n. Sinusoids: the mean over seeds of the
    protocol's own, over 100 curves.
    """
    paths = [folder / "evaluations" / evaluation for folder in folders]
    if not paths or not all(path.is_file() for path in paths):
        return None
    with np.errstate(invalid="ignore"):  # an inner loop that diverged on a task has an error without bound
        return _entry(cell, recipe, folders, paths, command)


def _entry(cell: Cell, recipe: Resolved, folders: Sequence[Path], paths: list[Path], command: str) -> dict[str, Any]:
    records = [read_json(path) for path in paths]
    scores = np.array([_scores(record) for record in records])
    means = [float(np.mean(of_seed)) for of_seed in scores]
    factor = 100.0 if records[0]["score"] == "accuracy" else 1.0
    result = score(scores.mean(axis=0))
    interval = result.ci95
    if records[0]["score"] == "mse" and in_repeats(scores.shape[1]):
        interval = float(np.mean([by_repeats(of_seed, scores.shape[1] // 100)[1] for of_seed in scores]))
    return {
        **common_entry(cell, recipe, folders, command), "data": recipe.data,
        "net": recipe.net.kind, "way": recipe.episode.way, "shot": recipe.episode.shot, "batch": recipe.outer.batch,
        "inner_steps": recipe.inner.steps,
        "published": cell.published.value if cell.published else None,
        "published_interval": cell.published.interval if cell.published else None,
        "source": cell.published.source if cell.published else None,
        "score": records[0]["score"], "ours": factor * result.mean, "interval": factor * interval,
        "median_episode": factor * float(np.median(scores)), "by_seed": [factor * mean for mean in means],
        "median_seed": factor * float(np.median(means)), "std_over_seeds": factor * float(np.std(means)),
        "episodes": result.n, "checkpoints": len(records[0]["checkpoints"]), "episodes_hash": records[0]["episodes_hash"],
        "non_finite": recipe.outer.non_finite, "clip_norm": recipe.outer.clip_norm,
        "skipped_steps": sum(_skipped(folder) for folder in folders),
        # of the test episodes alone, which all seeds share
        "nearest_prototype": {
            name: factor * x for name, x in records[0].get("nearest_prototype", {}).items() if name != "per_episode"
        },
        "by_inner_steps": [r["by_inner_steps"] for r in records], "gates": [r["gates"] for r in records if "gates" in r],
        "learning_curve": [learning_curve(folder) for folder in folders], "_scores": factor * scores,
    }  # fmt: skip


def in_repeats(curves: int) -> bool:
    """Whether a number of test curves is judged in sets of 100, as in the published protocol of sinusoids."""
    return curves > 0 and curves % 100 == 0


def common_entry(cell: Cell, recipe: Resolved, folders: Sequence[Path], command: str) -> dict[str, Any]:
    """The part of every row that says how it was made."""
    return {
        "cell": cell.name, "method": method_of(recipe).full, "given": dict(cell.recipe.given), "seeds": len(folders),
        "outer_steps": recipe.outer.steps, "full_outer_steps": recipe.outer.full_steps,
        "device": read_environment(folders[0]).get("device", ""),
        "hours": round(sum(_seconds(folder) for folder in folders) / 3600, 4) or None, "command": command,
    }  # fmt: skip


def _scores(record: dict[str, Any]) -> list[float]:
    return [np.inf if value is None else value for value in record["per_episode"]]


def _seconds(folder: Path) -> float:
    return progress(folder)[1]


def progress(folder: Path) -> tuple[int, float]:
    """The outer step that a run's training has reached, and the seconds it took; (0, 0) before the first checkpoint."""
    lines = read_log(folder / "timing.jsonl")
    return (lines[-1]["step"] if lines else 0), sum(line["seconds"] for line in lines)


def learning_curve(
    folder: Path, wanted: Sequence[str] = ("step", "val_score", "val_ci95", "val_episodes")
) -> list[dict[str, Any]]:
    """The results of all validations of a run."""
    return [{key: line[key] for key in wanted} for line in read_log(folder / "metrics.jsonl") if "val_score" in line]


def _skipped(folder: Path) -> int:
    return sum(line.get("skipped", 0) for line in read_log(folder / "metrics.jsonl"))


def compare(entries: Mapping[str, tuple[Cell, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Sort the rows by setting, and add to each its paired difference to MAML (or LEO) there, on the same episodes."""
    order = {name: i for i, name in enumerate(METHODS)}
    bases = {cell.setting(): row for cell, row in entries.values() if cell.is_base}

    def place(entry: tuple[Cell, dict[str, Any]]) -> tuple[Any, ...]:
        setting, row = entry[0].setting(), entry[1]
        return setting.data, str(setting.net), setting.inner_steps, setting.shot, order[row["method"]]

    rows = []
    for cell, row in sorted(entries.values(), key=place):
        made = {key: value for key, value in row.items() if key != "_scores"}
        base = bases.get(cell.setting())
        if base and base is not row and base["episodes_hash"] == row["episodes_hash"] and base["seeds"] == row["seeds"]:
            with np.errstate(invalid="ignore"):
                gap = score((row["_scores"] - base["_scores"]).mean(axis=0))
            median = float(np.median(gap.per_task))
            made["paired"] = {"minus": base["method"], "mean": gap.mean, "ci95": gap.ci95, "median": median, "n": gap.n}
        rows.append(made)
    return tell_apart(rows, _SAME)


def tell_apart(rows: Sequence[dict[str, Any]], alike: Sequence[str]) -> list[dict[str, Any]]:
    """Add a `variant` to rows of one method that agree in all of `alike`: the given options in which they differ, such as
    "gate.bias_init 0.0"."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], *(row[key] for key in alike)), []).append(row)
    for group in groups.values():
        for row in group:
            own = {k: v for k, v in row["given"].items() if any(other["given"].get(k) != v for other in group)}
            if own:
                row["variant"] = ", ".join(f"{key} {value}" for key, value in own.items())
    return list(rows)


def name_of(row: Mapping[str, Any]) -> str:
    """The method of a row, with its variant if it has one."""
    return ", ".join([row["method"], *([row["variant"]] if "variant" in row else [])])


_TITLES = {
    "attenuator": "What the attenuator reads, on CIFAR-FS",
    "encoder_order": "The order in which MuMoMAML's encoder reads the points",
    "leo": "LEO",
    "leo_cifar_fs": "LEO on features of CIFAR-FS",
    "leo_pretrained": "LEO on features of a pretrained network, CIFAR-FS",
    "miniimagenet": "mini-ImageNet",
    "tieredimagenet": "tieredImageNet",
    "mixtures": "Mixtures of function families",
    "others_cifar_fs": "The other methods on CIFAR-FS",
    "others_sinusoid": "The other methods on sinusoids",
}
_SAME = ("data", "net", "batch", "shot", "inner_steps")  # rows of one method that agree in these are variants of it
_COLUMNS = (
    "data",
    "net",
    "shot",
    "inner steps",
    "method",
    "published",
    "before inner steps",
    "ours",
    "median",
    "paired difference",
    "nearest prototype",
    "budget",
    "hours",
)


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The columns of the table: the net only if rows look alike without it, the nearest prototype only if a row has one.

    The score before the first inner step is shown of errors alone: of classes a method can know no more than chance there.
    """
    alike = {(row["data"], row["shot"], row["inner_steps"], row["method"]) for row in rows}
    nets = {
        (row["data"], row["shot"], row["inner_steps"], row["method"], row.get("net"), row.get("batch")) for row in rows
    }
    needed = {
        "net": len(alike) < len(nets),
        "before inner steps": any(row["score"] != "accuracy" and "by_inner_steps" in row for row in rows),
        "nearest prototype": any(row.get("nearest_prototype") for row in rows),
    }
    return tuple(column for column in _COLUMNS if needed.get(column, True))


def _text(row: dict[str, Any], columns: Sequence[str]) -> dict[str, str]:
    digits = 2 if row["score"] == "accuracy" else 3
    number = lambda x, sign="": f"{x:{sign}.{digits}f}" if abs(x) < 1e4 else f"{x:{sign}.1e}"  # noqa: E731

    def pair(x: float, half: float, sign: str = "") -> str:
        if not np.isfinite(x):
            return "unbounded"  # an inner loop that diverged on a curve has an error without bound, whose mean has no interval
        return number(x, sign) + (f" ± {number(half)}" if row["episodes"] > 1 else "")

    known, gap, baseline = row["published"], row.get("paired"), row.get("nearest_prototype")
    interval = f" ± {row['published_interval']}" if row["published_interval"] is not None else ""
    share = row["outer_steps"] / row["full_outer_steps"]
    cells = {
        "data": row["data"], "net": f"{row.get('net')}, batch {row.get('batch')}",
        "shot": str(row["shot"]), "inner steps": str(row["inner_steps"]), "method": name_of(row),
        "before inner steps": _before(row, number),
        "published": "" if known is None else f"{known}{interval}",
        "ours": pair(row["ours"], row["interval"]), "median": number(row["median_episode"]),
        "paired difference": f"{pair(gap['mean'], gap['ci95'], '+')} to {gap['minus']}" if gap else "",
        "nearest prototype": pair(baseline["mean"], baseline["ci95"]) if baseline else "",
        "budget": f"{row['outer_steps']} {plural(row['outer_steps'], 'step')}" + (f" ({100 * share:.2g} %)" if share < 1 else "")
        + f", {counted(row['seeds'], 'seed')}",
        "hours": "" if row["hours"] is None else f"{row['hours']:.2g}",
    }  # fmt: skip
    return {column: cells[column] for column in columns}


def _before(row: dict[str, Any], number: Callable[[float], str]) -> str:
    """The mean over seeds of the score before the first inner step."""
    means = [curve[0]["mean"] for curve in row.get("by_inner_steps", ())]
    if not means or None in means:
        return "unbounded" if means else ""
    return number((100.0 if row["score"] == "accuracy" else 1.0) * float(np.mean(means)))


def markdown(table: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write the table as Markdown."""
    measure = "mean squared error" if rows and rows[0]["score"] != "accuracy" else "accuracy, %"
    columns = _columns(rows)
    lines = [
        f"# {_TITLES.get(table, table.replace('_', ' ').title())}: {measure}\n",
        _legend(rows),
        f"`{rows[0]['command']}`\n" if rows else "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    return "\n".join([*lines, *("| " + " | ".join(_text(row, columns).values()) + " |" for row in rows)]) + "\n"


def _legend(rows: Sequence[dict[str, Any]]) -> str:
    """Explain every column, and what its ± says and does not say."""
    counts = list(dict.fromkeys(row["episodes"] for row in rows)) or [0]
    interval = (
        "Its ± is a 95 % interval over the episodes, 1.96 s/√n, after each episode's score was averaged over the seeds."
    )
    if rows and all(row["score"] != "accuracy" and in_repeats(row["episodes"]) for row in rows):
        interval = (
            "Its ± is that of the published protocol: the test curves are taken in sets of 100, each set has an interval "
            "1.96 s/√100 over its curves, and ± is the mean of these intervals over the sets and the seeds. With 100 sets it is "
            "about ten times as wide as an interval over all curves."
        )
    return legend(
        f"**ours** is the mean over {' or '.join(map(str, counts))} test episodes and over the seeds. {interval}",
        *(
            [
                "**before inner steps** is the same mean before the first inner step, with what a method does ahead of it: L2F has "
                "attenuated its weights, MuMoMAML has modulated its network."
            ]
            if "before inner steps" in _columns(rows)
            else []
        ),
        "**median** is the median over the same episodes and seeds.",
        "**paired difference** is the mean difference to another method on the same episodes and seeds. Its ± is 1.96 s/√n over "
        "the episodes.",
        seeds_caveat(rows),
        "**published** is the number as it was printed. What stands there after ± is √(p(1 − p)) or an interval, as the `source` "
        "in the JSON says.",
        "**budget** is the number of outer steps, with its share of the published number where it is smaller. **hours** are "
        "hours of training.",
    )


def legend(*items: str) -> str:
    """Write a Markdown list, wrapped to be read as text, and an empty line."""
    return "\n".join(textwrap.fill(f"- {item}", 120, subsequent_indent="  ") for item in items) + "\n"


def seeds_caveat(rows: Sequence[dict[str, Any]]) -> str:
    """A sentence on what intervals over episodes or tasks leave out."""
    if all(row["seeds"] == 1 for row in rows):
        return (
            "Every number comes from one training run, and no interval here says anything about another run. This table cannot "
            "tell methods apart beyond these runs and their episodes."
        )
    return "No interval here contains the differences between training runs; `by_seed` in the JSON has the score of every seed."


def write(table: str, rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write TABLE.json, TABLE.md and TABLE.csv."""
    sheet = io.StringIO()
    columns = _columns(rows)
    writer = csv.DictWriter(sheet, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_text(row, columns) for row in rows)
    return write_files(table, rows, folder, {"md": markdown(table, rows), "csv": sheet.getvalue()})


def write_files(table: str, rows: Sequence[dict[str, Any]], folder: Path, others: Mapping[str, str]) -> list[Path]:
    """Write TABLE.json with the rows, and the other files, whose contents are given by their endings."""
    contents = {"json": to_json({"table": table, "cells": list(rows)}) + "\n", **others}
    return write_all(folder, table.replace("_", "-"), contents)
