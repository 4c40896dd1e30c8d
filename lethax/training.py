"""Training of run folders: metrics, validation, best checkpoints, exact resume; one run, or several of one shape together.

At a checkpoint, in this order: the metrics line, the best meta-parameters, the state with the list of the best. A resumed run
drops whatever is newer than the state it goes on from and does it again, to the same bits.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lethax import assemble, checkpoint
from lethax.errors import DivergedError
from lethax.evaluate import score
from lethax.files import append_line, to_json, truncate_lines
from lethax.learner import Learner
from lethax.lock import RunLock
from lethax.names import CONTROL, REGRESSION
from lethax.outer import OuterPlan, TrainState, begin, fit, fit_together, not_finite
from lethax.runs import Run, best_path, checkpoints

# What metrics.jsonl has of a step; from "before" on, of control alone.
LOGGED = (
    "loss", "score", "gates", "before", "kl", "accepted", "backtracks", "std", "env_steps", "moved_weights", "moved_rule",
    "moved_start",
)  # fmt: skip
LOG_EVERY = 100  # outer steps a line of metrics
SAVE_SECONDS = 60.0  # between checkpoints that are not at the end of an epoch


class Status(NamedTuple):
    """Where training stands: the step reached, and the line of metrics written there, if one was."""

    step: int
    total: int
    line: dict[str, Any] | None


@dataclass
class _Window:
    """Sums since the last line of metrics; part of a checkpoint, so that a resumed run writes the same lines.

    Steps whose meta-gradient was not finite, which a run with `non_finite` "skip" passes over, are counted and not summed.
    """

    count: int = 0
    skipped: int = 0
    sums: dict[str, Any] = field(default_factory=dict)

    def add(self, info: dict[str, Any]) -> None:
        kept = np.all(info["finite"], axis=-1)
        for name in LOGGED:
            if name in info:
                values = np.asarray(info[name], np.float64)[kept]
                self.sums[name] = (np.asarray(self.sums.get(name, 0.0)) + values.sum(axis=0)).tolist()
        self.count += int(kept.sum())
        self.skipped += int((~kept).sum())

    def line(self, step: int) -> dict[str, Any]:
        counted = self.sums if self.count else {}
        means = {name: (np.asarray(total) / self.count).tolist() for name, total in counted.items()}
        line = {"step": step, **means, **({"skipped": self.skipped} if self.skipped else {})}
        self.count, self.skipped, self.sums = 0, 0, {}
        return line


class _Recorder:
    """What is written of one run while it trains, its share of the time included where it trains `together` with others."""

    def __init__(self, run: Run, learner: Learner, plan: OuterPlan, together: int = 1) -> None:
        self.run, self.learner, self.plan, self.together = run, learner, plan, together
        self.fresh = begin(learner, plan, jax.random.key(run.recipe.seed))
        self.window, self.best = _Window(), []  # type: tuple[_Window, list[list[float]]]
        self.listed = self.best  # the best of the state before, which takes the place of a damaged newest one
        self.saved = self.timed = time.monotonic()

    def restore(self, up_to: int | None = None) -> TrainState:
        """The newest state, of step `up_to` at most, or a fresh one."""
        folder = checkpoints(self.run)
        found = checkpoint.newest(folder, self.fresh, up_to) if folder.is_dir() else None
        state, info = (found[0], found[1]) if found else (self.fresh, {"window": {}, "best": []})
        self.window, self.best = _Window(**info["window"]), info["best"]
        self.listed = self.best
        return state

    def drop_after(self, step: int) -> None:
        """Delete what is newer than the state of `step`: it will be done again."""
        if (self.run.folder / "metrics.jsonl").exists():
            truncate_lines(self.run.folder / "metrics.jsonl", lambda line: line["step"] <= step)
        for kind in ("step", "best"):
            for path in checkpoints(self.run).glob(f"{kind}-*.safetensors"):
                if int(path.stem.removeprefix(f"{kind}-")) > step:
                    path.unlink()

    def after_call(self, done: int, seen: dict[str, Any], state: Callable[[], TrainState]) -> dict[str, Any] | None:
        """Take in a call that ended at step `done`; the line of metrics, if one is due."""
        self.window.add(seen)
        ends = done == self.plan.total
        line = self.window.line(done) if done % LOG_EVERY == 0 or ends else None
        if done % self.plan.epoch == 0 or ends:
            meta = state().meta
            line = (line or self.window.line(done)) | self._validate(meta)
            self._keep_best(meta, line["val_score"], done)
        if line:
            append_line(self.run.folder / "metrics.jsonl", to_json(line, None))
        if "val_score" in (line or {}) or time.monotonic() - self.saved > SAVE_SECONDS:
            self.save(state())
        return line

    def mark(self) -> tuple[_Window, list[list[float]]]:
        """What a checkpoint holds beside the state: an interrupt may come when some of the next call is taken in already."""
        return deepcopy(self.window), self.best

    def save(self, state: TrainState, again: bool = True) -> None:
        """A checkpoint to go on from; not `again` where there is one of the step."""
        folder = checkpoints(self.run)
        folder.mkdir(exist_ok=True)
        if not again and checkpoint.step_path(folder, int(state.step)).exists():
            return
        info = {"best": self.best, "window": asdict(self.window)}
        checkpoint.save(checkpoint.step_path(folder, int(state.step)), state, info)
        checkpoint.prune(folder, keep=2)
        wanted = {best_path(self.run, int(at)) for _, at in self.best + self.listed}
        for path in set(folder.glob("best-*.safetensors")) - wanted:
            path.unlink()
        self.listed = self.best
        self.saved = time.monotonic()
        spent = {"step": int(state.step), "seconds": round((self.saved - self.timed) / self.together, 3)}
        append_line(self.run.folder / "timing.jsonl", to_json(spent, None))
        self.timed = self.saved

    def _keep_best(self, meta: Any, value: float, step: int) -> None:
        """The recipe's `keep` best [score, step]; among equals the earlier."""
        sign = 1 if self.run.recipe.data in REGRESSION else -1  # a squared error is better the lower it is
        value = sign * np.inf if np.isnan(value) else value
        ranked = sorted([*self.best, [value, step]], key=lambda entry: (sign * entry[0], entry[1]))
        self.best = ranked[: self.run.recipe.keep]
        if [value, step] in self.best:
            checkpoints(self.run).mkdir(exist_ok=True)
            checkpoint.save(best_path(self.run, step), meta, {"step": step, "val_score": value})

    def _validate(self, meta: Any) -> dict[str, Any]:
        recipe = self.run.recipe
        assert recipe.val_episodes
        key, steps = assemble.validation_key(recipe.seed), recipe.inner_steps or 0
        judged = assemble.judge(recipe, "val", [meta], recipe.val_episodes, steps, key)
        scores = np.concatenate([s for s, _ in judged])
        result = score(scores[:, -1])
        return {"val_score": result.mean, "val_ci95": result.ci95, "val_episodes": result.n}

    def diverged(self, step: int, tensor: str) -> DivergedError:
        kept = sorted(checkpoints(self.run).glob("step-*.safetensors"))
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        smaller = "--inner-rate" if self.run.recipe.data in CONTROL else "--inner-rate or --outer-rate, --clip-norm 10"
        return DivergedError(
            f"outer step {step} of {self.run.folder}: the meta-gradient of {tensor} is not finite; {last}. "
            f"Try a smaller {smaller}, or --non-finite skip."
        )


