"""Write the files of a run while it trains: metrics, validation scores, the best checkpoints, states.

A checkpoint has this order: the logs, down to the disk; the best meta-parameters; the state with the list of the best. What is
newer than the state that a run goes on from is dropped and done again, to the same bits.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lethax import checkpoint, signals
from lethax.errors import CheckpointError, DivergedError
from lethax.evaluation import score
from lethax.files import append_line, settle_lines, to_json, truncate_lines
from lethax.learner import Learner
from lethax.outer import OuterPlan, TrainState, begin
from lethax.runs.folder import (
    LOGS,
    METRICS,
    PROBES,
    TIMING,
    Run,
    best_path,
    check_goes_on,
    check_recipe,
    checkpoints,
    listed_best,
    made_with,
    metrics,
    reached,
)
from lethax.runs.probes import Prober, asked
from lethax.streams import validation_key
from lethax.text import shown

# What metrics.jsonl holds of an outer step; names from "before" on are of control only.
LOGGED = (
    "loss", "score", "gates", "live", "before", "kl", "accepted", "backtracks", "std", "env_steps", "moved_weights", "moved_rule",
    "moved_start",
)  # fmt: skip
LOG_EVERY = 100  # outer steps a line of metrics
SAVE_SECONDS = 60.0  # between checkpoints that are not at the end of an epoch


@dataclass
class Window:
    """Sums since the last line of metrics. They are part of a checkpoint, so that a resumed run writes the same lines.

    Steps whose meta-gradient was not finite, which a run with `non_finite` "skip" passes over, are counted and not summed.
    """

    count: int = 0
    skipped: int = 0
    sums: dict[str, Any] = field(default_factory=dict)

    def add(self, info: dict[str, Any]) -> None:
        """Add the outer steps of a call to the sums."""
        kept = np.all(info["finite"], axis=-1)
        for name in LOGGED:
            if name in info:
                values = np.asarray(info[name], np.float64)[kept]
                self.sums[name] = (np.asarray(self.sums.get(name, 0.0)) + values.sum(axis=0)).tolist()
        self.count += int(kept.sum())
        self.skipped += int((~kept).sum())

    def line(self, step: int) -> dict[str, Any]:
        """Make the line of metrics of an outer step, and begin a new window."""
        counted = self.sums if self.count else {}
        means = {name: (np.asarray(total) / self.count).tolist() for name, total in counted.items()}
        line = {"step": step, **means, **({"skipped": self.skipped} if self.skipped else {})}
        self.count, self.skipped, self.sums = 0, 0, {}
        return line


def window_of(path: Path, info: dict[str, Any]) -> Window:
    """Read the window that a state keeps. CheckpointError if it is damaged although the file's checksum is right."""
    try:
        window = Window(**info["window"])
        if type(window.count) is not int or type(window.skipped) is not int or set(window.sums) - set(LOGGED):
            raise ValueError("its counts are no numbers, or its sums are of other names")
        for total in window.sums.values():
            np.asarray(total, np.float64)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no state of training: its window of metrics is damaged ({error}); go on from another one."
        ) from None
    return window


