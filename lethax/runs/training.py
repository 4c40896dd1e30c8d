"""Train run folders, with exact resume: one run, or several of one shape together. `recorder` writes their files."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lethax import signals
from lethax.devices import devices_for, part
from lethax.errors import RunError
from lethax.lock import RunLock
from lethax.outer import TrainState, fit, fit_together, not_finite
from lethax.runs.folder import Run, check_data, open_run
from lethax.runs.recorder import Recorder
from lethax.text import shown


class Status(NamedTuple):
    """The progress of training: the step reached, the line of metrics if one was written there, and the steps skipped so far."""

    step: int
    total: int
    line: dict[str, Any] | None
    skipped: int


def train(run: Run) -> Generator[Status, None, None]:
    """Train a run to its last outer step, from the newest checkpoint if there is one. Yields after every compiled call.

    RunError if another process trains here, or its data were prepared anew; DivergedError, naming step and tensor, when a
    meta-gradient is NaN or Inf, and at the end where nothing was learned.
    """
    with RunLock(run.folder):
        _check(run)
        learner, plan = run.learner(), run.plan()
        recorder = Recorder(run, learner, plan)
        state = recorder.restore()
        calls = fit(learner, state, *run.domain.family(run.recipe, "train"), plan)
        yield from _follow([recorder], int(state.step), calls, lambda tree, _: tree)


def train_together(runs: Sequence[Run]) -> Generator[Status, None, None]:
    """Train several runs in one program, whose keys of `Domain.together` are equal. The lines yielded are those of the first run.

    A run has the numbers that it has alone but for rounding; resumed with the same others, it has the same bits.
    """
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(RunLock(run.folder))
            _check(run)
        learner, plan = runs[0].learner(), runs[0].plan()
        recorders = [Recorder(run, learner, plan, len(runs)) for run in runs]
        states = _at_one_step(recorders)
        families = [run.domain.family(run.recipe, "train") for run in runs]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        sources = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[f.source for f in families])
        devices = devices_for(len(runs))
        calls = fit_together(learner, stacked, families[0].tasks, sources, plan, devices)
        yield from _follow(recorders, int(states[0].step), calls, part)


def _check(run: Run) -> None:
    """Raise RunError if the folder, which is locked now, or the data have changed since the run was opened."""
    if open_run(run.folder).recipe != run.recipe:
        raise RunError(f"{shown(run.folder)} was given another recipe by another process: choose another --out.")
    check_data(run, "start a new run with another --out")


def _at_one_step(recorders: list[Recorder]) -> list[TrainState]:
    """Load the newest states that all runs have at one step. A kill may have come between the writing of one and the next."""
    states = [recorder.restore() for recorder in recorders]
    while len(steps := {int(state.step) for state in states}) > 1:
        states = [recorder.restore(min(steps)) for recorder in recorders]
    return states


def _follow(
    recorders: list[Recorder], done: int, calls: Iterator[Any], take: Callable[[Any, int], Any]
) -> Generator[Status, None, None]:
    """Record every call. `take(tree, i)` gives the part of run i."""
    for recorder in recorders:
        recorder.drop_after(done)
        if not done:
            recorder.probe(recorder.fresh)
    _say(recorders)
    plan = recorders[0].plan
    # The last states of which all is recorded, and the recorders' marks there.
    settled: tuple[Any, list[Any]] | None = None
    with ExitStack() as stack:
        try:
            for states, infos in calls:
                fetched = jax.device_get(infos)
                seen = [take(fetched, i) for i in range(len(recorders))]
                for i, recorder in enumerate(recorders):
                    broken = None if plan.skip else not_finite(seen[i], recorder.fresh.meta, done)
                    if broken:
                        raise recorder.diverged(*broken)
                done += len(seen[0]["finite"])
                lines = [r.after_call(done, seen[i], partial(take, states, i)) for i, r in enumerate(recorders)]
                if settled is None:  # until here there is nothing to save
                    stack.enter_context(signals.deferred())
                settled = states, [recorder.mark() for recorder in recorders]
                _say(recorders)
                signals.check()
                yield Status(done, plan.total, lines[0], recorders[0].skipped)
        except (KeyboardInterrupt, GeneratorExit):
            if settled:
                for i, (recorder, mark) in enumerate(zip(recorders, settled[1], strict=True)):
                    recorder.save_marked(take(settled[0], i), mark)
                _say(recorders)
            raise
    for recorder in recorders:
        recorder.judge_end()


def _say(recorders: list[Recorder]) -> None:
    """Set the sentence that is printed if a signal ends the program now."""
    step = min(recorder.at for recorder in recorders)
    if step:
        signals.say(f"the state is saved at step {step}")
