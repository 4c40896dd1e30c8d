"""The trained models that come with lethax: run folders without states, each with its recipe and what it was measured at.

A folder of one has recipe.toml, environment.json, inputs.json where its data were prepared, checkpoints/best-….safetensors, and
measured.json. The last one is the record of an evaluation without its single episodes.
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lethax.errors import RunError, did_you_mean
from lethax.files import read_json, to_json, write_atomic
from lethax.runs.evaluation import Result
from lethax.runs.folder import CHECKPOINTS, ENVIRONMENT, INPUTS, RECIPE, Run, best_path, open_run, read_environment
from lethax.text import shown

_PACKAGE = Path(__file__).parent.parent
# In the package where it is installed, at the top of the sources where it is not.
FOLDER = next((f for f in (_PACKAGE / "models", _PACKAGE.parent / "models") if f.is_dir()), _PACKAGE / "models")
MEASURED = "measured.json"
_LEFT_OUT = ("per_episode", "nearest_prototype", "gates")  # of a record, what is long


class Model(NamedTuple):
    """A trained model: the name and folder, its run, the record of its evaluation, and the size in bytes."""

    name: str
    run: Run
    measured: dict[str, Any]
    size: int


def names(folder: Path = FOLDER) -> list[str]:
    """The names of all trained models."""
    return sorted(path.parent.name for path in folder.glob(f"*/{RECIPE}"))


def model(name: str, folder: Path = FOLDER) -> Model:
    """Open a trained model. RunError if it is damaged."""
    home = folder / name
    measured = read_json(home / MEASURED)
    known = measured if isinstance(measured, dict) else {}
    numbers = all(type(known.get(key)) in (int, float) for key in ("mean", "ci95", "n"))
    if not numbers or not isinstance(known.get("score"), str):
        raise RunError(f"{shown(home / MEASURED)} does not say what the model was measured at: install lethax again.")
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    return Model(name, open_run(home), known, size)


def get(name: str, out: Path, folder: Path = FOLDER) -> Run:
    """Copy a model to a run folder. RunError if there is no such model, or if something is at `out` already."""
    known = names(folder)
    if name not in known:
        raise RunError(
            f"no model is called '{shown(name, 60)}'.{did_you_mean(name, known)} Models: {', '.join(known)}."
        )
    if os.path.lexists(out):  # a dead link too
        raise RunError(f"{shown(out)} is there already: choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        shutil.copytree(folder / name, partial, ignore=shutil.ignore_patterns(MEASURED))
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # gone after the rename; left by a failure
    return open_run(out)


def publish(run: Run, judged: Result, folder: Path) -> Path:
    """Write the model of a run whose best checkpoint was judged; for those who maintain the models."""
    (step,) = judged.record["checkpoints"]
    best = best_path(run, step)
    folder.joinpath(CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    for name in (RECIPE, INPUTS):
        if (run.folder / name).is_file():
            write_atomic(folder / name, (run.folder / name).read_bytes())
    command = f"lethax train --recipe models/{folder.name}/{RECIPE}"
    made = {**read_environment(run.folder), "command": command, "model": folder.name}
    write_atomic(folder / ENVIRONMENT, to_json(made) + "\n")
    write_atomic(folder / CHECKPOINTS / best.name, best.read_bytes())
    record = {name: value for name, value in judged.record.items() if name not in _LEFT_OUT}
    write_atomic(folder / MEASURED, to_json(record) + "\n")
    return folder
