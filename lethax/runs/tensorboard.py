"""Write the lines of metrics.jsonl as event files for TensorBoard too, which is an option of training."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from lethax.errors import EnvironmentFault
from lethax.runs.folder import TENSORBOARD, Run, metrics
from lethax.runs.training import Status


def check() -> None:
    """Raise EnvironmentFault if the package that writes event files is missing."""
    try:
        import tensorboard.summary.writer.event_file_writer  # noqa: F401
    except ImportError:
        raise EnvironmentFault(
            '--tensorboard needs the package tensorboard, which is not installed: pip install "lethax[tensorboard]"'
        ) from None


def mirrored(run: Run, statuses: Generator[Status, None, None]) -> Generator[Status, None, None]:
    """Pass the progress of training on, and write its metrics to RUN/tensorboard as well.

    The event files of an earlier training are replaced by one with all lines of metrics.jsonl, so that a resumed run has no point
    twice.
    """
    writer: Any = None
    try:
        with closing(statuses):
            for status in statuses:
                if writer is None:  # training has begun: metrics.jsonl has lost what is computed again
                    writer = _begun(run)
                elif status.line:
                    _add(writer, run, [status.line])
                yield status
        writer = writer or _begun(run)  # it was finished before
    finally:
        if writer:
            writer.close()


def _begun(run: Run) -> Any:
    """A writer whose file has all that the run has logged so far."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = run.folder / TENSORBOARD
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder))
    _add(writer, run, metrics(run.folder))
    return writer


def _add(writer: Any, run: Run, lines: Sequence[dict[str, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    names = run.learner().gate_names()
    for line in lines:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line, names)]
        writer.add_event(Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values)))
    writer.flush()


def scalars(line: dict[str, Any], gate_names: Sequence[str]) -> list[tuple[str, float]]:
    """The numbers of a line of metrics, each with its tag: "loss", "gates/hidden0/weight", or "kl/0" for entry 0 of a list."""
    found: list[tuple[str, float]] = []
    for name, value in line.items():
        entries = np.asarray(value, np.float64).ravel().tolist()  # null, for a number that is not finite, becomes NaN
        fits = name == "gates" and len(gate_names) == len(entries)
        labels = gate_names if fits else [str(i) for i in range(len(entries))]
        tags = [f"{name}/{label}" for label in labels] if np.ndim(value) else [name]
        found += zip(tags, entries, strict=True)
    return [(tag, value) for tag, value in found if tag != "step"]
