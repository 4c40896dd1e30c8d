"""Scores of runs on several test columns, as for Meta-Dataset: a row for each column, the mean over them, and the average rank."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from lethax.data.known import FURTHER, METADATASET, remedy
from lethax.evaluation import paired, score
from lethax.files import read_json
from lethax.names import METADATASET as NAME
from lethax.recipe import Resolved
from lethax.report import table_rows, tables
from lethax.report.cells import Cell
from lethax.report.scores import interval, meaning, number, short_names
from lethax.text import counted, plural, showable, shown, sized


def title(results: Sequence[Any]) -> str:
    """ "accuracy on 600 test episodes of each data set: any-way any-shot, 10 inner steps, norm support, seed 0; …"."""
    first = results[0].record
    shape = f"{sized(first['way'], 'way')} {sized(first['shot'], 'shot')}"
    episodes = counted(first["n"], f"{first['split']} episode")
    steps = " or ".join(dict.fromkeys(counted(r.record["inner_steps"], "inner step") for r in results))
    norms = " or ".join(dict.fromkeys(shown(r.record["norm"], 60) for r in results))
    said = f"{first['score']} on {episodes} of each data set: {shape}, {steps}, norm {norms}, seed {first['seed']}"
    return said + meaning(first["n"])


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


def entry(
    cell: Cell, recipe: Resolved, folders: Sequence[Path], files: Mapping[str, str], command: str
) -> dict[str, Any]:
    """The row of a cell from its evaluated runs, one for each seed; `files` has the evaluation of every column.

    An interval is over test episodes, each one's score a mean over seeds: 1.96 s/√n.
    """
    found = {}
    for data, file in files.items():
        records = [read_json(folder / "evaluations" / file) for folder in folders]
        scores = 100.0 * np.array([record["per_episode"] for record in records], np.float64)
        result = score(scores.mean(axis=0))
        found[data.removeprefix(f"{NAME}-")] = {
            "mean": result.mean, "ci95": result.ci95, "episodes": result.n, "by_seed": scores.mean(axis=1).tolist(),
            "episodes_hash": records[0]["episodes_hash"], "_scores": result.per_task,
        }  # fmt: skip
    inputs = read_json(folders[0] / "inputs.json")
    return {
        **table_rows.common_entry(cell, recipe, folders, command),
        "head": recipe.inner.head, "order": recipe.inner.order, "norm": recipe.net.norm, "net": recipe.net.kind,
        "filters": recipe.net.filters, "image": inputs["example"][0], "inner_steps": recipe.inner.steps,
        "trained_on": list(dict.fromkeys(name.partition("/")[0] for name in inputs["classes"])),
        "published": cell.published and cell.published.by_column, "source": cell.published and cell.published.source,
        "columns": found, "mean": float(np.mean([of["mean"] for of in found.values()])),
        "learning_curve": [table_rows.learning_curve(folder) for folder in folders],
    }  # fmt: skip


def compare(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the average rank of every row, and in each column its difference to the first row, on the same episodes."""
    ranked = ranks({row["cell"]: {c: (of["mean"], of["ci95"]) for c, of in row["columns"].items()} for row in rows})
    made = []
    for row in rows:
        columns = {}
        for name, of in row["columns"].items():
            first, gap = rows[0]["columns"].get(name), {}
            if row is not rows[0] and first and first["episodes_hash"] == of["episodes_hash"]:
                found = paired(of["_scores"], first["_scores"])
                gap = {"paired": {"minus": rows[0]["cell"], "mean": found.mean, "ci95": found.ci95}}
            columns[name] = {key: value for key, value in of.items() if key != "_scores"} | gap
        made.append({**row, "columns": columns, "rank": ranked.get(row["cell"])})
    return made


def markdown(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write the table: a row for each column, and of every cell our score beside the published one."""
    title = f"# {name.replace('_', ' ').title()}: Meta-Dataset, accuracy in %\n"
    if not rows:
        return title
    heads = [name for row in rows for name in (f"{row['method']}, {row['head']}", "published")]
    lines = ["| column | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    for column in (*METADATASET, *FURTHER):
        cells = []
        for row in rows:
            ours, known = row["columns"].get(column), (row["published"] or {}).get(column)
            cells.append(f"{ours['mean']:.2f} ± {ours['ci95']:.2f}" if ours else "not prepared")
            cells.append(f"{known[0]:.2f} ± {known[1]:.2f}" if known else "")
        lines.append(f"| {column} | " + " | ".join(cells) + " |")
    means = [cell for row in rows for cell in (f"{row['mean']:.2f}", "")]
    ranked = [cell for row in rows for cell in ("" if row["rank"] is None else f"{row['rank']:.2f}", "")]
    lines += ["| mean of those here | " + " | ".join(means) + " |", "| average rank | " + " | ".join(ranked) + " |"]
    return "\n".join([title, _legend(rows), f"`{rows[0]['command']}`\n", *lines, "", _missing(rows)]).rstrip() + "\n"


def _legend(rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0]
    counts = dict.fromkeys(of["episodes"] for row in rows for of in row["columns"].values())
    steps = (
        f"{first['outer_steps']:,} of {first['full_outer_steps']:,} outer {plural(first['full_outer_steps'], 'step')}"
    )
    return tables.legend(
        f"**ours** stands under the method and its head start: means over {' or '.join(map(str, counts))} test episodes of a "
        "column, ± 1.96 s/√n over the episodes.",
        f"The setting is our own: {first['net']} of {first['filters']} filters, pictures of {first['image']} pixels, "
        f"{counted(first['inner_steps'], 'inner step')} of order {first['order']}, norm {first['norm']}, trained on "
        f"{', '.join(first['trained_on'])} for {steps}.",
        "**published** is what was printed, of another setting, in part an unknown one; `source` in the JSON says which. It is no "
        "target of ours, and ours is no reproduction.",
        "**average rank** is over the columns that all methods here have. Methods whose intervals overlap the best one's share a "
        "rank.",
        tables.seeds_caveat(rows),
    )


def _missing(rows: Sequence[dict[str, Any]]) -> str:
    """How each source that is not prepared is made."""
    absent = [name for name in METADATASET if not any(name in row["columns"] for row in rows)]
    return "\n".join(f"- {name} is not prepared. {remedy(f'{NAME}-{name}')}" for name in absent)
