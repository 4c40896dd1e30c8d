"""The trained models that come with lethax: run folders without states, each with its recipe and what it was measured at.

A folder of one has recipe.toml, environment.json, inputs.json where its data were prepared, checkpoints/best-….safetensors, and
measured.json. The last one is the record of an evaluation without its single episodes.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lethax.errors import RunError, did_you_mean
from lethax.files import read_json, to_json, write_atomic
from lethax.runs.evaluation import Result
from lethax.runs.folder import CHECKPOINTS, ENVIRONMENT, INPUTS, RECIPE, Run, best_path, open_run
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


def models(folder: Path = FOLDER) -> list[Model]:
    """All trained models, by name."""
    found = []
    for path in sorted(folder.glob(f"*/{RECIPE}")):
        home = path.parent
        size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
        found.append(Model(home.name, open_run(home), read_json(home / MEASURED), size))
    return found


def get(name: str, out: Path, folder: Path = FOLDER) -> Run:
    """Copy a model to a run folder. RunError if there is no such model, or if something is at `out` already."""
    known = [model.name for model in models(folder)]
    if name not in known:
        raise RunError(
            f"no model is called '{shown(name, 60)}'.{did_you_mean(name, known)} Models: {', '.join(known)}."
        )
    if out.exists():
        raise RunError(f"{shown(out)} is there already: choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder / name, partial, ignore=shutil.ignore_patterns(MEASURED))
    partial.rename(out)
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
    made = {**read_json(run.folder / ENVIRONMENT), "command": command, "model": folder.name}
    write_atomic(folder / ENVIRONMENT, to_json(made) + "\n")
    write_atomic(folder / CHECKPOINTS / best.name, best.read_bytes())
    record = {name: value for name, value in judged.record.items() if name not in _LEFT_OUT}
    write_atomic(folder / MEASURED, to_json(record) + "\n")
    return folder
