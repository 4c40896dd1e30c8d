"""What the page shows of every run, read from its folder and from nothing else."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lethax.errors import RunError
from lethax.files import read_json, read_log
from lethax.recipe.record import TOP
from lethax.report.scores import short_names
from lethax.report.table_rows import progress
from lethax.runs.folder import EVALUATIONS, PROBES, Run, check_newest, metrics, open_run, read_environment
from lethax.text import shown


class At(NamedTuple):
    """A mean and the half-width of its 95 % interval."""

    mean: float
    ci95: float


class Gate(NamedTuple):
    """γ of one tensor in an evaluation: mean and deviation over the episodes."""

    name: str
    mean: float
    std: float


class Evaluated(NamedTuple):
    """An evaluation of a run. Scores are in the unit of the page: accuracies in per cent.

    curve: the score after 0, 1, … inner steps. per_episode: the score of every episode after `inner_steps`. baseline: that of the
    nearest prototype on the same episodes.
    """

    path: Path
    data: str
    split: str
    score: str
    seed: int
    checkpoints: int
    inner_steps: int
    n: int
    at: At
    median: float
    curve: list[At]
    per_episode: np.ndarray
    episodes_hash: str
    baseline: At | None
    gates: list[Gate]
    own: bool  # whether it is on the data that the run was trained on, with the values of its recipe
    caution: str  # what the weights behind the features have seen; "" if there are none


class Told(NamedTuple):
    """A run as the page tells of it. `number` is its place among the runs, which gives its colour.

    score: what it is judged by. factor: from a logged score to the unit of the page. steps, seconds: of training so far. damaged:
    what is wrong with the evaluations that cannot be read.
    """

    number: int
    name: str
    run: Run
    score: str
    factor: float
    values: dict[str, Any]
    environment: dict[str, Any]
    steps: int
    seconds: float
    gate_names: list[str]
    metrics: list[dict[str, Any]]
    evaluations: list[Evaluated]
    probes: list[dict[str, Any]]
    damaged: list[str]

    @property
    def finished(self) -> bool:
        """Whether training has reached its last outer step."""
        return self.steps >= self.run.recipe.outer.steps


def gather(folders: Sequence[Path]) -> list[Told]:
    """Read the runs. RunError for no run, a file of training that cannot be read, or a recipe that was changed."""
    folders = list({folder.resolve(): folder for folder in folders}.values())
    return [_told(i, name, open_run(f)) for i, (name, f) in enumerate(zip(short_names(folders), folders, strict=True))]


def _told(number: int, name: str, run: Run) -> Told:
    check_newest(run)
    learner = run.learner()
    score = learner.objective.score_name
    factor = factor_of(score)
    environment, (steps, seconds) = _environment(run.folder), progress(run.folder)
    if "model" in environment:  # one that came with lethax is trained, and has no log that says so
        steps = run.recipe.outer.steps
    evaluations, damaged = _evaluations(run)
    return Told(
        number, name, run, score, factor, {**{key: getattr(run.recipe, key) for key in TOP}, **run.recipe.values()},
        environment, steps, seconds, list(learner.gate_names()), metrics(run.folder),
        evaluations, read_log(run.folder / PROBES), damaged,
    )  # fmt: skip


def _evaluations(run: Run) -> tuple[list[Evaluated], list[str]]:
    """The evaluations of a run, and a sentence for each that is damaged: it must not hide the others."""
    found, damaged = [], []
    for path in sorted((run.folder / EVALUATIONS).glob("*.json")):
        try:
            found.append(evaluated(path, run))
        except RunError as error:
            damaged.append(str(error))
    return found, damaged


def factor_of(score: str) -> float:
    """From a logged score to the unit of the page, in which accuracies are in per cent."""
    return 100.0 if score == "accuracy" else 1.0


def unit_of(score: str) -> str:
    """A score with its unit, as it stands at an axis."""
    return {"accuracy": "accuracy, %", "mse": "mean squared error"}.get(score, score)


def evaluated(path: Path, run: Run) -> Evaluated:
    """Read the record of an evaluation. RunError if it is none."""
    record = read_json(path)
    try:
        factor = factor_of(record["score"])
        of = lambda entry: At(factor * number(entry["mean"]), factor * number(entry["ci95"]))  # noqa: E731
        baseline, own = record.get("nearest_prototype"), record["data"] == run.recipe.data
        changed = dict(record.get("changed", {}))
        if len(record["per_episode"]) != record["n"] or not 0 <= record["inner_steps"] < len(record["by_inner_steps"]):
            raise ValueError("its scores are not those of its episodes and inner steps")
        if own and run.inputs is not None:
            own = record.get("trained_on") in (record.get("data_sha256"), None)
        data = ", ".join([str(record["data"]), *(f"{name} {value}" for name, value in changed.items())])
        return Evaluated(
            path, data, str(record["split"]), str(record["score"]), int(record["seed"]),
            len(record["checkpoints"]), int(record["inner_steps"]), int(record["n"]), of(record), factor * number(record["median"]),
            [of(entry) for entry in record["by_inner_steps"]],
            factor * np.array([number(value) for value in record["per_episode"]]), str(record["episodes_hash"]),
            of(baseline) if baseline else None,
            [Gate(str(g["name"]), number(g["mean"]), number(g["std"])) for g in record.get("gates", [])], own and not changed,
            str(record.get("caution", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # int() of Infinity
        raise RunError(
            f"{shown(path)} is no record of an evaluation of this version: delete it, or evaluate the run again."
        ) from None


def number(value: Any) -> float:
    """A number of a JSON file, in which null stands for one that is not finite. ValueError if it is something else."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    try:
        return float(value)
    except OverflowError:  # JSON's integers have no bound
        return float("inf")


def _environment(folder: Path) -> dict[str, Any]:
    try:
        return read_environment(folder)
    except RunError:  # damaged: the page only tells of it
        return {}


def now() -> str:
    """The time at which a page is made."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
