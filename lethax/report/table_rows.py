"""Rows of tables. They are made from run folders and from nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lethax.evaluation import by_repeats, score
from lethax.files import read_json
from lethax.methods import METHODS, method_of
from lethax.recipe import Resolved
from lethax.report.cells import Cell
from lethax.runs.folder import VALIDATION, metrics, read_environment, timing

_SAME = ("data", "net", "batch", "shot", "inner_steps")  # rows of one method that agree in these are variants of it


def entry(cell: Cell, recipe: Resolved, folders: Sequence[Path], evaluation: str, command: str) -> dict[str, Any]:
    """Make the row of a cell from its evaluated runs, one for each seed, of the resolved `recipe`.

    The interval is over test episodes, each one's score a mean over seeds: 1.96 s/√n. Sinusoids: the mean over seeds of the
    protocol's own, over 100 curves.
    """
    with np.errstate(invalid="ignore"):  # an inner loop that diverged on a task has an error without bound
        return _entry(
            cell, recipe, [read_json(folder / "evaluations" / evaluation) for folder in folders], folders, command
        )


def _entry(
    cell: Cell, recipe: Resolved, records: list[dict[str, Any]], folders: Sequence[Path], command: str
) -> dict[str, Any]:
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
        "median_seed": factor * float(np.median(means)), "std_over_seeds": _deviation(factor * np.array(means)),
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


def _deviation(values: np.ndarray) -> float | None:
    """The sample deviation; one value has none."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


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
    lines = timing(folder)
    return (lines[-1]["step"] if lines else 0), sum(line["seconds"] for line in lines)


def learning_curve(folder: Path) -> list[dict[str, Any]]:
    """The results of all validations of a run."""
    return [{key: line.get(key) for key in ("step", *VALIDATION)} for line in metrics(folder) if "val_score" in line]


def _skipped(folder: Path) -> int:
    return sum(line.get("skipped", 0) for line in metrics(folder))


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
