"""Probes: measures that are taken while a run trains, and that change no bit of it.

A probe draws tasks from a stream of its own, and reads the state that training has reached. What it finds is a line of
`probes.jsonl`. Which probes a run has stands in `probes.json`, so that a resumed run goes on with them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lethax import trees
from lethax.analysis import conflict, landscape
from lethax.analysis.gradients import Batch
from lethax.errors import RecipeError, RunError, did_you_mean
from lethax.evaluation import draw
from lethax.files import read_json, to_json, write_atomic
from lethax.learner import Learner, Traceable
from lethax.lock import RunLock
from lethax.meta_batch import Plan
from lethax.outer import OuterPlan, TrainState
from lethax.records import Progress
from lethax.runs.folder import ASKED, Run, check_goes_on, finished
from lethax.streams import Stream, stream
from lethax.text import shown

SPLITS = ("train", "val")
WITHIN = 2  # tasks whose support examples are compared; each costs a gradient for every example


class Asked(NamedTuple):
    """The probes of a run, and the outer steps between two measurements; 0 stands for those between two validations."""

    names: tuple[str, ...]
    every: int


class Probe(NamedTuple):
    """A probe: what it measures of a learner on a batch of tasks, and the number of tasks.

    measure(learner, meta, batch, rate, whole) gives the values of a line. `rate` is the inner rate α; `whole` says whether the
    measures of the meta-gradient are wanted, which are those of training tasks alone.
    """

    measure: Callable[[Learner, Any, Batch, float, bool], dict[str, Any]]
    tasks: int


def _landscape(learner: Learner, meta: Any, batch: Batch, rate: float, whole: bool) -> dict[str, Any]:
    steps = [rate * multiple for multiple in landscape.MULTIPLES]
    tasks = [landscape.of_inner_steps(learner, meta, episode.support, steps) for episode, _, _ in batch.tasks()]
    line = _listed(trees.mean(tasks))
    if whole:
        line["initialisation"] = _listed(landscape.of_initialisation(learner, meta, batch, steps))
    return line


def _conflict(learner: Learner, meta: Any, batch: Batch, rate: float, whole: bool) -> dict[str, Any]:
    supports = [episode.support for episode, _, _ in batch.tasks()][:WITHIN]
    within = [conflict.within_task(learner, meta, support) for support in supports]
    found = conflict.both(conflict.between_tasks(learner, meta, batch), within)
    line: dict[str, Any] = {"tensors": found.tensors}
    for name, values in (("between", found.between), ("within", found.within)):
        line[name], line[f"{name}_std"] = (each.tolist() for each in conflict.mean_std(values))
    line["random"], line["random_std"] = map(list, zip(*found.random, strict=True))
    return line


PROBES = {"landscape": Probe(_landscape, 2), "conflict": Probe(_conflict, 8)}


def check(names: Sequence[str], every: int | None) -> None:
    """Raise RecipeError for an unknown probe, or an interval below 1."""
    for name in names:
        if name not in PROBES:
            raise RecipeError(
                f"no probe is called '{shown(name)}'.{did_you_mean(name, list(PROBES))} Probes: {', '.join(PROBES)}."
            )
    if every is not None and every < 1:
        raise RecipeError(f"--probe-every is {every}; it has to be at least 1 outer step.")


def ask(run: Run, names: Sequence[str], every: int | None = None) -> None:
    """Have a run probed from now on. RecipeError as in `check`, and for a method or data that cannot be probed.

    RunError if it is not probed in this way already, and another process is about it or no step is left to train.
    """
    check(names, every)
    _check_run(run)
    wanted = Asked(tuple(dict.fromkeys(names)), every or 0)
    if asked(run) == wanted:
        return
    with RunLock(run.folder):
        check_goes_on(run)
        if finished(run):
            raise RunError(
                f"{shown(run.folder)} is finished, so there is no step to probe: give it more with --steps, probe another run with "
                "--out, or leave --probe out."
            )
        write_atomic(run.folder / ASKED, to_json(wanted._asdict()) + "\n")


def asked(run: Run) -> Asked | None:
    """The probes that a run has, or None."""
    path = run.folder / ASKED
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        names, every = tuple(found["names"]), found["every"]
        if not set(names) <= set(PROBES) or type(every) is not int or every < 0:
            raise ValueError("it names no known probe, or its interval is no number of steps")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{shown(path)} does not say which probes the run has ({error}): delete it to go on without."
        ) from None
    return Asked(names, every)


def _check_run(run: Run) -> None:
    plain = isinstance(run.plan(), Plan) and isinstance(run.learner(), Traceable)
    if not plain or run.domain.drawn:
        raise RecipeError(
            f"{run.recipe.method} on {run.recipe.data} cannot be probed: probes follow an inner loop that moves the weights of the "
            "network on support sets of one shape. Leave --probe out."
        )
    if run.recipe.gate.every_step:
        raise RecipeError(
            f"{run.recipe.method} with gate.every_step cannot be probed: the gradients that move its weights are those of "
            "attenuated weights, which are no stops of the path that probes follow. Leave --probe out, and delete "
            f"{ASKED} of a run that has it."
        )


class Prober:
    """Measures one run at the ends of calls: at step 0, and at the first end at or after every multiple of the interval."""

    def __init__(self, run: Run, learner: Learner, plan: OuterPlan, wanted: Asked) -> None:
        assert isinstance(plan, Plan)
        _check_run(run)
        self.learner, self.plan, self.names = learner, plan, wanted.names
        self.every = wanted.every or plan.epoch
        self.rate = run.recipe.inner.rate
        self.families = {split: run.domain.family(run.recipe, split) for split in SPLITS}
        self.key = stream(jax.random.key(run.recipe.seed), Stream.PROBE)

    def due(self, before: int, done: int) -> bool:
        """Whether a measurement belongs to the call from step `before` to `done`."""
        return done // self.every > before // self.every or done == self.plan.total

    def lines(self, state: TrainState) -> Iterator[dict[str, Any]]:
        """Measure a state: a line for every probe and split."""
        done = int(state.step)
        learner = self.learner.at(max(done - 1, 0))  # that of the step before, whose programs are the ones in use
        for name in self.names:
            for place, split in enumerate(SPLITS):
                batch = self._draw(done, place, split, PROBES[name].tasks)
                found = PROBES[name].measure(learner, state.meta, batch, self.rate, split == "train")
                yield {"step": done, "probe": name, "split": split, "tasks": batch.count, **found}

    def _draw(self, done: int, place: int, split: str, tasks: int) -> Batch:
        of_step = jax.random.fold_in(jax.random.fold_in(self.key, done), place)
        family = self.families[split]
        episodes = draw(family.tasks, self.plan.shape, tasks, family.source, of_step, jnp.asarray(0))
        keys = jax.random.split(jax.random.fold_in(of_step, tasks), tasks)
        return Batch(episodes, keys, Progress(jnp.asarray(done), jnp.asarray(self.plan.total)), self.plan.reduction)


def _listed(measured: landscape.Landscape) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in measured._asdict().items()}
