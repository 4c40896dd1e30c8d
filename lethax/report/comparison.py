"""The table of `lethax compare`: scores with both intervals, paired differences to a reference, and what follows from them."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lethax.evaluation import over_seeds, score
from lethax.files import to_json, write_all
from lethax.methods import method_of
from lethax.recipe import Resolved
from lethax.report.scores import number, setting_of, title_of
from lethax.report.tables import legend
from lethax.runs.folder import timing
from lethax.text import counted, plural, sized

STEM = "comparison"  # of the files


class Compared(NamedTuple):
    """What is compared under one name. scores [seeds, episodes]: a baseline, which is not trained, has a single row.

    about: what the table says of how it was trained. failed: the seeds that have no score, and why; then there are no scores.
    """

    name: str
    scores: np.ndarray
    about: Mapping[str, Any]
    failed: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether training runs stand behind the scores, and not a baseline."""
        return bool(self.about)


def scores_of(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The scores [seeds, episodes] of evaluations. What was not finite is null in a file."""
    return np.array([[np.nan if x is None else x for x in record["per_episode"]] for record in records], np.float64)


def baselines(records: Sequence[Mapping[str, Any]]) -> list[Compared]:
    """The baselines that the evaluations of the reference's runs have of the episodes.

    Those that depend on no run stand in the first record alone.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for found in record.get("baselines", {}).values():
            by_name.setdefault(title_of(found), []).append(found)
    plain = records[0].get("nearest_prototype") if records else None
    if plain and f"nearest prototype on {records[0]['data']}" not in by_name:
        by_name = {"nearest prototype": [plain], **by_name}
    return [Compared(name, scores_of(found), {}) for name, found in by_name.items()]


def remarks(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings of baselines, and what the weights behind features have seen of the test classes."""
    beside = [found for record in records for found in record.get("baselines", {}).values()]
    settings = [f"{how}." for found in beside if (how := setting_of(found))]
    return list(dict.fromkeys([*settings, *(part["caution"] for part in (*records, *beside) if "caution" in part)]))


def about(recipe: Resolved, folders: Sequence[Path]) -> dict[str, Any]:
    """How the runs of a method were trained: batch-norm mode, order, budget and time."""
    order, first = recipe.inner.order, recipe.inner.first_order_steps
    known = {*recipe.used, *method_of(recipe).fixed}
    return {
        "norm": recipe.net.norm if "net.norm" in recipe.used else None,
        "order": (f"1, from step {first:,} on 2" if order == 2 and first else str(order)) if "inner.order" in known else None,
        "inner_steps": recipe.inner.steps,
        "outer_steps": recipe.outer.steps,
        "full_outer_steps": recipe.outer.full_steps,
        "batch": recipe.outer.batch,
        "seconds_a_step": _pace(folders),
    }  # fmt: skip


def _pace(folders: Sequence[Path]) -> float | None:
    """Seconds of an outer step with its share of validations, without the first state of a run if there are others: it compiled."""
    seconds, steps = 0.0, 0
    for folder in folders:
        lines = timing(folder)
        later = lines[1:] or lines
        if lines:
            seconds += sum(line["seconds"] for line in later)
            steps += lines[-1]["step"] - (lines[0]["step"] if lines[1:] else 0)
    return seconds / steps if steps else None


def rows(entries: Sequence[Compared], reference: str) -> list[dict[str, Any]]:
    """The rows of the table. "over_seeds" is None of one run; a difference is taken seed by seed and episode by episode."""
    base = next(entry for entry in entries if entry.name == reference)
    made = []
    for entry in entries:
        row: dict[str, Any] = {"name": entry.name, "trained": entry.trained, **entry.about}
        if entry.failed:
            made.append({**row, "failed": list(entry.failed)})
            continue
        row |= _summary(entry.scores)
        if entry is not base and not base.failed:
            row["paired"] = {"minus": reference, **_summary(entry.scores - base.scores)}
        made.append(row)
    return made


def _summary(scores: np.ndarray) -> dict[str, Any]:
    """Mean of scores [seeds, episodes], with its interval over seeds and that over episodes, of means over the seeds."""
    by_seed = scores.mean(axis=1)
    over = score(scores.mean(axis=0))
    return {
        "mean": over.mean, "over_seeds": over_seeds(by_seed.tolist()), "over_episodes": over.ci95, "by_seed": by_seed.tolist()
    }  # fmt: skip


def conclusions(record: Mapping[str, Any]) -> list[str]:
    """What can be concluded, and what cannot. A method is called better only where the wider interval excludes 0."""
    compared = [row for row in record["rows"] if "paired" in row]
    said = [f"{row['name']} has no score: {' '.join(row['failed'])}" for row in record["rows"] if row.get("failed")]
    reference, seeds = record["reference"], record["seeds"]
    if len(seeds) == 1:
        said.append(
            "Nothing can be concluded about the methods from one seed: another training run of the same method may score "
            "differently by more than its interval over episodes. What follows is about these runs alone."
        )
    shown, open_ = [], []
    for row in compared:
        kind, half = _wider(row["paired"])
        if not np.isfinite(row["paired"]["mean"]):
            open_.append(row["name"])
        elif abs(row["paired"]["mean"]) > half:
            better = (row["paired"]["mean"] > 0) == record["higher_is_better"]
            gap = f"{number(row['paired']['mean'], '+')} ± {number(half)} over {kind}"
            shown.append(f"{row['name']} is {'better' if better else 'worse'} than {reference} ({gap})")
        else:
            open_.append(row["name"])
    if shown:
        which = "wider of the two intervals" if len(seeds) > 1 else "interval over episodes"
        said.append(f"The {which} excludes 0: {'; '.join(shown)}.")
    if open_:
        said.append(f"No difference to {reference} is shown for {', '.join(open_)}.")
    if len(compared) > 1:
        said.append(
            f"Each interval holds 95 times in 100 by itself. Of {counted(len(compared), 'difference')} that are looked at, one "
            "may well exclude 0 by chance."
        )
    trained = [row for row in record["rows"] if row["trained"]]
    steps = {row["name"]: row["inner_steps"] for row in trained}
    if others := [f"{name} {count}" for name, count in steps.items() if count != steps[reference]]:
        said.append(
            f"The inner loops are of different lengths ({reference} {steps[reference]}, {', '.join(others)} inner steps), as they "
            "were published: --inner-steps gives all methods the same."
        )
    if short := [row for row in trained if row["outer_steps"] < row["full_outer_steps"]]:
        row = short[0]
        share = 100 * row["outer_steps"] / row["full_outer_steps"]
        said.append(
            f"{counted(row['outer_steps'], 'outer step')} are {share:.2g} % of the published {row['full_outer_steps']:,}: this "
            "says what gets further in this budget, and nothing about the full one or about published numbers."
        )
    return said


def _wider(summary: Mapping[str, Any]) -> tuple[str, float]:
    kinds = [("episodes", summary["over_episodes"])]
    if summary["over_seeds"] is not None:
        kinds.append(("seeds", summary["over_seeds"]))
    return max(kinds, key=lambda kind: kind[1])


def _half(value: float | None) -> str:
    return "" if value is None else number(value) if np.isfinite(value) else "unbounded"


def _of(summary: Mapping[str, Any] | None, sign: str = "") -> list[str]:
    """The mean and both half-widths as text."""
    if not summary or "mean" not in summary:
        return ["", "", ""]
    if not np.isfinite(summary["mean"]):
        return ["unbounded", "", ""]
    return [number(summary["mean"], sign), _half(summary["over_seeds"]), _half(summary["over_episodes"])]


def score_lines(record: Mapping[str, Any]) -> list[list[str]]:
    """The table of scores and differences, with its header."""
    header = [
        "method",
        record["score"],
        "± seeds",
        "± episodes",
        f"less {record['reference']}",
        "± seeds",
        "± episodes",
    ]
    lines = [
        [row["name"], *(["failed", "", ""] if row.get("failed") else _of(row)), *_of(row.get("paired"), "+")]
        for row in record["rows"]
    ]
    kept = [
        i for i, _ in enumerate(header) if i < 2 or any(line[i] for line in lines)
    ]  # one seed has no interval over seeds
    return [[line[i] for i in kept] for line in (header, *lines)]


def about_lines(record: Mapping[str, Any]) -> list[list[str]]:
    """The table of how the methods were trained, with its header."""
    header = ["method", "batch norm", "order", "inner steps", "outer steps", "batch", "s a step"]
    lines = []
    for row in (row for row in record["rows"] if row["trained"]):
        pace = row["seconds_a_step"]
        plain = [
            row["norm"] or "none",
            row["order"] or "its own",
            *(f"{row[k]:,}" for k in ("inner_steps", "outer_steps", "batch")),
        ]
        lines.append([row["name"], *plain, "" if pace is None else f"{pace:.3g}"])
    return [header, *lines]


def title(record: Mapping[str, Any]) -> str:
    """ "accuracy on 600 test episodes of cifar_fs: 5-way 1-shot, seeds 0, 1, 2; hash of the episodes 0123456789abcdef"."""
    task = " ".join(sized(record[of], of) for of in ("way", "shot") if record[of] is not None)
    seeds = f"{plural(len(record['seeds']), 'seed')} {', '.join(map(str, record['seeds']))}"
    count = counted(record["episodes"], "test episode")
    return f"{record['score']} on {count} of {record['data']}: {task}, {seeds}; hash of the episodes {record['episodes_hash']}"


def _meaning(record: Mapping[str, Any]) -> list[str]:
    seeds = len(record["seeds"])
    said = ["**± episodes** is 1.96 s/√n over the test episodes, each one's score a mean over the seeds."]
    if seeds > 1:
        said.append(
            f"**± seeds** is the interval over {seeds} training runs, Student's t: t(0.975, {seeds - 1}) s/√{seeds}, with the "
            "sample deviation s of the runs' means."
        )
    return [
        *said,
        f"**less {record['reference']}** is the mean difference to {record['reference']}, taken between runs of the same seed on "
        "the same episodes. A baseline without training has intervals over the seeds of the reference alone.",
        "**s a step** are the seconds of an outer step with its share of the validations, on this machine.",
        *record["notes"],
    ]


def _markdown(record: Mapping[str, Any]) -> str:
    def table(lines: list[list[str]]) -> str:
        drawn = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([drawn[0], "|" + "---|" * len(lines[0]), *drawn[1:]]) + "\n"

    parts = [
        f"# {title(record)}\n", f"`{record['command']}`\n", table(score_lines(record)), table(about_lines(record)),
        "## What follows\n", legend(*record["conclusions"]), "## What the columns are\n", legend(*_meaning(record)),
    ]  # fmt: skip
    return "\n".join(parts)


_FLAT = ("name", "trained", "mean", "over_seeds", "over_episodes")
_ABOUT = ("norm", "order", "inner_steps", "outer_steps", "full_outer_steps", "batch", "seconds_a_step")


def _csv(record: Mapping[str, Any]) -> str:
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    differences = ("mean", "over_seeds", "over_episodes")
    less = (f"less_{record['reference']}_{name}" for name in differences)
    writer.writerow([*_FLAT, *less, *_ABOUT, "failed", "episodes_hash"])
    for row in record["rows"]:
        gap = row.get("paired", {})
        cells = [*(row.get(k) for k in _FLAT), *(gap.get(k) for k in differences), *(row.get(k) for k in _ABOUT)]
        cells += [" ".join(row.get("failed", ())), record["episodes_hash"]]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return sheet.getvalue()


def write(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write comparison.md, comparison.csv and comparison.json."""
    contents = {"md": _markdown(record), "csv": _csv(record), "json": to_json(dict(record)) + "\n"}
    return write_all(folder, STEM, contents)
