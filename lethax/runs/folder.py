"""A run is a folder: recipe.toml, environment.json, inputs.json, metrics.jsonl, timing.jsonl, checkpoints/, evaluations/"""

import os
import platform
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lethax import __version__, checkpoint, hardware, native, plugins
from lethax.domains import Domain, Inputs, domain_of, read_inputs
from lethax.errors import CheckpointError, DataError, LethaxError, RecipeError, RunError
from lethax.files import read_json, read_log
from lethax.learner import Learner
from lethax.outer import OuterPlan
from lethax.recipe import Resolved, load
from lethax.recipe.record import TOP
from lethax.recipe.resolve import resolve
from lethax.text import command_line, shown

RECIPE, ENVIRONMENT, INPUTS = "recipe.toml", "environment.json", "inputs.json"
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"  # a line for every 100 steps and validation, and for every state
VALIDATION = ("val_score", "val_ci95", "val_episodes")  # what a line of metrics has of a validation
PROBES, ASKED = "probes.jsonl", "probes.json"  # what the probes of a run found, and which it has
LOGS = (METRICS, TIMING, PROBES)
ANEW = "start a new run with another --out"  # what to do where the data have changed
CHECKPOINTS, EVALUATIONS, ANALYSES = "checkpoints", "evaluations", "analyses"
TENSORBOARD = "tensorboard"  # event files, where they were asked for
# All that may be in a run folder.
OURS = {RECIPE, ENVIRONMENT, INPUTS, ASKED, *LOGS, CHECKPOINTS, EVALUATIONS, ANALYSES, TENSORBOARD, ".lock"}
STEPS = "outer.steps"
# Options that follow from the number of outer steps, unless they are given.
SCALED = {STEPS, "inner.first_order_steps", "inner.multi_step_steps"}
SHOWN = 10  # runs, or differences, that a message names


class Run(NamedTuple):
    """A run: its folder, its resolved recipe, and what it knows of its data (None if lethax makes its tasks itself)."""

    folder: Path
    recipe: Resolved
    inputs: Inputs | None

    @property
    def domain(self) -> Domain:
        """The domain of the run's tasks."""
        return domain_of(self.recipe)

    def learner(self) -> Learner:
        """Make the run's learner. The data that it was trained on are not needed."""
        return self.domain.learner(self.recipe, self.inputs)

    def plan(self) -> OuterPlan:
        """The plan of the run's outer loop."""
        return self.domain.plan(self.recipe)


def open_run(folder: Path, advice: str = "Name the one that you mean") -> Run:
    """Open an existing run. If there is none, RunError names the runs in the folder or near it.

    advice: what the error says to do if the folder holds runs.
    """
    if not (folder / RECIPE).is_file():
        raise RunError(_no_run(folder, advice))
    _check_plugins(folder)
    try:
        recipe = resolve(load(folder / RECIPE))
    except RecipeError as error:
        raise RunError(f"{shown(folder)} has a recipe.toml that cannot be used: {error}") from None
    return Run(folder, recipe, _inputs(folder, recipe))


def _check_plugins(folder: Path) -> None:
    """RunError where the run was made with a plugin that is not loaded."""
    try:
        known: Any = read_environment(folder).get("plugins")
    except LethaxError:  # damaged: it only tells of the run
        return
    if names := plugins.missing(known):
        what = ", ".join(f"{shown(name, 60)} ({shown(', '.join(map(str, known[name])), 200)})" for name in names)
        raise RunError(
            f"{shown(folder)} was made with a plugin that is not loaded, {what}: name its file with --plugin FILE."
        )


def _inputs(folder: Path, recipe: Resolved) -> Inputs | None:
    """What the run knows of its data. Runs of earlier versions have no such file, so the data set is asked."""
    path, domain = folder / INPUTS, domain_of(recipe)
    if not path.is_file():
        found = None if recipe.data in domain.made else domain.inputs(recipe)
        return found and found._replace(sha256=None)
    try:
        found = read_inputs(read_json(path))
        if found.sha256 is None:
            raise DataError("its sha256 is null")
    except DataError as error:
        raise RunError(
            f"{shown(path)} does not say what the run was trained on: {error}. Restore or delete it."
        ) from None
    return found


