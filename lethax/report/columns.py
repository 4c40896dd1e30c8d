"""Scores of runs on several test columns, as for Meta-Dataset: a row for each column, the mean over them, and the average rank."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from lethax.report.scores import interval, number, short_names
from lethax.text import counted, showable, shown, sized


def title(results: Sequence[Any]) -> str:
    """ "accuracy on 600 test episodes of each data set: any-way any-shot, 10 inner steps, norm support, seed 0; …"."""
    first = results[0].record
    shape = f"{sized(first['way'], 'way')} {sized(first['shot'], 'shot')}"
    steps, episodes = counted(first["inner_steps"], "inner step"), counted(first["n"], f"{first['split']} episode")
    return (
        f"{first['score']} on {episodes} of each data set: {shape}, {steps}, norm "
        f"{first['norm']}, seed {first['seed']}; ± is 1.96 s/√n"
    )


def table(folders: Sequence[Path], results: Sequence[Any], encoding: str) -> Table:
    """A row for each column and one for their mean, with a score of each run; `folders` has the run of each result."""
    runs = list(dict.fromkeys(folders))
    found: dict[str, dict[Path, Any]] = {}
    for folder, result in zip(folders, results, strict=True):
        found.setdefault(result.record["data"], {})[folder] = result
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    made.add_column("data", overflow="fold")
    for name in short_names(runs):
        made.add_column(Text(name), overflow="fold")
    for data, of in found.items():
        cells = [interval(of[r].score.mean, of[r].score.ci95, of[r].score.n) if r in of else "" for r in runs]
        made.add_row(Text(shown(data, 60)), *(Text(showable(cell, encoding)) for cell in cells))
    means = [number(float(np.mean([of[run].score.mean for of in found.values() if run in of]))) for run in runs]
    made.add_row("mean", *map(Text, means))
    return made


def ranks(scores: Mapping[str, Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """The average rank of each method over the columns that all have, {method: {column: (mean, ci95)}}; 1 is the best.

    Methods whose intervals overlap the best one's of those left share the mean of their ranks, as in the benchmark.
    """
    common = set.intersection(*(set(columns) for columns in scores.values())) if scores else set()
    found: dict[str, list[float]] = {method: [] for method in scores}
    for column in sorted(common):
        left = sorted(scores, key=lambda method: -scores[method][column][0])
        place = 1
        while left:
            mean, half = scores[left[0]][column]
            tied = [m for m in left if scores[m][column][0] + scores[m][column][1] >= mean - half]
            for method in tied:
                found[method].append(place + (len(tied) - 1) / 2)
            place += len(tied)
            left = [method for method in left if method not in tied]
    return {method: float(np.mean(places)) for method, places in found.items() if places}
