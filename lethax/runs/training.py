"""Train run folders, with exact resume: one run, or several of one shape together. `recorder` writes their files."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax

from lethax import processes, signals, trees
from lethax.devices import devices_for, part
from lethax.errors import DivergedError, LethaxError, RunError
from lethax.lock import RunLock
from lethax.outer import OuterPlan, TrainState, begin, fit, fit_together, not_finite
from lethax.runs.folder import ANEW, Run, check_data, check_unchanged
from lethax.runs.making import note_resumed
from lethax.runs.probes import asked
from lethax.runs.recorder import Recorder, diverged, validated
from lethax.text import command_line, shown


class Status(NamedTuple):
    """The progress of training: the step reached, the line of metrics if one was written there, and the steps skipped so far."""

    step: int
    total: int
    line: dict[str, Any] | None
    skipped: int


class Call(NamedTuple):
    """A compiled call as all processes know it: the step reached, the states there, what was seen and validated in each run."""

    done: int
    states: Any
    seen: list[dict[str, Any]]
    validations: list[dict[str, Any] | None]


def train(run: Run) -> Generator[Status, None, None]:
    """Train a run to its last outer step, from the newest checkpoint if there is one. Yields after every compiled call.

    RunError if another process trains here, or its data were prepared anew; DivergedError, naming step and tensor, when a
    meta-gradient is NaN or Inf, and at the end where nothing was learned. Of several processes that train it together, the first
    alone reads and writes the folder; `processes.Lost` says in each of the others that one was lost.
    """
    recorders: list[Recorder] = []
    with ExitStack() as stack:
        with processes.agreed():
            if processes.first():
                stack.enter_context(RunLock(run.folder))
                check_unchanged(run, "choose another --out")
            check_data(run, ANEW)
            learner, plan = run.learner(), run.plan()
            _check_joint(run, plan)
            if processes.first():
                recorders.append(Recorder(run, learner, plan))
            state = recorders[0].restore() if recorders else begin(learner, plan, jax.random.key(run.recipe.seed))
            if recorders and int(state.step) < plan.total:
                note_resumed([run], int(state.step))
            family = run.domain.family(run.recipe, "train")
        stack.enter_context(processes.bound())
        state = processes.of_first(state)
        calls = _computed([run], plan, int(state.step), fit(learner, state, *family, plan), lambda tree, _: tree)
        if recorders:
            yield from _follow(recorders, int(state.step), calls, lambda tree, _: processes.here(tree))
        else:
            yield from (Status(call.done, plan.total, None, 0) for call in calls)


def train_together(runs: Sequence[Run]) -> Generator[Status, None, None]:
    """Train several runs in one program, whose keys of `Domain.together` are equal. The lines yielded are those of the first run.

    A run has the numbers that it has alone but for rounding; resumed with the same others, it has the same bits.
    """
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(RunLock(run.folder))
            check_unchanged(run, "choose another --out")
            check_data(run, ANEW)
        learner, plan = runs[0].learner(), runs[0].plan()
        recorders = [Recorder(run, learner, plan, len(runs)) for run in runs]
        states = _at_one_step(recorders)
        families = [run.domain.family(run.recipe, "train") for run in runs]
        stacked, sources = trees.stacked(states), trees.stacked([family.source for family in families])
        devices = devices_for(len(runs))
        trained = fit_together(learner, stacked, families[0].tasks, sources, plan, devices)
        done = int(states[0].step)
        if done < plan.total:
            note_resumed(runs, done)
        yield from _follow(recorders, done, _computed(runs, plan, done, trained, part), part)


def _check_joint(run: Run, plan: OuterPlan) -> None:
    """Raise RunError for what several processes cannot do together."""
    if processes.count() == 1:
        return
    if plan.devices % processes.count():
        raise RunError(f"training on {run.recipe.data} is not divided among processes: start one alone.")
    if asked(run):
        raise RunError(f"{shown(run.folder)} has probes, which one process measures: train it in one alone.")


def _at_one_step(recorders: list[Recorder]) -> list[TrainState]:
    """Load the newest states that all runs have at one step. A kill may have come between the writing of one and the next.

    RunError if there are none but fresh ones, although a run has a state: its training would be lost.
    """
    states = newest = [recorder.restore() for recorder in recorders]
    while len(steps := {int(state.step) for state in states}) > 1:
        states = [recorder.restore(min(steps)) for recorder in recorders]
    ahead = [r.run.folder for r, state in zip(recorders, newest, strict=True) if state.step > states[0].step == 0]
    if ahead:
        again = command_line("train", "--resume", ahead[0])
        raise RunError(
            f"{shown(ahead[0])} has a state, and others that train together with it have none of that step that is whole: train it "
            f"alone first: {again}"
        )
    return states


def _computed(
    runs: Sequence[Run], plan: OuterPlan, done: int, calls: Iterator[Any], take: Callable[[Any, int], Any]
) -> Iterator[Call]:
    """What all processes compute alike: the calls of `fit`, and validations. `take(tree, i)` gives the part of run i.

    DivergedError at the first meta-gradient that is not finite, unless those are skipped; `processes.Lost`; RunError before a
    validation on data that were prepared anew since training began, because it would choose the checkpoint on other classes.
    """
    with processes.waiting():
        for states, infos in calls:
            fetched = jax.device_get(infos)
            seen = [take(fetched, i) for i in range(len(runs))]
            for i, run in enumerate(runs):
                broken = None if plan.skip else not_finite(seen[i], take(states, i).meta, done)
                if broken:
                    raise diverged(run, *broken)
            done += len(seen[0]["finite"])
            due = done % plan.epoch == 0 or done == plan.total
            for run in runs if due else ():
                check_data(run, ANEW)
            yield Call(
                done,
                states,
                seen,
                [validated(run, take(states, i).meta) if due else None for i, run in enumerate(runs)],
            )


def _follow(
    recorders: list[Recorder], done: int, calls: Iterator[Call], take: Callable[[Any, int], Any]
) -> Generator[Status, None, None]:
    """Record every call. `take(tree, i)` gives the part of run i, for this process alone."""
    for recorder in recorders:
        recorder.drop_after(done)
        if not done:
            recorder.probe(recorder.fresh)
    _say(recorders)
    # The last states of which all is recorded, and the recorders' marks there.
    settled: tuple[Any, list[Any]] | None = None
    with ExitStack() as stack:
        try:
            for call in calls:
                lines = [
                    r.after_call(call.done, call.seen[i], partial(take, call.states, i), call.validations[i])
                    for i, r in enumerate(recorders)
                ]
                if settled is None:  # until here there is nothing to save
                    stack.enter_context(signals.deferred())
                settled = call.states, [recorder.mark() for recorder in recorders]
                _say(recorders)
                signals.check()
                yield Status(call.done, recorders[0].plan.total, lines[0], recorders[0].skipped)
        except (KeyboardInterrupt, GeneratorExit, LethaxError) as error:
            if settled:
                for i, (recorder, mark) in enumerate(zip(recorders, settled[1], strict=True)):
                    if not (isinstance(error, DivergedError) and error.run == recorder.run.folder):
                        recorder.save_marked(take(settled[0], i), mark)
                _say(recorders)
            if isinstance(error, processes.Lost):
                raise _ended(recorders[0], error) from None
            raise
    for recorder in recorders:
        recorder.judge_end()
    signals.say("what is done is kept")  # from here on the step of these runs is not that of the next one


def _ended(recorder: Recorder, error: processes.Lost) -> processes.Lost:
    """The error of a run that has lost a process, with what is saved and how to go on."""
    saved = f"the state is saved at step {recorder.at}" if recorder.at else "nothing was saved yet"
    again = command_line("train", "--resume", recorder.run.folder)
    return processes.Lost(f"{error}; {saved}. Go on in any number of processes: {again}")


def _say(recorders: list[Recorder]) -> None:
    """Set the sentence that is printed if a signal ends the program now."""
    step = min(recorder.at for recorder in recorders)
    if step:
        signals.say(f"the state is saved at step {step}")
