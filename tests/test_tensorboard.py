"""Event files for TensorBoard: all that a run has logged, each point once, also after a resume."""

import sys
import warnings
from collections.abc import Iterator

import pytest

from lethax import cli
from lethax.files import append_line, to_json
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.runs import folder as folders
from lethax.runs import making, tensorboard
from lethax.runs.training import Status


@pytest.fixture
def run(tmp_path):
    return making.create(resolve(Recipe.of(data="sinusoid", method="l2f", filters=4, depth=1)), tmp_path / "run")


def training(run: folders.Run, steps: Iterator[int]) -> Iterator[Status]:
    """What training yields and writes, without its hours."""
    for step in steps:
        line = {"step": step, "loss": step / 8, "gates": [0.25, 0.5, 0.75, 1.0]} if step % 100 == 0 else None
        if line:
            append_line(run.folder / folders.METRICS, to_json(line, None))
        yield Status(step, 400, line, 0)


def points(run: folders.Run) -> dict[str, list[tuple[int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorBoard's own imports
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run.folder / folders.TENSORBOARD).iterdir()):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_a_resumed_run_has_every_point_once(run):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    assert [s.step for s in tensorboard.mirrored(run, training(run, (50, 100, 150, 200)))] == [50, 100, 150, 200]
    assert points(run)["loss"] == [(100, 12.5), (200, 25.0)]
    list(tensorboard.mirrored(run, training(run, (250, 300))))
    seen = points(run)
    assert seen["loss"] == [(100, 12.5), (200, 25.0), (300, 37.5)]
    assert set(seen) == {"loss", *(f"gates/{name}" for name in run.learner().gate_names())}
    list(tensorboard.mirrored(run, training(run, ())))  # finished before
    assert points(run) == seen


def test_an_interrupted_training_is_closed(run):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    statuses = tensorboard.mirrored(run, training(run, (100, 200)))
    next(statuses)
    statuses.close()
    assert points(run)["loss"] == [(100, 12.5)]


def test_tags_name_every_number():
    line = {"step": 3, "loss": None, "kl": [0.5, 1.5], "gates": [0.1, 0.2], "val_score": 2}
    tags = dict(tensorboard.scalars(line, ["a", "b"]))
    assert tags.pop("loss") != tags.get("loss")  # NaN: the loss was not finite
    assert tags == {"kl/0": 0.5, "kl/1": 1.5, "gates/a": 0.1, "gates/b": 0.2, "val_score": 2.0}
    assert ("gates/0", 0.1) in tensorboard.scalars({"step": 3, "gates": [0.1]}, ["a", "b"])


def test_what_is_missing_is_said_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "sinusoid", "--tensorboard"]) == 1
    assert 'pip install "lethax[tensorboard]"' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_overwritten_run_may_have_event_files(run):
    (run.folder / folders.TENSORBOARD).mkdir()
    assert making.replace(run.recipe, run.folder).folder == run.folder