def half_replaced(folder: Path) -> str:
    """What to say of a folder without a recipe, whose run was moved aside to be replaced when a kill came; "" of any other."""
    aside = folder.glob(f".{'[0-9a-f]' * 8}.tmp")  # as `making.replace` names it
    for path in aside:
        if (path / RECIPE).is_file():
            back = f"unless a command is about it, move all of {shown(path)} back into it"
            return f"{shown(folder)} holds a run that is half replaced: {back}"
    return ""


def _no_run(folder: Path, advice: str) -> str:
    if half := half_replaced(folder):
        return f"{half}."
    within = _runs_in(folder)
    near = within or _runs_in(folder.parent) or _runs_in(Path("runs"))
    why = f"{shown(folder)} is not a run: {'it has no recipe.toml' if folder.exists() else 'there is no such folder'}."
    if not near:
        return f"{why} Train one with: lethax train DATA"
    names = ", ".join(shown(path) for path in near[:SHOWN]) + (" …" if near[SHOWN:] else "")
    if within:
        return f"{shown(folder)} is not a run itself but holds {len(near)}: {names}. {advice}."
    return f"{why} Runs near it: {names}."


def _runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder and in its subfolders, without hidden ones, which are copies that were not finished."""
    found = [path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/recipe.toml")]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def checkpoints(run: Run) -> Path:
    """The folder of a run's checkpoints, which may not exist yet."""
    return run.folder / CHECKPOINTS


def best_path(run: Run, step: int) -> Path:
    """The file that holds the meta-parameters of one of the best validations."""
    return checkpoint.path_of(checkpoints(run), "best", step)


def reached(run: Run) -> int:
    """The outer step of a run's newest state, or 0 if there is none. The state is not read."""
    return max(checkpoint.numbered(checkpoints(run), "step"), default=0)


def finished(run: Run) -> bool:
    """Whether a run is trained: its last state is there. One that is damaged is trained again, from the state before."""
    last = run.recipe.outer.steps
    return reached(run) == last and checkpoint.is_good(checkpoint.path_of(checkpoints(run), "step", last))


def probing(run: Run) -> tuple[float, float] | None:
    """The seconds of a run's probes, and of its training beside them. None if it has no probes."""
    lines = timing(run.folder) if (run.folder / ASKED).is_file() else []
    return (sum(line.get("probes", 0.0) for line in lines), sum(line["seconds"] for line in lines)) if lines else None


def timing(folder: Path) -> list[dict[str, Any]]:
    """The lines of timing.jsonl, one for every state; none where it is not there. RunError for a line without "seconds"."""
    lines = read_log(folder / TIMING)
    for line in lines:
        if not all(type(line.get(name, usual)) in (int, float) for name, usual in (("seconds", None), ("probes", 0.0))):
            raise RunError(
                f"{shown(folder / TIMING)} does not say in numbers how many seconds step {line['step']} took: delete that line."
            )
    return lines


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none where it is not there. RunError for one whose counts or validation are no numbers.

    null stands for a validation that is not finite. What else a line has is only looked at.
    """
    lines = read_log(folder / METRICS)
    for line in lines:
        counts, scores = [line.get("skipped", 0), line.get("env_steps", 0)], [line.get(name) for name in VALIDATION]
        if not all(type(value) in (int, float) for value in counts + [score for score in scores if score is not None]):
            raise RunError(
                f"{shown(folder / METRICS)} does not say in numbers what was counted or validated at step {line['step']}: delete "
                "that line."
            )
    return lines


def listed_best(path: Path, info: dict[str, Any]) -> list[list[float]]:
    """[validation score, step] of the best checkpoints that a state lists; CheckpointError where its info is another's."""
    best = info.get("best")
    fine = isinstance(best, list) and all(
        isinstance(entry, list) and len(entry) == 2 and type(entry[0]) in (int, float) and type(entry[1]) is int
        for entry in best
    )
    if not fine:
        raise CheckpointError(f"{path} is no state of training: it lists no best checkpoints; go on from another one.")
    return list(best or [])