def train(run: Run) -> Generator[Status, None, None]:
    """Train to the recipe's last step, from the newest checkpoint if there is one; yields after every compiled call.

    RunError if another process trains here; DivergedError, naming step and tensor, when a meta-gradient is NaN or Inf.
    """
    with RunLock(run.folder):
        learner, plan = assemble.learner(run.recipe), assemble.plan(run.recipe)
        recorder = _Recorder(run, learner, plan)
        state = recorder.restore()
        calls = fit(learner, state, *assemble.family(run.recipe, "train"), plan)
        yield from _follow([recorder], int(state.step), calls, lambda tree, _: tree)


def train_together(runs: Sequence[Run]) -> Generator[Status, None, None]:
    """`train` for runs of one `assemble.shape_key` in one program; the lines of metrics yielded are the first run's.

    A run has the numbers that it has alone but for rounding; resumed with the same others, it has the same bits.
    """
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(RunLock(run.folder))
        learner, plan = assemble.learner(runs[0].recipe), assemble.plan(runs[0].recipe)
        recorders = [_Recorder(run, learner, plan, len(runs)) for run in runs]
        states = _at_one_step(recorders)
        families = [assemble.family(run.recipe, "train") for run in runs]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        sources = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[f.source for f in families])
        devices = assemble.devices_for(len(runs))
        calls = fit_together(learner, stacked, families[0].tasks, sources, plan, devices)
        yield from _follow(recorders, int(states[0].step), calls, _part)


def _part(tree: Any, i: int) -> Any:
    """Entry i of every array. Arrays spread over devices are gathered first: to index them would be a collective program for
    each, and many of those at once can wait for each other without end on a CPU."""
    here = jax.devices()[0]
    return jax.tree.map(lambda x: (x if isinstance(x, np.ndarray) else jax.device_put(x, here))[i], tree)


def _at_one_step(recorders: list[_Recorder]) -> list[TrainState]:
    """The newest states that all runs have: a kill may have come between the writing of one and the next."""
    states = [recorder.restore() for recorder in recorders]
    while len(steps := {int(state.step) for state in states}) > 1:
        states = [recorder.restore(min(steps)) for recorder in recorders]
    return states


def _follow(
    recorders: list[_Recorder], done: int, calls: Iterator[Any], take: Callable[[Any, int], Any]
) -> Generator[Status, None, None]:
    """Record every call; `take(tree, i)` is run i's part of what a call gives."""
    for recorder in recorders:
        recorder.drop_after(done)
    plan = recorders[0].plan
    # The last states of which all is recorded, and the recorders' marks there.
    settled: tuple[Any, list[Any]] | None = None
    try:
        for states, infos in calls:
            fetched = jax.device_get(infos)
            seen = [take(fetched, i) for i in range(len(recorders))]
            for i, recorder in enumerate(recorders):
                broken = None if plan.skip else not_finite(seen[i], recorder.fresh.meta, done)
                if broken:
                    raise recorder.diverged(*broken)
            done += plan.chunk
            lines = [r.after_call(done, seen[i], partial(take, states, i)) for i, r in enumerate(recorders)]
            settled = states, [recorder.mark() for recorder in recorders]
            yield Status(done, plan.total, lines[0])
    except (KeyboardInterrupt, GeneratorExit):
        if settled:
            for i, (recorder, mark) in enumerate(zip(recorders, settled[1], strict=True)):
                recorder.window, recorder.best = mark
                recorder.save(take(settled[0], i), again=False)
        raise
