"""Tables of returns in control after 0, 1, … updates. They are made from run folders and from nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lethax.domains.control import judged_rollouts
from lethax.evaluation import score
from lethax.files import read_json
from lethax.methods import METHODS
from lethax.recipe import Resolved
from lethax.report.cells import Cell
from lethax.report.table_rows import common_entry, learning_curve, name_of, tell_apart
from lethax.report.tables import legend, seeds_caveat
from lethax.runs.folder import metrics
from lethax.text import counted, plural


def entry(
    cell: Cell, recipe: Resolved, folders: Sequence[Path], evaluation: str, updates: int, command: str
) -> dict[str, Any]:
    """Make a row from the evaluated runs of a cell, one for each seed, in one setting.

    `updates`: the row is of 0 up to this many; an evaluation may have more. `by_updates`: after each number of updates, the mean
    over tasks and seeds and 1.96 s/√n over tasks, each one's return a mean over seeds.
    """
    records = [read_json(folder / "evaluations" / evaluation) for folder in folders]
    returns = np.array([[task[: updates + 1] for task in record["returns"]] for record in records])
    scores = [score(column) for column in returns.mean(axis=0).T]
    home = records[0]["data"] == recipe.data
    known = cell.published if home else None
    return {
        **common_entry(cell, recipe, folders, command), "data": records[0]["data"], "score": "return",
        "published_by_updates": list(known.by_updates) if known else None, "source": known.source if known else None,
        "by_updates": [
            {"updates": u, "mean": s.mean, "ci95": s.ci95, "by_seed": returns[:, :, u].mean(axis=1).tolist()}
            for u, s in enumerate(scores)
        ],
        "tasks": returns.shape[1], "rollouts": judged_rollouts(recipe),
        "horizon": recipe.control.horizon,
        "episodes_hash": records[0]["episodes_hash"],
        "inner_rate": recipe.inner.rate, "later_rate": recipe.control.later_rate, "cg_share": recipe.control.cg_share,
        "env_steps": [_env_steps(folder, recipe) for folder in folders], "gates": [r["gates"] for r in records if "gates" in r],
        "learning_curve": [learning_curve(folder) for folder in folders], "_returns": returns,
    }  # fmt: skip


def _env_steps(folder: Path, recipe: Resolved) -> int:
    """The number of environment steps that the training of a run took: a line has their mean over the steps since the line before.

    It has none where the meta-gradients of all these steps were not finite.
    """
    lines = metrics(folder)
    since = [0, *(line["step"] for line in lines[:-1])]
    each = [line.get("env_steps", 0) * (line["step"] - start) for line, start in zip(lines, since, strict=True)]
    return round(sum(each) * recipe.outer.batch)


def compare(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row its paired differences to MAML in the same setting, on the same tasks, after each number of updates."""
    made = []
    for row in rows:
        plain = {key: value for key, value in row.items() if key != "_returns"}
        same = ("data", "episodes_hash", "seeds", "rollouts", "outer_steps")
        other = METHODS[row["method"]].base
        base = next((r for r in rows if r["method"] == other and all(r[k] == row[k] for k in same)), None)
        if base and base is not row:
            gaps = [score(column) for column in (row["_returns"] - base["_returns"]).mean(axis=0).T]
            plain["paired"] = [{"minus": other, "mean": gap.mean, "ci95": gap.ci95, "n": gap.n} for gap in gaps]
        made.append(plain)
    return tell_apart(made, ("data",))


def markdown(table: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write the table as Markdown."""
    title = f"# {table.replace('_', ' ').title()}: return after updates\n"
    if not rows:  # no cell has all of its seeds yet
        return title
    updates = len(rows[0]["by_updates"])
    columns = ["tasks from", "method", *(f"{counted(u, 'update')}" for u in range(updates)), "budget", "hours"]
    lines = [
        title,
        legend(
            f"**n updates** is the return after n updates, averaged over {rows[0]['tasks']} test tasks and over the seeds. "
            "Its ± is a 95 % interval over the tasks, 1.96 s/√n, after each task's return was averaged over the seeds. The "
            "paired difference to MAML on the same tasks stands in brackets, with its interval over the tasks.",
            seeds_caveat(rows),
            "**budget** is the number of outer steps, with its share of the recipe's where it is smaller. **hours** are hours of "
            "training with its validations.",
        ),
        f"`{rows[0]['command']}`\n",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for row in rows:
        lines.append("| " + " | ".join(_texts(row)) + " |")
        if row["published_by_updates"]:
            known = [f"{value:.2f}" for value in row["published_by_updates"]]
            blank = [""] * (updates - len(known))
            lines.append(
                "| " + " | ".join([row["data"], f"*{row['method']}, published*", *known, *blank, "", ""]) + " |"
            )
    return "\n".join(lines) + "\n"


def _texts(row: Mapping[str, Any]) -> list[str]:
    gaps = row.get("paired") or [None] * len(row["by_updates"])
    pair = lambda at, sign="": f"{at['mean']:{sign}.2f}" + (f" ± {at['ci95']:.2f}" if row["tasks"] > 1 else "")  # noqa: E731
    returns = [
        pair(at) + (f" ({pair(gap, '+')})" if gap else "") for at, gap in zip(row["by_updates"], gaps, strict=True)
    ]
    share = row["outer_steps"] / row["full_outer_steps"]
    budget = f"{row['outer_steps']} {plural(row['outer_steps'], 'step')}" + (
        f" ({100 * share:.2g} %)" if share < 1 else ""
    )
    return [
        row["data"],
        name_of(row),
        *returns,
        f"{budget}, {counted(row['seeds'], 'seed')}",
        "" if row["hours"] is None else f"{row['hours']:.2g}",
    ]
