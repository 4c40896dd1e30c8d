"""Tables as JSON, Markdown and CSV, of the rows that `table_rows.py` makes."""

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lethax.files import to_json, write_all
from lethax.report.table_rows import in_repeats, name_of
from lethax.text import counted, plural

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
        "hours of training with its validations.",
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