def made_with(recipe: Resolved) -> dict[str, Any]:
    """The values that a state of training depends on, as JSON has them."""
    values = {**{name: getattr(recipe, name) for name in TOP}, **recipe.values()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def check_recipe(run: Run, path: Path, info: dict[str, Any]) -> None:
    """Raise RunError if recipe.toml was changed after a state was made. States of earlier versions do not know their recipe."""
    then, now = info.get("recipe", {}), made_with(run.recipe)
    changed = [name for name in now if isinstance(then, dict) and name in then and then[name] != now[name]]
    if STEPS in changed and run.recipe.outer.steps in _extensions(run):
        changed.remove(STEPS)
    if changed:
        said = ", ".join(
            f"{name} was {shown(then[name], 60)} and is {shown(now[name], 60)}" for name in changed[:SHOWN]
        )
        raise RunError(
            f"{shown(run.folder / RECIPE)} was changed after {path.name} was made ({said}): change it back, or train another run "
            "with --out."
        )


def check_newest(run: Run) -> None:
    """Raise RunError as in `check_recipe`, of the newest state. A damaged one is passed over; training names it."""
    if states := checkpoint.numbered(checkpoints(run), "step"):
        newest = states[max(states)]
        with suppress(CheckpointError):
            check_recipe(run, newest, checkpoint.read_info(newest))


def is_model(run: Run) -> bool:
    """Whether it is a trained model that came with lethax: it has no states of training, on purpose."""
    return "model" in read_environment(run.folder)


def check_goes_on(run: Run) -> None:
    """Raise RunError for a trained model, which has no state to go on from."""
    if is_model(run):
        again = command_line("train", "--recipe", run.folder / RECIPE, "--out", "FOLDER")
        raise RunError(
            f"{shown(run.folder)} is a trained model without states, from which training cannot go on. To train it again: {again}"
        )


def _extensions(run: Run) -> list[Any]:
    """The numbers of outer steps that `extend` gave a run."""
    return [entry.get("to") for entry in read_environment(run.folder).get("extended", [])]


def check_unchanged(run: Run, advice: str) -> None:
    """Raise RunError if the folder holds another recipe than when the run was opened."""
    if open_run(run.folder).recipe != run.recipe:
        raise RunError(f"{shown(run.folder)} was given another recipe by another process: {advice}.")


def check_data(run: Run, advice: str) -> None:
    """Raise RunError if the run's data were prepared anew in another way: test classes may then be classes it was trained on."""
    if run.inputs is None or run.inputs.sha256 is None:
        return
    found, known = run.domain.identity(run.recipe) or "", run.inputs.sha256
    if found != known:
        raise RunError(
            f"data set {run.recipe.data} is not the one that {shown(run.folder)} was trained on: its SHA-256 is {found[:12]}…, the "
            f"run's {known[:12]}…, so classes to test on may be classes trained on. Prepare it as it was, or {advice}."
        )


def read_environment(folder: Path) -> dict[str, Any]:
    """What environment.json says of how a run was made; {} where it is not there. RunError if it is damaged."""
    path = folder / ENVIRONMENT
    known = read_json(path) if path.is_file() else {}
    lists = [known.get(name, []) for name in ("extended", "resumed")] if isinstance(known, dict) else [None]
    if not all(isinstance(told, list) and all(isinstance(entry, dict) for entry in told) for told in lists):
        raise RunError(f"{shown(path)} does not say how the run was made: restore or delete it.")
    return dict(known)


def environment() -> dict[str, Any]:
    """The versions, the device and the command that a run or an evaluation was made with."""
    return {
        "lethax": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}",
        "machine": platform.machine(),
        "processor": hardware.processor().model,
        "instructions": hardware.processor().best,
        "native_kernels": native.state(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **when(),
    }


def when() -> dict[str, str]:
    """The command of this process, and the time."""
    return {
        "command": shlex.join(["lethax", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
