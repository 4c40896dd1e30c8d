"""Predictions for pictures of classes that no run has seen: from two folders to a table, and one file that holds the model."""

import csv
import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures_run import SIDE, adapted_to, draw

import lethax
from lethax import checkpoint, cli
from lethax.data import loose
from lethax.errors import CheckpointError, DataError, DivergedError, RecipeError, RunError
from lethax.methods.fast import NormMode
from lethax.report.page import gather
from lethax.runs import adapted
from lethax.runs.folder import open_run


def predict(home: Path, *more: str) -> int:
    folders = ["--support", str(home / "support"), "--query", str(home / "query")]
    return cli.main(["predict", str(home / "run"), *folders, *more])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_two_folders_give_a_table(picture_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(picture_run, "--all", "-o", str(tmp_path / "p.csv")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "=owl (2), plain (3), é clair (4)" in said and "plain/broken.png: it is broken" in said
    assert "moments from the support pictures" in said
    table = rows(tmp_path / "p.csv")
    assert len(table) == 39
    for row in table:
        each = [float(row[name]) for name in ("=owl", "plain", "é clair")]
        assert abs(sum(each) - 1) < 1e-5 and abs(max(each) - float(row["probability"])) < 1e-6
        assert abs(sorted(each)[-1] - sorted(each)[-2] - float(row["margin"])) < 2e-6
        assert row["unsure"] == ("yes" if float(row["margin"]) < 0.1 else "no")


@pytest.mark.parametrize("norm", ["support", "support+1"])
def test_a_prediction_depends_on_no_other_picture(picture_run: Path, norm: NormMode) -> None:
    model, images = adapted_to(picture_run, norm)
    together = model.probabilities(images)  # 39 pictures: in more than one call
    for i in (0, 20, 38):
        np.testing.assert_array_equal(model.probabilities(images[i : i + 1])[0], together[i])
    assert np.ptp(together, axis=0).max() > 1e-3  # and pictures differ


def test_under_batch_they_do(picture_run: Path) -> None:
    model, images = adapted_to(picture_run, "batch")
    assert np.abs(model.probabilities(images[:1])[0] - model.probabilities(images[:5])[0]).max() > 1e-4
    turned = np.arange(len(images))[::-1]  # more than one call has without norms: still one batch, in any order
    np.testing.assert_allclose(model.probabilities(images[turned]), model.probabilities(images)[turned], atol=1e-5)


def test_outputs_that_are_no_numbers_are_no_predictions(picture_run: Path) -> None:
    model, images = adapted_to(picture_run, "support")
    lost = replace(model, members=jax.tree.map(lambda w: w * jnp.nan, model.members))
    with pytest.raises(DivergedError, match="of 2 predictions 2 are not numbers"):
        lost.probabilities(images[:2])


def test_probabilities_are_those_of_the_learner(picture_run: Path) -> None:
    """The same numbers by hand, with the learner of the library."""
    run = open_run(picture_run / "run")
    assert run.inputs is not None
    model, images = adapted_to(picture_run, "support+1")
    images, labels = images[:3], loose.labelled(picture_run / "support", run.inputs.example, lambda *_: None).labels
    learner, (meta,) = replace(run.learner(), norm="support+1"), lethax.best_metas(run, 1)[0]  # type: ignore[type-var]
    of_pixels = lambda x: (jnp.asarray(x) / 255.0 - jnp.array(run.inputs.mean)) / jnp.array(run.inputs.std)  # noqa: E731
    support = lethax.Split(of_pixels(model.support), jnp.asarray(labels))
    fast, _ = jax.jit(learner.adapt)(meta, support)
    by_hand = jax.nn.softmax(jax.jit(learner.predict)(fast, of_pixels(images)))
    np.testing.assert_allclose(model.probabilities(images), by_hand, atol=1e-4)


def test_a_saved_model_predicts_the_same_elsewhere(picture_run: Path, tmp_path: Path) -> None:
    """In another process, without the run, the data and the support folder."""
    first, second, file = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "model.safetensors"
    assert predict(picture_run, "--all", "-o", str(first), "--save", str(file)) == 0
    words = ["predict", "--model", str(file), "--query", str(picture_run / "query"), "--all", "-o", str(second)]
    done = subprocess.run([sys.executable, "-m", "lethax", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert first.read_bytes() == second.read_bytes()
    assert file.read_bytes()[8:9] == b"{"  # plain safetensors
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="checksum"):
        lethax.load_adapted(tmp_path / "damaged.safetensors")
    state = next((picture_run / "run" / "checkpoints").glob("step-*"))
    with pytest.raises(CheckpointError, match="no adapted model"):
        lethax.load_adapted(state)


def test_another_number_of_classes(picture_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "support", "one", 1, 2)
    draw(tmp_path / "support", "two", 2, 3)
    for head in ("trained", "zero", "prototypes"):
        words = ["--support", str(tmp_path / "support"), "--query", str(picture_run / "query"), "--head", head]
        out = tmp_path / f"{head}.csv"
        assert cli.main(["predict", str(picture_run / "run"), *words, "-o", str(out)]) == 0
        assert "was trained on 3 classes; for 2 its last layer starts" in " ".join(capsys.readouterr().out.split())
        assert {row["class"] for row in rows(out)} <= {"one", "two"}


def test_unsure() -> None:
    given = np.array([[0.5, 0.45, 0.05], [0.9, 0.05, 0.05]])
    assert adapted.unsure(given, 0.1).tolist() == [True, False] and not adapted.unsure(given, 0.0).any()


@pytest.mark.parametrize("words, said", [
    (["--query", "q"], "needs a run and labelled pictures"),
    (["RUN", "--support", "s"], "needs --query"),
    (["RUN", "--model", "m", "--query", "q"], "is adapted already"),
    (["RUN", "--support", "s", "--query", "q", "--unsure", "2"], "--unsure is 2"),
    (["RUN", "--support", "s", "--query", "q", "--ensemble", "0"], "--ensemble is 0"),
    (["--model", "m", "--query", "q", "--norm", "batch"], "is adapted already: leave --norm out"),
    (["RUN", "--support", "s", "--query", "q", "-o", "q/0.png"], "--out is q/0.png; its name has to end in .csv"),
    (["RUN", "--support", "s", "--query", "q", "--save", "p.csv"], "--save is p.csv; its name has to end in .safetensors"),
    (["RUN", "--support", "s", "--query", "q", "-o", "RUN/recipe.toml/a/p.csv"], "is a file, not a folder: name another"),
    (["RUN", "--support", "s", "--query", "q", "--save", "RUN/recipe.toml/m.safetensors"], "recipe.toml is a file, not a folder"),
])  # fmt: skip
def test_usage(words: list[str], said: str, picture_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("RUN", str(picture_run / "run")) for word in words]
    assert cli.main(["predict", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    draw(tmp_path / "one", "alone", 0, 2)
    with pytest.raises(DataError, match="1 class folder"):
        loose.labelled(tmp_path / "one", (SIDE, SIDE, 3), lambda *_: None)
    draw(tmp_path / "two", "a", 0, 1)
    (tmp_path / "two" / "b").mkdir()
    (tmp_path / "two" / "b" / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="class b .* no picture that can be read"):
        loose.labelled(tmp_path / "two", (SIDE, SIDE, 3), lambda *_: None)
    for split in ("train", "test"):
        draw(tmp_path / "splits", split, 0, 1)
    with pytest.raises(DataError, match="SPLIT/CLASS, or give the folder whose folders are the classes"):
        loose.labelled(tmp_path / "splits", (SIDE, SIDE, 3), lambda *_: None)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no picture that can be read;"):
        loose.pictures(tmp_path / "none", (SIDE, SIDE, 3), lambda *_: None)


def test_a_link_out_is_left_out_of_what_is_predicted_and_refused_as_a_class(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        draw(tmp_path / "one", folder, 0, 1)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "link.png").symlink_to(tmp_path / "one" / "a" / "0.png")
    with pytest.raises(DataError, match=r"no picture that can be read \(link.png: it is a link out of the folder\)"):
        loose.pictures(tmp_path / "two", (SIDE, SIDE, 3), lambda *_: None)
    (tmp_path / "two" / "a").symlink_to(tmp_path / "one" / "a")
    (tmp_path / "one" / "b").rename(tmp_path / "two" / "b")
    found = loose.pictures(tmp_path / "two", (SIDE, SIDE, 3), lambda *_: None)
    assert found.names == ["b/0.png"] and set(found.left_out) == {"a", "link.png"}
    (tmp_path / "one" / "b").symlink_to(tmp_path / "two" / "b")
    with pytest.raises(DataError, match="one/b is a link out of"):
        loose.labelled(tmp_path / "one", (SIDE, SIDE, 3), lambda *_: None)


def test_other_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "sinusoid --shot 3 --query 3 --steps 1 --epoch 1 --val-episodes 2".split()
    assert cli.main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    draw(tmp_path / "s", "a", 0, 1)
    draw(tmp_path / "s", "b", 1, 1)
    more = ["--support", str(tmp_path / "s"), "--query", str(tmp_path / "s")]
    assert cli.main(["predict", str(tmp_path / "run"), *more]) == 2
    assert "predict takes runs on pictures, and on features that lethax embed made" in " ".join(
        capsys.readouterr().err.split()
    )
    assert cli.main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "run.stablehlo")]) == 2
    assert (
        "export takes runs on pictures." in (said := " ".join(capsys.readouterr().err.split()))
        and "predict" not in said
    )


@pytest.mark.parametrize("change, said", [
    ({"example": [0, 16, 3]}, "its example is [0, 16, 3], expected sizes above 0"),
    ({"example": [-1, 16, 3]}, "its example is [-1"),
    ({"example": [16, 16, 7]}, "its mean and std are not 7 numbers each"), ({"example": []}, "its example is []"),
    ({"example": [100_000, 100_000, 3]}, "expected sizes above 0 of at most 268,435,456 numbers together"),
    ({"example": [16.5, 16, 3]}, "its example is [16.5"), ({"example": 5}, "it has not the data, sha256, example"),
    ({"mean": [0.5, 0.5]}, "its mean and std are not 3 numbers"),
    ({"mean": [float("inf"), 0.0, 0.0]}, "its mean and std are not 3"),
    ({"std": [1.0, 1.0, 0.0]}, "the latter above 0"), ({"std": [1.0, 1.0, -1.0]}, "the latter above 0"),
    ({"classes": [1]}, "a name of its classes is no text"), ({"sha256": 5}, "its sha256"), ({"sha256": None}, "its sha256 is null"),
])  # fmt: skip
def test_a_run_whose_inputs_were_edited_is_refused(
    change: dict[str, object], said: str, picture_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_bytes((picture_run / "run" / "recipe.toml").read_bytes())
    kept = json.loads((picture_run / "run" / "inputs.json").read_text())
    (tmp_path / "inputs.json").write_text(json.dumps({**kept, **change}))
    with pytest.raises(RunError, match="inputs.json does not say what the run was trained on: ") as caught:
        open_run(tmp_path)
    assert said in str(caught.value)


def test_inputs_of_another_kind_than_the_recipe_are_one_sentence(picture_run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes((picture_run / "run" / "recipe.toml").read_bytes())
    kept = json.loads((picture_run / "run" / "inputs.json").read_text())
    (tmp_path / "inputs.json").write_text(json.dumps({**kept, "example": [5], "mean": [], "std": []}))
    with pytest.raises(RecipeError, match="does not fit data 'own': it holds features"):
        open_run(tmp_path).learner()
    seven = {"example": [16, 16, 7], "mean": [0.5] * 7, "std": [1.0] * 7}  # as of a data set of one's own
    (tmp_path / "inputs.json").write_text(json.dumps({**kept, **seven}))
    with pytest.raises(RecipeError, match="predict takes runs on pictures"):
        adapted.check(open_run(tmp_path))


def test_names_that_are_not_utf8(picture_run: Path, tmp_path: Path) -> None:
    """They stand in the table as escapes: an encoding must not cost what was computed."""
    query = tmp_path / "query"
    query.mkdir()
    shutil.copy(picture_run / "query" / "plain" / "0.png", query / "bj\udcf6rk.png")
    words = ["--support", str(picture_run / "support"), "--query", str(query), "-o", str(tmp_path / "new" / "p.csv")]
    assert cli.main(["predict", str(picture_run / "run"), *words]) == 0
    assert rows(tmp_path / "new" / "p.csv")[0]["file"] == "bj\\udcf6rk.png"


def test_the_page_on_predict_shows_python_that_works(
    picture_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "predict.md").read_text(encoding="utf-8")
    code = textwrap.dedent(page.partition("The same in Python:\n\n")[2].partition("\n## ")[0])
    monkeypatch.chdir(tmp_path)
    model, _ = adapted_to(picture_run, "support")
    model.save("model.safetensors")
    (tmp_path / "more").symlink_to(picture_run / "query")
    exec(code, {})
    assert capsys.readouterr().out.count("{") == 39


@pytest.mark.parametrize("change, said", [
    ({"classes": ["a"]}, "its classes are not 3 different names"), ({"classes": ["a", "a", "b"]}, "are not 3 different"),
    ({"classes": [1, 2, 3]}, "are not 3 different"), ({"mean": "x"}, "is no adapted model"),
    ({"mean": [1.0]}, "its mean and std are not 3 numbers"),
    ({"std": [1.0, 0.0, 1.0]}, "its mean and std are not 3 numbers"),
    ({"example": [16, 17, 3]}, "which are no pictures"), ({"adapted": 7}, "its format is 7, expected 1"),
    ({"members": float("inf")}, "is no adapted model"),
])  # fmt: skip
def test_a_model_whose_info_was_edited_is_refused(
    change: dict[str, object], said: str, picture_run: Path, tmp_path: Path
) -> None:
    model, _ = adapted_to(picture_run, "support")
    model.save(tmp_path / "model.safetensors")
    like = {"members": list(model.members), "support": model.support}
    tree, info = checkpoint.load(tmp_path / "model.safetensors", like)
    for name, value in change.items():
        (info if name in info else info["inputs"])[name] = value
    checkpoint.save(tmp_path / "model.safetensors", tree, info)
    with pytest.raises(CheckpointError, match=said):
        lethax.load_adapted(tmp_path / "model.safetensors")


def test_evaluation_on_another_number_of_classes(
    picture_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record says what differs from training, and the run's own numbers stay in their file."""
    monkeypatch.setenv("LETHAX_DATA", str(picture_run / "data"))
    run = tmp_path / "run"
    shutil.copytree(picture_run / "run", run)
    words = ["evaluate", str(run), "--episodes", "2", "--split", "train", "--steps", "2"]
    assert cli.main([*words, "--way", "2", "--shot", "1", "--head", "prototypes", "--norm", "support"]) == 0
    assert "2-way 1-shot, 2 inner steps, head prototypes, norm support, seed 0" in " ".join(
        capsys.readouterr().out.split()
    )
    (path,) = (run / "evaluations").glob("*.json")
    assert path.name == "train-way_2-shot_1-head_prototypes-norm_support-seed0-n2-best1.json"
    record = json.loads(path.read_text())
    assert record["way"] == 2 and record["changed"] == {"way": 2, "shot": 1, "head": "prototypes", "norm": "support"}
    told = gather.evaluated(path, open_run(run))
    assert not told.own and told.data == "own, way 2, shot 1, head prototypes, norm support"
    assert cli.main([*words, "--way", "20"]) == 1 and "allows" in capsys.readouterr().err