class Recorder:
    """Writes the files of one run. If it trains `together` with others, its time is its share of the time of all."""

    def __init__(self, run: Run, learner: Learner, plan: OuterPlan, together: int = 1) -> None:
        self.run, self.learner, self.plan, self.together = run, learner, plan, together
        self.fresh = begin(learner, plan, jax.random.key(run.recipe.seed))
        self.window, self.best = Window(), []  # type: tuple[Window, list[list[float]]]
        self.listed = self.best  # the best of the state before, which takes the place of a damaged newest one
        self.at = self.logged_skips = 0  # the step of the newest state; steps passed over before the window
        wanted = asked(run)
        self.prober = Prober(run, learner, plan, wanted) if wanted else None
        self.probed = 0.0  # seconds of probes since the newest state
        self.saved = self.timed = time.monotonic()

    @property
    def skipped(self) -> int:
        """The number of outer steps of the whole run that were skipped."""
        return self.logged_skips + self.window.skipped

    def restore(self, up_to: int | None = None) -> TrainState:
        """Load the newest state, of step `up_to` at most, or make a fresh one."""
        folder = checkpoints(self.run)
        try:
            found = checkpoint.newest(folder, self.fresh, up_to) if folder.is_dir() else None
        except CheckpointError as error:
            error.run = self.run.folder
            raise
        if found is None:
            check_goes_on(self.run)
            self.window, self.best, state = Window(), [], self.fresh
        else:
            state, info, path = found
            check_recipe(self.run, path, info)
            self.window, self.best = window_of(path, info), listed_best(path, info)
        self.listed, self.at = self.best, int(state.step)
        return state

    def drop_after(self, step: int) -> None:
        """Delete what is newer than the state of `step`, because it will be computed again."""
        logs = [self.run.folder / name for name in LOGS]
        last = step or -1  # of a run without a state, what was probed before the first step is measured again
        for path in filter(Path.exists, logs):
            truncate_lines(path, last)
        self.logged_skips = sum(line.get("skipped", 0) for line in metrics(self.run.folder))
        for kind in ("step", "best"):
            for number, path in checkpoint.numbered(checkpoints(self.run), kind).items():
                if number > step:
                    path.unlink()

    def after_call(
        self, done: int, seen: dict[str, Any], state: Callable[[], TrainState], validation: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Record a call that ended at outer step `done`, and its validation if it had one. Returns the line of metrics, if due."""
        self.window.add(seen)
        before, ends = done - len(seen["finite"]), done == self.plan.total
        line = self._line(done) if done % LOG_EVERY == 0 or ends else None
        if validation:
            line = (line or self._line(done)) | validation
            self._keep_best(state().meta, line["val_score"], done)
        if line:
            append_line(self.run.folder / METRICS, to_json(line, None))
        if self.prober and self.prober.due(before, done):
            self.probe(state())
        # The first call has compiled, which may have taken longer than all that a kill costs from then on.
        if validation or not self.at or time.monotonic() - self.saved > SAVE_SECONDS:
            self.save(state())
        return line

    def probe(self, state: TrainState) -> None:
        """Write what the probes of the run find at a state."""
        if self.prober is None:
            return
        begun = time.monotonic()
        for line in self.prober.lines(state):
            signals.check()
            append_line(self.run.folder / PROBES, to_json(line, None))
        self.probed += time.monotonic() - begun

    def _line(self, done: int) -> dict[str, Any]:
        self.logged_skips += self.window.skipped
        return self.window.line(done)

    def mark(self) -> tuple[Window, list[list[float]]]:
        """Copy what a checkpoint holds beside the state, because an interrupt may come while the next call is being recorded."""
        return deepcopy(self.window), self.best

    def save(self, state: TrainState) -> None:
        """Save a checkpoint to go on from."""
        folder, step, now = checkpoints(self.run), int(state.step), time.monotonic()
        folder.mkdir(exist_ok=True)
        spent = {"step": step, "seconds": round((now - self.timed - self.probed) / self.together, 3)}
        spent |= {"probes": round(self.probed, 3)} if self.prober else {}
        append_line(self.run.folder / TIMING, to_json(spent, None))
        settle_lines(*(self.run.folder / name for name in LOGS))
        checkpoint.save(
            checkpoint.path_of(folder, "step", step),
            state,
            {"best": self.best, "window": asdict(self.window), "recipe": made_with(self.run.recipe)},
        )
        checkpoint.prune(folder, keep=2)
        wanted = {int(at) for _, at in self.best + self.listed}
        for number, path in checkpoint.numbered(folder, "best").items():
            if number not in wanted:
                path.unlink()
        self.listed, self.at = self.best, step
        self.saved = self.timed = now
        self.probed = 0.0

    def save_marked(self, state: TrainState, mark: tuple[Window, list[list[float]]]) -> None:
        """Save the state at a mark, after an interrupt, unless a state of that step was saved already."""
        self.window, self.best = mark
        if self.at != int(state.step):
            self.save(state)

    def _keep_best(self, meta: Any, value: float, step: int) -> None:
        """Keep the checkpoint if its score is finite and among the `keep` best. Of equal scores, the earlier is better."""
        if not math.isfinite(value):
            return
        sign = -1 if self.learner.objective.higher_is_better else 1
        ranked = sorted([*self.best, [value, step]], key=lambda entry: (sign * entry[0], entry[1]))
        self.best = ranked[: self.run.recipe.outer.keep]
        if [value, step] in self.best:
            checkpoints(self.run).mkdir(exist_ok=True)
            checkpoint.save(best_path(self.run, step), meta, {"step": step, "val_score": value})

    def judge_end(self) -> None:
        """Raise DivergedError at the end of a run that has learned nothing."""
        if self.skipped >= self.plan.total:
            why = "all outer steps were skipped, because no meta-gradient was finite"
        elif not any(math.isfinite(value) for value, _ in self.best):
            why = "no validation has a finite score"
        else:
            return
        error = DivergedError(f"{shown(self.run.folder)} has learned nothing: {why}. Try {self.run.domain.milder}.")
        error.run = self.run.folder
        raise error


def validated(run: Run, meta: Any) -> dict[str, Any]:
    """Validate meta-parameters: what a line of metrics holds of their scores."""
    scores = []
    judged = run.domain.judge(
        run.recipe, run.inputs, "val", [meta], run.recipe.outer.val_episodes, run.recipe.inner.steps,
        validation_key(run.recipe.seed), curve=False,
    )  # fmt: skip
    for part, _ in judged:
        signals.check()  # a validation can take minutes, and the state before it can be saved
        scores.append(part)
    result = score(np.concatenate(scores)[:, -1])
    return {"val_score": result.mean, "val_ci95": result.ci95, "val_episodes": result.n}


def diverged(run: Run, step: int, tensor: str) -> DivergedError:
    """Make the error for a meta-gradient that is not `optimizer.usable`."""
    at = reached(run)
    last = f"the last good checkpoint is of step {at}" if at else "there is no checkpoint yet"
    error = DivergedError(
        f"outer step {step} of {shown(run.folder)}: the meta-gradient of {tensor}, or its square, is not finite; {last}. "
        f"Try {run.domain.milder}, or --non-finite skip."
    )
    error.run = run.folder
    return error
