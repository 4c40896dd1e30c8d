"""Charts of how runs learned and of what they score: learning curves, evaluations, paired differences."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lethax.evaluation import paired
from lethax.methods.registry import method_of
from lethax.report.page.charts import Chart, Dot, Line, dots, lines
from lethax.report.page.gather import Evaluated, Told, number, unit_of


class Group(NamedTuple):
    """Charts under a heading."""

    title: str
    charts: list[Chart]


def by_data(runs: Sequence[Told]) -> Iterator[tuple[str, list[Told]]]:
    """The runs of every data set; scores of different ones do not compare."""
    for data in dict.fromkeys(told.run.recipe.data for told in runs):
        yield data, [told for told in runs if told.run.recipe.data == data]


def learning(runs: Sequence[Told]) -> Iterator[Group]:
    """Learning curves: the score of validation, the training loss, and the score of training where it is not the loss."""
    for data, some in by_data(runs):
        unit = unit_of(some[0].score)
        validation = [
            Line(told.name, told.number, at, values, half)
            for told in some
            for at, values, half in [_logged(told, "val_score", "val_ci95", told.factor)]
            if at
        ]
        charts = []
        if validation:
            about = f"The {unit} in validation over outer steps, a curve for each run on {data}, with 95 % intervals over episodes."
            charts.append(lines(f"Validation, {unit}", about, validation, "outer step", unit, markers=_few(validation)))
        loss, score = ([line for told in some if (line := _trained(told, name))] for name in ("loss", "score"))
        if loss:
            about = f"The training loss over outer steps, a curve for each run on {data}."
            charts.append(lines("Training loss", about, loss, "outer step", "loss"))
        if score and [line.y for line in score] != [line.y for line in loss]:
            about = f"The {unit} of training tasks after adaptation over outer steps, a curve for each run on {data}."
            charts.append(lines(f"Training, {unit}", about, score, "outer step", unit))
        if charts:
            yield Group(data, charts)


def _few(found: Sequence[Line]) -> bool:
    return sum(len(line.y) for line in found) <= 120


def _trained(told: Told, name: str) -> Line | None:
    factor = told.factor if name == "score" else 1.0
    at, values, _ = _logged(told, name, None, factor)
    return Line(told.name, told.number, at, values) if at else None


def _logged(told: Told, name: str, half: str | None, factor: float) -> tuple[list[int], list[float], list[float]]:
    """Outer steps, values and half-widths of a name of metrics.jsonl, where it is logged."""
    found = [line for line in told.metrics if isinstance(line.get(name), int | float)]
    halves = [factor * number(line.get(half)) for line in found] if half else []
    return [line["step"] for line in found], [factor * number(line[name]) for line in found], halves


Judgement = tuple[Told, Evaluated]


def judgements(runs: Sequence[Told]) -> dict[tuple[str, str], list[Judgement]]:
    """All evaluations by data and split."""
    found: dict[tuple[str, str], list[Judgement]] = {}
    for told in runs:
        for one in told.evaluations:
            found.setdefault((one.data, one.split), []).append((told, one))
    return found


def name_of(told: Told, one: Evaluated, among: Sequence[Judgement]) -> str:
    """The run's name; where it has several evaluations here, with the file of this one."""
    several = sum(other is told for other, _ in among) > 1
    return f"{told.name} ({one.path.stem})" if several else told.name


