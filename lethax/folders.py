"""A run is a folder: recipe.toml, environment.json, inputs.json, metrics.jsonl, timing.jsonl, checkpoints/, evaluations/"""

import os
import platform
import secrets
import shlex
import shutil
import sys
import time
from dataclasses import fields
from dataclasses import replace as with_values
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lethax import __version__, checkpoint, toml
from lethax import recipe as recipes
from lethax.data.store import open_store
from lethax.errors import CheckpointError, RecipeError, RunError
from lethax.files import read_json, to_json, write_atomic
from lethax.lock import RunLock
from lethax.names import CONTROL, REGRESSION
from lethax.recipe import Recipe
from lethax.text import shown

LOGS = ("metrics.jsonl", "timing.jsonl")  # a line for every 100 steps and validation, and for every state
_OURS = {"recipe.toml", "environment.json", "inputs.json", *LOGS, "checkpoints", "evaluations", ".lock"}
_SCALED = {"steps", "first_order_steps", "multi_step_steps"}  # by the steps, unless given
_SHOWN = 10  # runs, or differences, that a message names


class Run(NamedTuple):
    """A run folder and its resolved recipe."""

    folder: Path
    recipe: Recipe


def create(recipe: Recipe, folder: Path) -> Run:
    """A new run folder; RunError where there is one already."""
    recipe = recipes.resolve(recipe)
    if (folder / "recipe.toml").exists():
        raise RunError(f"{shown(folder)} holds a run already: go on with it, or choose another --out.")
    strange = _strange(folder)
    if strange:
        raise RunError(f"{shown(folder)} holds {shown(strange[0], 60)}, which is of no run: choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    return _write(recipe, folder)


def _strange(folder: Path) -> list[str]:
    """What a folder holds that no run has."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{shown(folder)} is a file, but a run is a folder: choose another --out.")
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in there if path.name not in _OURS and not path.name.endswith(".tmp"))


def _write(recipe: Recipe, folder: Path) -> Run:
    """The recipe comes last: it makes a folder a run."""
    inputs = _inputs(recipe)
    write_atomic(folder / "environment.json", to_json(environment()) + "\n")
    if inputs:
        write_atomic(folder / "inputs.json", to_json(inputs) + "\n")
    else:
        (folder / "inputs.json").unlink(missing_ok=True)
    write_atomic(folder / "recipe.toml", toml.dump(recipe))
    return Run(folder, recipe)


def open_run(folder: Path, advice: str = "Name the one that you mean") -> Run:
    """An existing run; RunError where there is none, with the runs that are in the folder or near it.

    advice: what the error says to do where the folder holds runs.
    """
    if not (folder / "recipe.toml").is_file():
        raise RunError(_no_run(folder, advice))
    recipe = recipes.load(folder / "recipe.toml")
    return Run(folder, recipes.resolve(recipe))


def _no_run(folder: Path, advice: str) -> str:
    within = _runs_in(folder)
    near = within or _runs_in(folder.parent) or _runs_in(Path("runs"))
    if not near:
        return f"{shown(folder)} is not a run: it has no recipe.toml. Train one with: lethax train DATA"
    names = ", ".join(shown(path) for path in near[:_SHOWN]) + (" …" if near[_SHOWN:] else "")
    if within:
        return f"{shown(folder)} is not a run itself but holds {len(near)}: {names}. {advice}."
    return f"{shown(folder)} is not a run: it has no recipe.toml. Runs near it: {names}."


def _runs_in(folder: Path) -> list[Path]:
    """Run folders that are in a folder, or in its folders."""
    found = [path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/recipe.toml")]
    return sorted(found)


def enter(recipe: Recipe, folder: Path, advice: str = "choose another --out") -> Run:
    """The run of this recipe in this folder, new or begun; RunError where there is a state of another recipe.

    Another recipe that has not reached a state, as after a trial that failed, gives way. `advice`: what the error says to do.
    """
    recipe = recipes.resolve(recipe)
    if not (folder / "recipe.toml").exists():
        return create(recipe, folder)
    there = open_run(folder)
    if there.recipe == recipe:
        return there
    with RunLock(folder):
        if not reached(there):
            return _write(recipe, folder)
    differing = _differing(there.recipe, recipe)
    changes = "; ".join(
        f"{name}: {shown(getattr(there.recipe, name), 60)} there, {shown(getattr(recipe, name), 60)} now"
        for name in differing[:_SHOWN]
    )
    if set(differing) <= _SCALED and (recipe.steps or 0) > (there.recipe.steps or 0):
        go_on = shlex.join(["lethax", "train", "--resume", str(folder), "--steps", str(recipe.steps)])
        advice = f"{advice}. To give it more steps: {go_on}"
    raise RunError(f"{shown(folder)} holds a run of another recipe ({changes}): {advice}.")


def _differing(there: Recipe, now: Recipe) -> list[str]:
    return [f.name for f in fields(Recipe) if getattr(there, f.name) != getattr(now, f.name)]


def replace(recipe: Recipe, folder: Path) -> Run:
    """A new run in place of what the folder holds; RunError where that is in use, or holds anything that no run has."""
    folder = folder.resolve() if folder.is_symlink() else folder
    strange = _strange(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return create(recipe, folder)
    if strange or not (folder / "recipe.toml").is_file():
        why = f"it holds {shown(strange[0], 60)}, which is of no run" if strange else "it has no recipe.toml"
        raise RunError(f"{shown(folder)} is not replaced: {why}. Choose another --out, or move that away.")
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    with RunLock(folder):
        os.rename(folder, aside)
        try:
            made = create(recipe, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(aside, folder)
            raise
    shutil.rmtree(aside, ignore_errors=True)
    return made


def extend(run: Run, steps: int) -> Run:
    """The run with more outer steps.

    Its phases of first order and of the multi-step loss stay where they are; a cosine of the outer rate is that of the new total
    from the step on that the run has reached. environment.json keeps when this was done.
    """
    before = run.recipe.steps or 0
    if steps < before:
        raise RecipeError(
            f"--steps is {steps}, but {shown(run.folder)} has {before} already: name more, or start another run with --out."
        )
    if steps == before:
        return run
    recipe = recipes.resolve(with_values(run.recipe, steps=steps))
    with RunLock(run.folder):
        path = run.folder / "environment.json"
        known = read_json(path) if path.is_file() else {}
        told = {"from": before, "to": steps, "at": reached(run), **_when()}
        write_atomic(path, to_json({**known, "extended": [*known.get("extended", []), told]}) + "\n")
        write_atomic(run.folder / "recipe.toml", toml.dump(recipe))
    return Run(run.folder, recipe)


def checkpoints(run: Run) -> Path:
    """The folder of its checkpoints, which may not exist yet."""
    return run.folder / "checkpoints"


def best_path(run: Run, step: int) -> Path:
    """The file of the meta-parameters of one of the best validations."""
    return checkpoint.path_of(checkpoints(run), "best", step)


def reached(run: Run) -> int:
    """The outer step of its newest state, 0 where there is none; the state is not read."""
    return max(checkpoint.numbered(checkpoints(run), "step"), default=0)


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


def _inputs(recipe: Recipe) -> dict[str, Any] | None:
    """What a run is trained on, of prepared data: enough to know it again, and to prepare a new example as those were."""
    if recipe.data in (*REGRESSION, *CONTROL):
        return None
    store = open_store(recipe.data)
    split = next(iter(store.splits.values()))
    return {
        "data": recipe.data, "sha256": store.identity, "example": list(split.images.shape[1:]),
        "mean": list(store.mean), "std": list(store.std),
        "classes": list(store.splits["train"].classes) if "train" in store.splits else [],
    }  # fmt: skip


def trained_on(run: Run) -> str | None:
    """`Store.identity` of the data that the run began with; None for tasks that are made, and for runs of older versions."""
    path = run.folder / "inputs.json"
    if not path.is_file():
        return None
    inputs = read_json(path)
    known = inputs.get("sha256") if isinstance(inputs, dict) else None
    if not isinstance(known, str):
        raise RunError(f"{shown(path)} has no SHA-256 of the data: restore or delete it.")
    return known


def check_data(run: Run, advice: str) -> None:
    """RunError if the run's data were prepared again in another way: its test classes may be those it was trained on."""
    known = trained_on(run)
    if known is None:
        return
    found = open_store(run.recipe.data).identity
    if found != known:
        raise RunError(
            f"data set {run.recipe.data} is not the one that {shown(run.folder)} was trained on: its SHA-256 is {found[:12]}…, the "
            f"run's {known[:12]}…, so classes to test on may be classes trained on. Prepare it as it was, or {advice}."
        )


def environment() -> dict[str, Any]:
    """What a run, or an evaluation, was made with."""
    return {
        "lethax": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}",
        "machine": platform.machine(),
        **_when(),
    }


def _when() -> dict[str, str]:
    return {
        "command": shlex.join(["lethax", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
