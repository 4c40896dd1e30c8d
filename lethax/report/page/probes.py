"""Charts of what probes measured while runs trained: the loss landscape along inner steps, and the conflict of gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from lethax.errors import RunError
from lethax.report.page.charts import Chart, Line, lines
from lethax.report.page.curves import Group, by_data
from lethax.report.page.gather import Told
from lethax.runs.folder import PROBES
from lethax.text import shown

# Title, unit, and of a measurement the curve with the two ends of its band, if it has one.
_MEASURES = (
    ("Loss variation", "loss", ("loss", "loss_min", "loss_max"), "the loss along a step of changed size: its least and its most"),
    ("Change of the gradient", "‖Δg‖", ("difference_mean", "difference_min", "difference_max"),
     "how far the gradient moves along a step of changed size: least, mean and most"),
    ("Effective smoothness", "β", ("smoothness",), "the most that the gradient changes per distance, which is β"),
)  # fmt: skip


def probes(runs: Sequence[Told]) -> Iterator[Group]:
    """All charts of probes, for each data set."""
    for data, some in by_data(runs):
        charts = []
        for split in ("train", "val"):
            for title, unit, names, about in _MEASURES:
                of_steps = _measured(some, "landscape", split, partial(_band, names=names))
                charts += _chart(
                    f"{title}, {split} tasks", unit, f"On {data}, {about}, as a mean over the inner steps.", of_steps
                )
        for title, unit, names, about in _MEASURES:
            whole = _measured(some, "landscape", "train", partial(_initial_band, names=names))
            charts += _chart(
                f"{title}, of the initialisation", unit, f"On {data}, under the meta-gradient: {about}.", whole
            )
        for split in ("train", "val"):
            charts += _conflicts(some, data, split)
        if charts:
            yield Group(data, charts)


def _chart(title: str, unit: str, about: str, found: list[Line]) -> list[Chart]:
    return [lines(title, about, found, "outer step", unit)] if found else []


def _band(line: dict[str, Any], names: Sequence[str]) -> list[float] | None:
    """Means over the inner steps; None where a name is missing."""
    if any(name not in line for name in names):
        return None
    return [_mean(line[name]) for name in names]


def _initial_band(line: dict[str, Any], names: Sequence[str]) -> list[float] | None:
    """The measures of the initialisation itself."""
    return _band(line.get("initialisation") or {}, names)


def _mean(values: Any) -> float:
    entries = np.atleast_1d(np.asarray(values, float))  # null, for a number that is not finite, becomes NaN
    fine = entries[np.isfinite(entries)]
    return float(fine.mean()) if fine.size else float("nan")


def _lines_of(told: Told, probe: str, split: str) -> list[dict[str, Any]]:
    return [line for line in told.probes if line.get("probe") == probe and line.get("split") == split]


@contextmanager
def _reading(told: Told) -> Iterator[None]:
    """Within, what is no measurement is a RunError."""
    try:
        yield
    except (TypeError, ValueError, AttributeError):
        where = shown(told.run.folder / PROBES)
        raise RunError(f"{where} holds no measurements of this version: move it away.") from None


def _measured(
    runs: Sequence[Told], probe: str, split: str, of: Callable[[dict[str, Any]], list[float] | None]
) -> list[Line]:
    """A curve for each run that was probed: of what is measured, the first number, between the second and the third."""
    found = []
    for told in runs:
        with _reading(told):
            seen = [(line["step"], of(line)) for line in _lines_of(told, probe, split)]
        pairs = [(step, values) for step, values in seen if values is not None]
        if pairs:
            y, *band = zip(*(values for _, values in pairs), strict=True)
            low, high = band or (None, None)
            found.append(Line(told.name, told.number, [step for step, _ in pairs], y, low=low, high=high))
    return found


_DEGREES = 180 / np.pi  # of a radian
_KINDS = (
    ("between", "solid", "between tasks"),
    ("within", "dash", "within a task"),
    ("random", "dot", "random directions"),
)


def _by_tensor(told: Told, measured: Sequence[dict[str, Any]]) -> Iterator[Line]:
    """The angles of every tensor in degrees, with their deviations."""
    for line in measured:
        tensors = [str(name) for name in line.get("tensors", [])]
        for kind, dash, said in _KINDS:
            angles, half = (_DEGREES * np.asarray(line.get(name, []), float) for name in (kind, f"{kind}_std"))
            if len(tensors) == len(angles) == len(half):
                name = f"{told.name}, {said}"
                yield Line(name, told.number, tensors, angles.tolist(), half.tolist(), dash=dash)


def _conflicts(runs: Sequence[Told], data: str, split: str) -> Iterator[Chart]:
    """Mean angles over training, and by tensor at the last measurement."""
    over: list[Line] = []
    last: list[Line] = []
    for told in runs:
        for kind, dash, said in _KINDS:
            name = f"{told.name}, {said}"
            for line in _measured([told], "conflict", split, partial(_angle, kind=kind)):
                over.append(line._replace(name=name, dash=dash))
        with _reading(told):
            last += _by_tensor(told, _lines_of(told, "conflict", split)[-1:])
    about = (
        f"Mean angles between gradients on {split} tasks of {data}: between tasks (solid), between the support examples of a task "
        "(dashed), and of random directions of the same dimension (dotted). A right angle means neither help nor conflict."
    )
    if over:
        yield lines(f"Conflict over training, {split} tasks", about, over, "outer step", "angle, degrees")
    if last:
        made = lines(f"Conflict by tensor, {split} tasks", f"{about} Bands are one deviation.", last, "tensor", "angle, degrees",
                     markers=True)  # fmt: skip
        made.layout["xaxis"] |= {"type": "category", "tickangle": -40, "title": None}
        yield made


def _angle(line: dict[str, Any], kind: str) -> list[float] | None:
    return [_DEGREES * _mean(line[kind])] if kind in line else None