def adaptation(runs: Sequence[Told]) -> Iterator[Group]:
    """Scores after 0, 1, … inner steps."""
    for (data, split), found in judgements(runs).items():
        unit = unit_of(found[0][1].score)
        curves = [
            Line(
                name_of(told, one, found), told.number, list(range(len(one.curve))), [at.mean for at in one.curve],
                [at.ci95 for at in one.curve], mark=one.inner_steps,
            )
            for told, one in found
        ]  # fmt: skip
        about = (
            f"The {unit} on {split} episodes of {data} after each number of inner steps, with 95 % intervals over the episodes. "
            "The large point is the number of inner steps that the run was trained for."
        )
        baselines = {(one.episodes_hash, one.baseline) for _, one in found if one.baseline}
        shapes = [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": b.mean,
                "y1": b.mean,
                "line": {"dash": "dot", "width": 1},
            }
            for _, b in sorted(baselines, key=lambda pair: pair[1].mean)
            if b
        ]
        if shapes:
            about += " The dotted level is the nearest prototype, which learns nothing."
        chart = lines(
            f"{unit[0].upper()}{unit[1:]} after inner steps",
            about,
            curves,
            "inner steps",
            unit,
            markers=True,
            shapes=shapes,
        )
        chart.layout["xaxis"]["dtick"] = max(max(len(line.y) for line in curves) // 10, 1)
        yield Group(f"{data}, {split}", [chart])


class Gap(NamedTuple):
    """A paired difference: the score of `name` less that of `base`, over n episodes that both have."""

    name: str
    base: str
    mean: float
    ci95: float
    n: int


def _is_base(told: Told) -> bool:
    """Whether a run has the method that others are compared with, as MAML."""
    return told.run.recipe.method == method_of(told.run.recipe).base


def differences(runs: Sequence[Told]) -> Iterator[tuple[Group, list[Gap]]]:
    """Paired differences to the first run of MAML, or else to the first run, of all evaluations that have the same episodes."""
    for (data, split), found in judgements(runs).items():
        hashes: dict[tuple[str, int], list[Judgement]] = {}
        for told, one in found:
            hashes.setdefault((one.episodes_hash, one.n), []).append((told, one))
        charts: list[Chart] = []
        gaps: list[Gap] = []
        for same in (same for same in hashes.values() if len(same) > 1):
            base, first = next((pair for pair in same if _is_base(pair[0])), same[0])
            others = [(told, one) for told, one in same if one is not first]
            unit, against = unit_of(first.score), name_of(base, first, found)
            shown: list[Dot] = []
            for told, one in others:
                with np.errstate(invalid="ignore"):
                    gap = paired(one.per_episode, first.per_episode)
                name = name_of(told, one, found)
                shown.append(Dot(name, told.number, gap.mean, gap.ci95))
                gaps.append(Gap(name, against, gap.mean, gap.ci95, gap.n))
            about = (
                f"The difference in {unit} to {against} on the same {first.n:,} {split} episodes of {data}, each with its 95 % "
                "interval over the episodes."
            )
            charts.append(dots(f"Less {against}", about, shown, f"difference in {unit}", zero=True))
        if charts:
            yield Group(f"{data}, {split}", charts), gaps


def gates(runs: Sequence[Told]) -> Iterator[Group]:
    """γ of every tensor: over the tensors in evaluations, and over training for every run that has gates."""
    for data, some in by_data(runs):
        charts = []
        judged = [(told, one) for told in some for one in told.evaluations if one.gates and one.own]
        if judged:
            curves = [
                Line(
                    name_of(told, one, judged), told.number, [gate.name for gate in one.gates],
                    [gate.mean for gate in one.gates], [gate.std for gate in one.gates],
                )
                for told, one in judged
            ]  # fmt: skip
            about = f"The mean γ of every tensor over the episodes of {data}, with a band of one deviation over the episodes."
            charts.append(lines("γ by tensor, in evaluation", about, curves, "tensor", "γ", markers=True))
            charts[-1].layout["xaxis"] |= {"type": "category", "tickangle": -40, "title": None}
        charts += [chart for told in some if (chart := _gates_over_training(told))]
        if charts:
            yield Group(data, charts)


def _are_gates(values: Any, count: int) -> bool:
    numbers = isinstance(values, list) and all(value is None or isinstance(value, int | float) for value in values)
    return numbers and len(values) == count


def _gates_over_training(told: Told) -> Chart | None:
    found = [
        (line["step"], line["gates"]) for line in told.metrics if _are_gates(line.get("gates"), len(told.gate_names))
    ]
    if not found:
        return None
    steps = [step for step, _ in found]
    curves = [
        Line(
            name, told.number, steps, [number(values[i]) for _, values in found], dash="solid",
            colour=ramp(i / max(len(told.gate_names) - 1, 1)),
        )
        for i, name in enumerate(told.gate_names)
    ]  # fmt: skip
    about = f"The mean γ of every tensor over outer steps in {told.name}, a curve for each tensor."
    return lines(f"γ over training, {told.name}", about, curves, "outer step", "γ", keys=20)


def ramp(share: float) -> str:
    """A colour between blue (0) and orange (1), for things that have an order."""
    ends = ((0x2B, 0x6C, 0xD4), (0x9A, 0x6B, 0xA8), (0xE0, 0x6C, 0x10))
    first, place = (0, 2 * share) if share < 0.5 else (1, 2 * share - 1)
    mixed = (round(a + (b - a) * place) for a, b in zip(ends[first], ends[first + 1], strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def evaluation_rows(runs: Sequence[Told]) -> list[list[Any]]:
    """A row for every evaluation: run, data, split, score, episodes, mean, half-width, median, inner steps, checkpoints, seed."""
    return [
        [
            told.name, one.data, one.split, unit_of(one.score), one.n, one.at.mean, one.at.ci95, one.median, one.inner_steps,
            one.checkpoints, one.seed,
        ]
        for told in runs
        for one in told.evaluations
    ]  # fmt: skip
