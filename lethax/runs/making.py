"""Make run folders, enter those that are there, put new ones in their place, give them more steps, and note where they go on."""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from lethax import checkpoint, plugins, signals
from lethax.domains import Inputs, domain_of
from lethax.errors import RecipeError, RunError
from lethax.files import to_json, write_atomic
from lethax.learner import Learner
from lethax.lock import LOCK, RunInUse, RunLock
from lethax.recipe import Resolved, dump
from lethax.recipe.record import TOP
from lethax.recipe.resolve import resolve
from lethax.runs.folder import (
    ANEW,
    ASKED,
    CHECKPOINTS,
    ENVIRONMENT,
    INPUTS,
    LOGS,
    OURS,
    RECIPE,
    SCALED,
    SHOWN,
    Run,
    check_data,
    check_goes_on,
    check_newest,
    environment,
    half_replaced,
    is_model,
    metrics,
    open_run,
    reached,
    read_environment,
    timing,
    when,
)  # fmt: skip
from lethax.text import command_line, counted, shown

_log = logging.getLogger("lethax")
_POLL = 0.05  # seconds
# What the last bits of a run depend on beside its recipe and its data: the entries of environment.json by these names.
_BITS = ("lethax", "jax", "device", "processor", "instructions", "native_kernels", "xla_flags")


def create(recipe: Resolved, folder: Path) -> Run:
    """Make a new run folder. RunError if the folder holds a run already."""
    made = _made(recipe, folder)
    if made is None:
        raise RunError(f"{shown(folder)} holds a run already: go on with it, or choose another --out.")
    return made


