"""Trained models that come with lethax: listed, copied, judged again to the same number, and those of the repository themselves."""

import json
import shutil
from pathlib import Path

import pytest

from lethax import cli
from lethax.runs import published
from lethax.runs.evaluation import evaluate_run
from lethax.runs.folder import open_run

ROOT = Path(__file__).parent.parent


@pytest.fixture
def shelf(picture_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one model."""
    monkeypatch.setenv("LETHAX_DATA", str(picture_run / "data"))
    monkeypatch.setattr(published, "FOLDER", tmp_path / "models")
    for function in (published.names, published.model, published.get):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "models",))
    run = open_run(picture_run / "run")
    judged = evaluate_run(run, episodes=3, ensemble=1, steps=2, seed=0)
    published.publish(run, judged, tmp_path / "models" / "tiny")
    return tmp_path / "models"


def test_a_model_is_listed_copied_and_judged_to_its_number(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["models", "list"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "tiny 3-way 2-shot accuracy " in listed and "lethax models get tiny" in listed
    assert cli.main(["models", "get", "tiny"]) == 0
    assert "lethax evaluate runs/tiny" in capsys.readouterr().out
    assert not list(Path("runs/tiny").rglob("step-*")) and not Path("runs/tiny/measured.json").exists()
    assert cli.main(["evaluate", "runs/tiny", "--episodes", "3", "--steps", "2", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    measured = json.loads((shelf / "tiny" / "measured.json").read_text())
    assert record["mean"] == measured["mean"] and record["episodes_hash"] == measured["episodes_hash"]
    assert cli.main(["models", "get", "tiny"]) == 1 and "is there already" in capsys.readouterr().err
    assert cli.main(["models", "get", "tinny", "--out", "x"]) == 1
    assert "Did you mean 'tiny'?" in " ".join(capsys.readouterr().err.split()) and not Path("x").exists()
    assert cli.main(["train", "--resume", "runs/tiny"]) == 1
    assert "without states, from which training cannot go on" in " ".join(capsys.readouterr().err.split())
    assert list(Path("runs/tiny").rglob("best-*"))


@pytest.mark.parametrize("content", ["{}", "[]", "words", '{"mean": "x", "ci95": 1, "n": 2}'])
def test_a_damaged_model_does_not_hide_the_others(
    content: str, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shelf / "tiny", shelf / "another")
    (shelf / "another" / "measured.json").write_text(content)
    assert cli.main(["models", "list"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "another is left out: " in said and "tiny 3-way 2-shot" in said
    assert cli.main(["models", "get", "tiny"]) == 0


def test_nothing_is_left_of_a_copy_that_fails(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("nowhere")
    assert cli.main(["models", "get", "tiny", "--out", "dangling"]) == 1
    assert "dangling is there already" in capsys.readouterr().err
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert cli.main(["models", "get", "tiny", "--out", "new/x"]) == 1
    assert not list(Path("new").iterdir()) and not list(Path().glob(".*"))
    shutil.copytree(shelf / "tiny", ".x.tmp")
    assert cli.main(["evaluate", "y"]) == 1
    assert ".x.tmp" not in capsys.readouterr().err


def test_no_models(tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(shelf)
    assert cli.main(["models", "list"]) == 1 and "no models came" in capsys.readouterr().err


def every_model() -> list[published.Model]:
    return [published.model(name, ROOT / "models") for name in published.names(ROOT / "models")]


def test_the_models_of_the_repository() -> None:
    """Each opens, says what it was measured at and by which command, and together they are small."""
    found = every_model()
    assert found and sum(model.size for model in found) < 5e6
    for model in found:
        assert model.measured["n"] >= 600 and model.measured["command"].startswith(f"lethax evaluate runs/{model.name}")
        assert model.measured["inner_steps"] == model.run.recipe.inner.steps
        assert "/" not in json.dumps(json.loads((model.run.folder / "environment.json").read_text())["device"])


def test_a_model_of_the_repository_gives_its_number_again() -> None:
    (model,) = (model for model in every_model() if model.name == "sinusoid-l2f")
    judged = evaluate_run(model.run, episodes=model.measured["n"], ensemble=1, steps=1, seed=0)
    assert judged.score.mean == pytest.approx(model.measured["mean"], rel=1e-3)


@pytest.mark.parametrize(
    "words", [["--resume", "run", "--steps", "999999"], ["sinusoid", "--method", "maml", "--out", "run"]]
)
def test_training_changes_nothing_of_a_model(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither its weights, of which it has no state on purpose, nor what its recipe says."""
    monkeypatch.chdir(tmp_path)
    published.get("sinusoid-l2f", Path("run"), ROOT / "models")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert cli.main(["train", *words]) == 1
    said = capsys.readouterr().err
    assert "is a trained model without states" in said or "holds a run of another recipe (method: l2f there" in said
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