def _made(recipe: Resolved, folder: Path) -> Run | None:
    """Make a new run folder. None if the folder holds a run already, which another process may just have made."""
    if (folder / RECIPE).exists():
        return None
    strange = _strange(folder)
    if strange:
        raise RunError(f"{shown(folder)} holds {shown(strange[0], 60)}, which is of no run: choose another --out.")
    if half := half_replaced(folder):
        raise RunError(f"{half}, or choose another --out.")
    if _learned(folder):
        raise RunError(
            f"{shown(folder)} holds checkpoints of a run whose recipe.toml is gone: put that file back, or choose another --out."
        )
    inputs = checked(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    while not (folder / RECIPE).exists():
        try:
            with RunLock(folder):
                return None if (folder / RECIPE).exists() else _write(recipe, inputs, folder)
        except RunInUse:  # by one that makes the run; it may go on to train it, and hold the lock for hours
            time.sleep(_POLL)
    return None


def _learned(folder: Path) -> bool:
    """Whether a folder holds anything that was learned: a state, or a best checkpoint, which is all that a trained model has."""
    return any(checkpoint.numbered(folder / CHECKPOINTS, kind) for kind in ("step", "best"))


def checked(recipe: Resolved) -> Inputs | None:
    """Check that data, method and net fit, before a folder is made or anything compiles. Returns what is known of the data."""
    domain = domain_of(recipe)
    inputs = domain.inputs(recipe)
    learner = domain.learner(recipe, inputs)
    if not isinstance(learner, Learner):  # of a plugin: those of the package are
        raise RecipeError(
            f"method '{recipe.method}' made a {type(learner).__name__}, which is no learner: its `make` has to return one."
        )
    jax.eval_shape(learner.init, jax.random.key(0))
    gates, fixed = learner.gate_names(), recipe.gate.fixed
    if fixed and len(fixed) != len(gates):
        expected = f"expected {len(gates)}, of {', '.join(gates)}" if gates else f"but {recipe.method} has none"
        raise RecipeError(f"gate.fixed has {counted(len(fixed), 'gate')}, {expected}.")
    return inputs


def _strange(folder: Path) -> list[str]:
    """The names in a folder that do not belong to a run."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{shown(folder)} is a file, but a run is a folder: choose another --out.")
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in there if path.name not in OURS and not path.name.endswith(".tmp"))


def _write(recipe: Resolved, inputs: Inputs | None, folder: Path) -> Run:
    """Write the files of a new run. The recipe comes last, because a folder with a recipe is a run."""
    added = plugins.used_by(recipe)
    write_atomic(folder / ENVIRONMENT, to_json({**environment(), **({"plugins": added} if added else {})}) + "\n")
    for name in (INPUTS, ASKED, *LOGS):  # of a run of another recipe, which had no state yet
        (folder / name).unlink(missing_ok=True)
    if inputs:
        write_atomic(folder / INPUTS, to_json(inputs.record()) + "\n")
    write_atomic(folder / RECIPE, dump(recipe))
    return Run(folder, recipe, inputs)


def enter(recipe: Resolved, folder: Path, advice: str = "choose another --out") -> Run:
    """Open the run of this recipe in this folder, or make it. RunError if the folder has a checkpoint of another recipe.

    A run of another recipe that has none yet, as after a trial that failed, is replaced. `advice`: what the error says to do.
    """
    if made := _made(recipe, folder):
        return made
    there = open_run(folder)
    if there.recipe == recipe:
        return there
    with RunLock(folder):
        if not _learned(folder):
            return _write(recipe, checked(recipe), folder)
    differing = _differing(there.recipe, recipe)
    changes = "; ".join(
        f"{name}: {shown(_value(there.recipe, name), 60)} there, {shown(_value(recipe, name), 60)} now"
        for name in differing[:SHOWN]
    )
    scaled = set(differing) <= SCALED and not is_model(there)
    if scaled and recipe.outer.steps > there.recipe.outer.steps:
        go_on = command_line("train", "--resume", folder, "--steps", recipe.outer.steps)
        advice = f"{advice}. To give it more steps: {go_on}"
    elif scaled:
        last = there.recipe.outer.steps
        words = ("evaluate", folder) if reached(there) == last else ("train", "--resume", folder)
        what = "it is finished; evaluate it" if words[0] == "evaluate" else "it has more steps than that; go on with it"
        advice = f"{what} by {command_line(*words)}, or {advice}"
    raise RunError(f"{shown(folder)} holds a run of another recipe ({changes}): {advice}.")


def _differing(there: Resolved, now: Resolved) -> list[str]:
    names = dict.fromkeys((*TOP, *there.used, *now.used))
    return [name for name in names if _value(there, name) != _value(now, name)]


def _value(recipe: Resolved, name: str) -> Any:
    if name in TOP:
        return getattr(recipe, name)
    return recipe.value(name) if name in recipe.used else "unused"


def replace(recipe: Resolved, folder: Path) -> Run:
    """Make a new run in place of an old one. RunError if that is in use, or the folder holds other files.

    The folder stays and is locked throughout, so that no other process makes a run in it meanwhile. What a kill left halfway is
    replaced too.
    """
    strange = _strange(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return create(recipe, folder)
    if strange or not ((folder / RECIPE).is_file() or half_replaced(folder)):
        why = f"it holds {shown(strange[0], 60)}, which is of no run" if strange else "it has no recipe.toml"
        raise RunError(f"{shown(folder)} is not replaced: {why}. Choose another --out, or move that away.")
    with RunLock(folder):
        inputs = checked(recipe)
        with signals.deferred():  # until the one run or the other is whole
            return _swap(recipe, inputs, folder)


def _swap(recipe: Resolved, inputs: Inputs | None, folder: Path) -> Run:
    """Move an old run aside, write a new one, and delete the old one, which is put back if the new one cannot be written."""
    aside = folder / f".{secrets.token_hex(4)}.tmp"
    old = [path.name for path in folder.iterdir() if path.name != LOCK]
    aside.mkdir()
    try:
        for name in sorted(old, key=lambda name: name != RECIPE):  # first of all it is no run any more
            os.rename(folder / name, aside / name)
        made = _write(recipe, inputs, folder)
    except BaseException:
        for name in {ENVIRONMENT, INPUTS}.difference(old):  # of the new run
            (folder / name).unlink(missing_ok=True)
        for path in sorted(aside.iterdir(), key=lambda path: path.name == RECIPE):
            os.replace(path, folder / path.name)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return made


def longer(run: Run, steps: int) -> Resolved:
    """The recipe of the run with more outer steps. RecipeError for fewer than it has."""
    before = run.recipe.outer.steps
    if steps < before:
        raise RecipeError(
            f"--steps is {steps}, but {shown(run.folder)} has {before} already: name more, or start another run with --out."
        )
    return run.recipe if steps == before else resolve(run.recipe.with_values(steps=steps))


def extend(run: Run, steps: int) -> Run:
    """The run with more outer steps.

    Its phases of first order and of the multi-step loss stay where they are; a cosine of the outer rate is that of the new total
    from the step on that the run has reached. environment.json keeps when this was done. RunError for a trained model.
    """
    before, recipe = run.recipe.outer.steps, longer(run, steps)
    if steps == before:
        return run
    with RunLock(run.folder):
        check_goes_on(run)
        check_data(run, ANEW)
        for read in (metrics, timing):  # what training would refuse is refused before the recipe is another
            read(run.folder)
        check_newest(run)
        known = read_environment(run.folder)
        told = {"from": before, "to": steps, "at": reached(run), **when()}
        write_atomic(
            run.folder / ENVIRONMENT, to_json({**known, "extended": [*known.get("extended", []), told]}) + "\n"
        )
        write_atomic(run.folder / RECIPE, dump(recipe))
    return run._replace(recipe=recipe)


def note_resumed(runs: Sequence[Run], step: int) -> None:
    """Say where runs go on in an environment that may change their last bits, and note it in environment.json as "resumed".

    A run that is still at step 0 begins in this environment. A damaged file is named and left as it is, and one that is
    missing is written again. RunError if the file cannot be written.
    """
    now = environment()
    said: dict[str, list[Path]] = {}
    for run in runs:
        try:
            known = read_environment(run.folder)
        except RunError as error:
            _log.warning("%s The run goes on, and what it goes on with is not noted.", error)
            continue
        if changed := _note_resumed(run, known, now, step):
            said.setdefault(changed, []).append(run.folder)
    for changed, folders in said.items():
        others = f", like {counted(len(folders) - 1, 'other run')}," if len(folders) > 1 else ""
        _log.warning(
            "%s%s goes on from step %s in another environment: %s. Its last bits may differ from those of an unbroken run.",
            shown(folders[0]), others, f"{step:,}", changed,
        )  # fmt: skip


def _note_resumed(run: Run, known: dict[str, Any], now: dict[str, Any], step: int) -> str:
    """Write what has changed, if anything has, and say it. Entries of steps that are done again are dropped."""
    kept = [entry for entry in known.get("resumed", []) if isinstance(at := entry.get("at"), int) and at < step]
    then = {name: value for entry in (known, *kept) for name, value in entry.items()}
    if not known:
        then = dict.fromkeys(_BITS, "unknown")
    changed = [name for name in _BITS if name in then and _bits(then[name]) != _bits(now[name])]
    news = {name: now[name] for name in changed}
    made = {name: value for name, value in known.items() if name != "resumed"}
    if not step:
        made |= news
    elif news:
        kept.append({"at": step, **news, **when()})
    made |= {"resumed": kept} if kept else {}
    if made != known:
        write_atomic(run.folder / ENVIRONMENT, to_json(made) + "\n")
    if not step:
        return ""
    return "; ".join(
        f"{name} {shown(then[name] or 'none', 60)} before, {shown(now[name] or 'none', 60)} now" for name in changed
    )


def _bits(value: Any) -> Any:
    """Kernels that were still to be built when the run began are built by now, and those declined are as good as none."""
    return {"to be built": "built", "declined": "none"}.get(str(value), value)
