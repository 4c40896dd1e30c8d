"""Run folders as the commands of training and evaluation meet them: in this process, on small sinusoids."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lethax import checkpoint, cli, native, signals, streams
from lethax.data.embeddings import write_features
from lethax.data.feature_files import split_of
from lethax.data.store import open_store
from lethax.domains import supervised
from lethax.errors import CheckpointError, DataError, RunError
from lethax.evaluation import Trial, evaluate
from lethax.files import read_lines
from lethax.lock import RunLock
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.report import table_rows
from lethax.report.page.gather import gather
from lethax.runs import evaluation as runs
from lethax.runs import folder as folders
from lethax.runs import making, probes, recorder, training

TINY = Recipe.of(method="l2f", shot=2, query=2, filters=4, steps=4, epoch=2, val_episodes=3)
OPTIONS = "sinusoid --method l2f --shot 2 --query 2 --filters 4 --steps 4 --epoch 2 --val-episodes 3".split()
JUDGE = ("--episodes", "3", "--steps", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that no test may change."""
    run = making.create(resolve(TINY), tmp_path_factory.mktemp("whole") / "run")
    list(training.train(run))
    return run


@pytest.fixture
def trained(whole, tmp_path):
    """A finished run of the test's own."""
    shutil.copytree(whole.folder, tmp_path / "run")
    return folders.open_run(tmp_path / "run")


def test_evaluation_is_shown_before_it_is_written(trained, capsys, monkeypatch):
    def full(result):
        raise RunError("the disk is full.")

    monkeypatch.setattr(runs, "write_evaluation", full)
    assert cli.main(["evaluate", str(trained.folder), *JUDGE]) == 1
    out, err = capsys.readouterr()
    assert "mse on 3 test episodes" in out and "lethax: the disk is full." in err
    assert cli.main(["evaluate", str(trained.folder), *JUDGE, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["n"] == 3


def test_an_evaluation_is_of_the_weights_that_were_judged(trained, whole):
    """Not of those of a run that took their place, with the same steps."""
    judged = runs.evaluate_run(trained, episodes=3, ensemble=1, steps=2, seed=0)
    runs.write_evaluation(judged)
    assert runs.judged_before(trained, judged.path, 1, 2) == judged.record
    assert runs.judged_before(whole, judged.path, 1, 2) == judged.record
    best = folders.best_path(trained, judged.record["checkpoints"][0])
    checkpoint.save(best, checkpoint._read(best)[0], {})
    assert runs.judged_before(trained, judged.path, 1, 2) is None
    with pytest.raises(RunError, match="was trained anew by another process meanwhile"):
        runs.write_evaluation(judged)
    earlier = {
        name: value for name, value in judged.record.items() if name != "weights_sha256"
    }  # of an earlier version
    judged.path.write_text(json.dumps(earlier))
    assert runs.judged_before(trained, judged.path, 1, 2) == earlier
    making.replace(resolve(TINY.with_values(seed=1)), trained.folder)
    with pytest.raises(RunError, match="was given another recipe by another process"):
        runs.write_evaluation(judged)
    assert not judged.path.exists()


def test_a_checkpoint_of_another_run_is_not_judged(trained, tmp_path):
    other = making.create(resolve(TINY.with_values(seed=1)), tmp_path / "other")
    list(training.train(other))
    for path in (other.folder / "checkpoints").glob("best-*"):
        shutil.copy(path, trained.folder / "checkpoints")
    with pytest.raises(CheckpointError, match="is of another run: its validation score is .* put the right file back"):
        runs.best_metas(trained, 1)


def test_gates_of_an_ensemble_are_means_over_its_checkpoints(trained):
    learner, family = trained.learner(), trained.domain.family(trained.recipe, "test")
    how, key = Trial(supervised.shape_of(trained.recipe, "test"), 3, 1, together=3), streams.test_key(0)
    metas, _ = runs.best_metas(trained, 2)
    first, second, both = (
        np.concatenate([seen["gates"] for _, seen in evaluate(learner, some, *family, how, key)])
        for some in (metas[:1], metas[1:], metas)
    )
    assert (first != second).any()
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5)


def test_evaluation_of_no_inner_steps(tmp_path, capsys):
    assert cli.main(["train", *OPTIONS, "--inner-steps", "0", "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["evaluate", str(tmp_path / "run"), "--episodes", "3", "--steps", "0"]) == 0
    assert "step 0" in capsys.readouterr().out


def train(*args):
    return cli.main(["train", *map(str, args)])


def test_the_same_command_goes_on_and_says_when_it_is_finished(trained, capsys):
    assert train(*OPTIONS, "--out", trained.folder) == 0
    out = capsys.readouterr().out
    assert "(finished)" in out and "It was finished before." in out and "--steps N" in out and "done:" not in out
    newest = checkpoint.path_of(folders.checkpoints(trained), "step", 4)
    content = newest.read_bytes()
    newest.unlink()
    assert train(*OPTIONS, "--out", trained.folder) == 0
    assert newest.read_bytes() == content and "finished before" not in capsys.readouterr().out


def test_another_recipe_says_what_differs(trained, capsys):
    before = tree(trained.folder)
    assert train(*OPTIONS, "--seed", "7", "--out", trained.folder) == 1
    err = capsys.readouterr().err
    assert "seed: 0 there, 7 now" in err and "--overwrite" in err and "another --out" in err
    assert train(*OPTIONS, "--steps", "6", "--out", trained.folder) == 1
    assert f"lethax train --resume {trained.folder} --steps 6" in capsys.readouterr().err
    assert tree(trained.folder) == before


def test_an_advised_command_looks_for_the_data_where_this_one_did(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LETHAX_DATA", "")  # which --root sets
    run = making.create(resolve(TINY), tmp_path / "run")
    for words in (["--root", str(tmp_path)], []):
        assert cli.main(["evaluate", str(run.folder), *words]) == 1
        again = " ".join(["lethax train --resume", str(run.folder), *words])
        assert f"train it with {again}." in capsys.readouterr().err


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_folder_without_a_state_does_not_block(tmp_path):
    folder = tmp_path / "run"
    making.create(resolve(TINY.with_values(seed=7)), folder)
    (folder / "metrics.jsonl").write_text('{"step": 100, "loss": 3.0}\n')
    probes.ask(folders.open_run(folder), ["landscape"], 1)
    run = making.enter(resolve(TINY), folder)
    assert run == folders.open_run(folder) and run.recipe.seed == 0
    list(training.train(run))
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == [2, 4]
    assert probes.asked(run) is None and not (folder / "probes.jsonl").exists()
    making.create(resolve(TINY.with_values(seed=7)), tmp_path / "begun")
    with RunLock(tmp_path / "begun"), pytest.raises(RunError, match="in use by process"):
        making.enter(resolve(TINY), tmp_path / "begun")


def test_a_run_that_another_makes_and_trains_is_opened_while_it_trains(tmp_path):
    """The lock of making is followed by that of training, which may be held for hours."""
    made = making.create(resolve(TINY), tmp_path / "made")
    folder = tmp_path / "run"
    folder.mkdir()
    with RunLock(folder), ThreadPoolExecutor(1) as pool:
        opened = pool.submit(making.enter, resolve(TINY), folder)
        time.sleep(4 * making._POLL)
        assert not opened.done()
        for path in made.folder.iterdir():
            shutil.copy(path, folder)
        assert opened.result(timeout=30).folder == folder


def test_overwrite_replaces_a_run_and_nothing_else(trained, whole, capsys):
    fewer = [*OPTIONS, "--seed", "7", "--steps", "2", "--overwrite", "--out", trained.folder]
    with RunLock(trained.folder):
        assert train(*fewer) == 1 and "in use by process" in capsys.readouterr().err
    (trained.folder / "notes.txt").touch()
    assert train(*fewer) == 1 and "it holds notes.txt, which is of no run" in capsys.readouterr().err
    assert not tree(whole.folder).keys() ^ {
        whole.folder / p.relative_to(trained.folder) for p in tree(trained.folder)
    } - {whole.folder / "notes.txt"}
    (trained.folder / "notes.txt").unlink()
    assert train(*fewer) == 0
    assert folders.open_run(trained.folder).recipe.seed == 7 and folders.reached(trained) == 2
    assert [path.name for path in trained.folder.parent.iterdir()] == ["run"]


def test_overwrite_that_fails_puts_the_run_back(trained, monkeypatch):
    def full(path, content):
        if path.name == "recipe.toml":
            raise RunError("the disk is full.")
        path.write_text(content)

    (trained.folder / "environment.json").unlink()
    before = tree(trained.folder)
    monkeypatch.setattr(making, "write_atomic", full)
    with pytest.raises(RunError, match="full"):
        making.replace(resolve(TINY.with_values(seed=7)), trained.folder)
    assert tree(trained.folder) == before and {path.name for path in trained.folder.iterdir()} <= folders.OURS


def test_a_signal_waits_until_a_run_is_replaced(trained, monkeypatch):
    def interrupted(*args):
        signals._take(2)
        return write(*args)

    write = making._write
    monkeypatch.setattr(signals, "leave", lambda number: pytest.fail("it left the run half replaced"))
    monkeypatch.setattr(signals._Now, "asked", 0)
    monkeypatch.setattr(making, "_write", interrupted)
    with pytest.raises(signals.Interrupted):
        making.replace(resolve(TINY.with_values(seed=7)), trained.folder)
    assert folders.open_run(trained.folder).recipe.seed == 7
    assert {path.name for path in trained.folder.iterdir()} == {"environment.json", "recipe.toml"}


@pytest.mark.parametrize(
    "moved", [["recipe.toml"], ["recipe.toml", "checkpoints", "environment.json", "metrics.jsonl"]]
)
def test_a_run_that_is_half_replaced_is_found_and_may_be_replaced(moved, trained, capsys):
    """As after a kill in the midst of it."""
    aside = trained.folder / ".0123abcd.tmp"
    aside.mkdir()
    for name in moved:
        (trained.folder / name).rename(aside / name)
    again = [*OPTIONS, "--seed", "7", "--steps", "2", "--out", trained.folder]
    for words in (again, ["--resume", trained.folder]):
        assert train(*words) == 1
        assert f"is half replaced: unless a command is about it, move all of {aside} back" in capsys.readouterr().err
    assert train(*again, "--overwrite") == 0 and not aside.exists()
    assert folders.open_run(trained.folder).recipe.seed == 7 and folders.reached(trained) == 2


def test_nobody_else_makes_a_run_where_one_is_replaced(trained, monkeypatch):
    """While the new run is checked, which may take seconds; and the folder may be the one that the command is in."""
    checked, tried = making.checked, []

    def slowly(recipe):
        tried.append(recipe.seed)
        if recipe.seed == 7:
            with pytest.raises(RunError, match="holds a run already"):
                making.create(resolve(TINY.with_values(seed=8)), trained.folder)
        return checked(recipe)

    monkeypatch.setattr(making, "checked", slowly)
    monkeypatch.chdir(trained.folder)
    making.replace(resolve(TINY.with_values(seed=7)), Path("."))
    assert tried == [7] and folders.open_run(trained.folder).recipe.seed == 7
    assert {path.name for path in trained.folder.iterdir()} == {"environment.json", "recipe.toml"}


def test_overwrite_refuses_a_folder_that_is_no_run(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text('data = "sinusoid"\n')
    (tmp_path / "thesis.tex").touch()
    assert train(*OPTIONS, "--overwrite", "--out", tmp_path) == 1
    assert "thesis.tex" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", ['"x"', '{"extended": 5}', '{"extended": ["x"]}', '{"resumed": {}}', "[]", "{"])
def test_more_steps_for_a_run_whose_environment_was_edited(content, trained, capsys):
    (trained.folder / "environment.json").write_text(content)
    assert train("--resume", trained.folder, "--steps", 7) == 1
    err = capsys.readouterr().err
    assert "environment.json" in err and "restore or delete it" in err and err.count("\n") == 1
    assert folders.open_run(trained.folder).recipe.outer.steps == 4


@pytest.mark.parametrize("log", ["metrics.jsonl", "timing.jsonl"])
def test_more_steps_that_are_refused_leave_the_run_as_it_was(log, trained, capsys):
    (trained.folder / log).write_text("[1, 2]\n" + (trained.folder / log).read_text())
    recipe, environment = (trained.folder / "recipe.toml", trained.folder / "environment.json")
    before = recipe.read_bytes(), environment.read_bytes()
    assert train("--resume", trained.folder, "--steps", 7) == 1 and log in capsys.readouterr().err
    assert (recipe.read_bytes(), environment.read_bytes()) == before


def test_more_steps_for_a_finished_run(trained, whole, capsys):
    """Under a constant rate it ends as a run that was given them at once; its calls end where that one's do."""
    assert train("--resume", trained.folder, "--steps", 3) == 2
    assert "has 4 already" in capsys.readouterr().err
    assert train("--resume", trained.folder, "--steps", 7) == 0
    extended = folders.open_run(trained.folder)
    assert extended.recipe == resolve(trained.recipe.with_values(steps=7)) and folders.reached(extended) == 7
    told = json.loads((trained.folder / "environment.json").read_text())["extended"]
    assert [(entry["from"], entry["to"], entry["at"]) for entry in told] == [(4, 7, 4)]
    assert [line["step"] for line in read_lines(trained.folder / "metrics.jsonl")] == [2, 4, 6, 7]
    at_once = making.create(resolve(trained.recipe.with_values(steps=7)), trained.folder.with_name("at-once"))
    list(training.train(at_once))
    for name in ("metrics.jsonl", "checkpoints/step-00000007.safetensors"):
        assert (at_once.folder / name).read_bytes() == (trained.folder / name).read_bytes()
    assert train("--resume", trained.folder, "--seed", 3) == 2


def test_a_run_that_goes_on_elsewhere_says_so_and_keeps_it(whole, tmp_path, caplog, monkeypatch):
    """With the step of each change. Nothing is said where nothing changed that could change the bits."""
    monkeypatch.setattr(native, "state", lambda: "built")
    shutil.copytree(whole.folder, tmp_path / "run")
    told = tmp_path / "run" / "environment.json"

    def go_on(at=2, **environment):
        told.write_text(json.dumps(json.loads(told.read_text()) | environment))
        for path in (tmp_path / "run" / "checkpoints").iterdir():
            if int(path.stem.partition("-")[2]) > at:
                path.unlink()
        caplog.clear()
        list(training.train(folders.open_run(tmp_path / "run")))
        final = [folder / "checkpoints" / "step-00000004.safetensors" for folder in (tmp_path / "run", whole.folder)]
        assert final[0].read_bytes() == final[1].read_bytes()
        return json.loads(told.read_text()).get("resumed")

    assert go_on(native_kernels="built") is None and go_on(native_kernels="to be built", numpy="1.0") is None
    assert not caplog.messages
    (entry,) = go_on(processor="Abacus", native_kernels="declined", xla_flags="")
    now = folders.environment()
    assert (entry["at"], entry["processor"], entry["native_kernels"]) == (2, now["processor"], "built")
    (said,) = caplog.messages
    assert f"goes on from step 2 in another environment: processor Abacus before, {now['processor']} now; " in said
    assert "native_kernels declined before, built now; xla_flags none before, " in said
    list(training.train(folders.open_run(tmp_path / "run")))  # it is finished, so nothing goes on
    # What was noted of steps that are done again is forgotten, and so is all of it where the run begins anew.
    assert go_on(resumed=[{"at": 1, "jax": "0.1"}, {"at": 2, "jax": "0.2"}])[0] == {"at": 1, "jax": "0.1"}
    assert "jax 0.1 before" in caplog.text and len(json.loads(told.read_text())["resumed"]) == 2
    assert go_on(0, jax="0.1") is None and not caplog.messages
    assert json.loads(told.read_text())["jax"] == now["jax"]
    told.write_text("{")
    (tmp_path / "run" / "checkpoints" / "step-00000004.safetensors").unlink()
    caplog.clear()
    list(training.train(folders.open_run(tmp_path / "run")))  # damaged: training does not need it
    assert "restore or delete it. The run goes on, and what it goes on with is not noted." in caplog.text
    assert told.read_text() == "{"
    told.unlink()
    (tmp_path / "run" / "checkpoints" / "step-00000004.safetensors").unlink()
    list(training.train(folders.open_run(tmp_path / "run")))
    assert "goes on from step 2 in another environment: lethax unknown before, " in caplog.text
    assert json.loads(told.read_text())["resumed"][0]["processor"] == now["processor"]
    assert signals.sentence(2).startswith("lethax: interrupted; what is done is kept")


def test_runs_that_go_on_together_elsewhere_say_it_once(whole, tmp_path, caplog):
    for name in ("one", "two", "three"):
        shutil.copytree(whole.folder, tmp_path / name)
        told = tmp_path / name / "environment.json"
        told.write_text(json.dumps(json.loads(told.read_text()) | {"jax": ["0.1"]}))
    making.note_resumed([folders.open_run(tmp_path / name) for name in ("one", "two", "three")], 2)
    (said,) = caplog.messages
    assert (
        f"{tmp_path / 'one'}, like 2 other runs, goes on from step 2 in another environment: jax ['0.1'] before, "
        in said
    )
    assert all(len(folders.read_environment(tmp_path / name)["resumed"]) == 1 for name in ("one", "two", "three"))


def test_files_of_other_names_are_left_alone(trained):
    copies = [folders.checkpoints(trained) / f"{name}.safetensors" for name in ("best-mine", "step-00000004-copy")]
    for path in copies:
        path.write_bytes(b"mine")
    folders.best_path(trained, 4).unlink()
    checkpoint.path_of(folders.checkpoints(trained), "step", 4).unlink()
    list(training.train(trained))
    assert all(path.read_bytes() == b"mine" for path in copies) and folders.reached(trained) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"best": None}, {"best": [[1.0]]}, {"best": [["a", 2]]}, {"best": [[0.5, 2.5]]}, {"best": {}}, {"window": None},
        {"window": {"count": "3"}}, {"window": {"other": 3}}, {"window": {"sums": {"loss": "x"}}}, {"window": {"sums": [1]}},
        {"window": {"sums": {"mine": 1.0}}},
    ],
)  # fmt: skip
def test_states_with_odd_info_are_one_sentence(trained, change, capsys):
    """Their checksum is right: other software wrote them."""
    path = checkpoint.path_of(folders.checkpoints(trained), "step", 4)
    arrays, info = checkpoint._read(path)
    checkpoint.save(path, arrays, {key: value for key, value in {**info, **change}.items() if value is not None})
    assert train("--resume", trained.folder) == 1
    assert f"{path} is no state of training" in capsys.readouterr().err
    if "best" in change:
        assert cli.main(["evaluate", str(trained.folder), *JUDGE]) == 1
        assert f"{path} is no state of training" in capsys.readouterr().err


def test_logs_are_repaired_where_a_run_goes_on(trained):
    """Lines after the state's step, and a torn one, are dropped from each of them."""
    for name in (folders.METRICS, folders.TIMING):
        with (trained.folder / name).open("a") as file:
            file.write('{"step": 6, "loss": 1.0, "seconds": 1.0}\n{"step": 8, "lo')
    checkpoint.path_of(folders.checkpoints(trained), "step", 4).unlink()
    list(training.train(trained))
    for name in (folders.METRICS, folders.TIMING):
        assert [line["step"] for line in read_lines(trained.folder / name)] == [2, 4]


@pytest.mark.parametrize("more", ["", ', "seconds": "1"', ', "seconds": 1, "probes": null'])
def test_a_time_that_is_no_number_is_one_sentence(more, trained):
    with (trained.folder / folders.TIMING).open("a") as file:
        file.write(f'{{"step": 6{more}}}\n')
    with pytest.raises(RunError, match="does not say in numbers how many seconds step 6 took: delete that line."):
        table_rows.progress(trained.folder)


@pytest.mark.parametrize(
    "more", ['"skipped": "x"', '"env_steps": null', '"val_score": 0.5, "val_ci95": "x"', '"val_score": []']
)
def test_a_count_or_validation_that_is_no_number_is_one_sentence(more, trained, capsys):
    with (trained.folder / folders.METRICS).open("a") as file:
        file.write(f'{{"step": 4, {more}}}\n')
    assert train("--resume", trained.folder, "--steps", 6) == 1
    assert (
        "does not say in numbers what was counted or validated at step 4: delete that line." in capsys.readouterr().err
    )
    with pytest.raises(RunError, match="in numbers what was counted or validated"):
        gather([trained.folder])


def test_logs_are_on_the_disk_before_the_state(tmp_path, monkeypatch):
    synced, order = os.fsync, []

    def spy(handle):
        order.append(os.readlink(f"/proc/self/fd/{handle}"))
        synced(handle)

    run = making.create(resolve(TINY), tmp_path / "run")
    monkeypatch.setattr(os, "fsync", spy)
    list(training.train(run))
    names = [path.rpartition("/")[2] for path in order]
    for number in ("00000002", "00000004"):
        state = next(i for i, name in enumerate(names) if name.startswith(f".step-{number}"))
        before = names[:state][-4:]
        assert before == ["metrics.jsonl", "run", "timing.jsonl", "run"]
        del names[:state]


def test_a_score_that_is_not_finite_is_never_best(tmp_path, monkeypatch):
    scores = iter([float("nan"), 2.0, float("inf"), 1.0])
    run = making.create(resolve(TINY.with_values(steps=8, keep=2)), tmp_path / "run")
    monkeypatch.setattr(training, "validated", lambda run, meta: {"val_score": next(scores)})
    list(training.train(run))
    assert list(checkpoint.numbered(folders.checkpoints(run), "best")) == [4, 8]
    assert runs.best_metas(run, 2)[1] == [8, 4]


def test_a_run_whose_validations_are_all_nan_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "validated", lambda run, meta: {"val_score": float("nan")})
    for _ in range(2):  # and the same command says so again
        assert train(*OPTIONS, "--out", tmp_path / "run") == 1
        assert "has learned nothing: no validation has a finite score. Try a smaller" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path / "run"), *JUDGE]) == 1
    assert "has learned nothing" in capsys.readouterr().err


def test_skipped_steps_are_counted_and_all_of_them_are_a_failure(tmp_path, monkeypatch, capsys):
    bad: set[int] = {3}

    def broken(self, info):
        steps = np.arange(1, len(info["finite"]) + 1) + self.seen
        info["finite"] = np.repeat(~np.isin(steps, list(bad))[:, None], info["finite"].shape[1], axis=1)
        add(self, info)
        recorder.Window.seen += len(steps)

    add = recorder.Window.add
    monkeypatch.setattr(recorder.Window, "seen", 0, raising=False)
    monkeypatch.setattr(recorder.Window, "add", broken)
    skip = [*OPTIONS, "--non-finite", "skip", "--out"]
    assert train(*skip, tmp_path / "one") == 0
    assert "skipped 1" in (out := capsys.readouterr().out) and "1 of 4 outer steps skipped" in out
    bad = {1, 2, 3, 4}
    recorder.Window.seen = 0
    assert train(*skip, tmp_path / "all") == 1
    assert "all outer steps were skipped" in capsys.readouterr().err


def test_what_is_no_run_names_the_runs_near(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    assert cli.main(["evaluate", "pictures"]) == 1
    assert "pictures is not a run: it has no recipe.toml. Runs near it: run." in capsys.readouterr().err
    assert cli.main(["evaluate", "."]) == 1
    assert ". is not a run itself but holds 1: run." in capsys.readouterr().err
    assert cli.main(["evaluate", "elsewhere/nothing"]) == 1
    assert "nothing is not a run: there is no such folder. Train one with: lethax train DATA" in capsys.readouterr().err


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Writes a store of features whose content depends on a seed."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    labels = np.repeat(np.arange(6), 6)

    def write(seed):
        made = np.random.RandomState(seed).randn(36, 4).astype(np.float32)
        write_features("made", {split: split_of("", made, labels) for split in ("train", "val", "test")}, None, {})

    write(0)
    return write


def test_data_prepared_anew_are_refused_unless_named(store, tmp_path, capsys):
    options = ["made", "--method", "maml", "--net", "mlp", "--way", "2", *OPTIONS[3:]]
    folder = tmp_path / "a run"
    assert train(*options, "--out", folder) == 0
    inputs = json.loads((folder / "inputs.json").read_text())
    assert inputs["sha256"] == open_store("made").identity and inputs["example"] == [4] and len(inputs["classes"]) == 6
    judge = ["evaluate", str(folder), *JUDGE]
    assert cli.main(judge) == 0
    record = json.loads((first := next((folder / "evaluations").iterdir())).read_text())
    assert record["data_sha256"] == record["trained_on"] == inputs["sha256"]
    content = first.read_bytes()

    store(1)
    capsys.readouterr()
    assert cli.main(judge) == 1
    assert f"is not the one that {folder} was trained on" in (err := capsys.readouterr().err)
    assert f"lethax evaluate '{folder}' --data made." in err
    recipe = (folder / "recipe.toml").read_bytes()
    for more in ((), ("--steps", 9)):
        assert train("--resume", folder, *more) == 1 and "another --out" in capsys.readouterr().err
    assert (folder / "recipe.toml").read_bytes() == recipe
    assert cli.main([*judge, "--data", "made", "--split", "val"]) == 2  # its classes may be classes trained on
    assert "only the test classes are judged" in capsys.readouterr().err
    assert cli.main([*judge, "--data", "made"]) == 0
    (other,) = set((folder / "evaluations").iterdir()) - {first}
    record = json.loads(other.read_text())
    assert record["trained_on"] == inputs["sha256"] != record["data_sha256"] == open_store("made").identity
    assert first.read_bytes() == content

    (folder / "inputs.json").write_text("{}")
    assert cli.main(judge) == 1 and "inputs.json does not say what the run was trained on" in capsys.readouterr().err
    (folder / "inputs.json").unlink()  # as a run of an earlier version
    assert cli.main(judge) == 0 and train("--resume", folder) == 0


@pytest.mark.parametrize("deleted", [False, True])
def test_data_that_change_while_a_run_trains_choose_no_checkpoint(deleted, store, tmp_path, monkeypatch):
    """And what was trained until then is saved."""
    monkeypatch.setattr(supervised, "CHUNK", 1)
    recipe = TINY.with_values(data="made", method="maml", net="mlp", way=2, steps=8, epoch=4)
    run = making.create(resolve(recipe), tmp_path / "run")
    statuses = training.train(run)
    assert [next(statuses).step for _ in range(3)] == [1, 2, 3] and folders.reached(run) == 1
    if deleted:
        shutil.rmtree(tmp_path / "data" / "made")
    else:
        store(1)
    with pytest.raises(DataError if deleted else RunError, match="no data set 'made'" if deleted else "is not the one"):
        next(statuses)
    assert folders.reached(run) == 3 and not checkpoint.numbered(folders.checkpoints(run), "best")
    store(0)
    assert [status.step for status in training.train(run)] == [4, 5, 6, 7, 8]


def test_a_split_too_small_is_said_with_advice_that_evaluation_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    labels = np.repeat(np.arange(6), 6)
    made = np.random.RandomState(0).randn(36, 4).astype(np.float32)
    sizes = {"train": 36, "val": 36, "test": 6}
    splits = {split: split_of("", made[:size], labels[:size]) for split, size in sizes.items()}
    write_features("made", splits, None, {})
    run = making.create(resolve(TINY.with_values(data="made", method="maml", net="mlp", way=2)), tmp_path / "run")
    assert cli.main(["evaluate", str(run.folder), *JUDGE]) == 1
    err = capsys.readouterr().err
    assert "made/test allows at most 1-way" in err and "the run's episodes are 2-way with 2 shots and 2 queries" in err
    assert "--split train, --split val, --data OTHER" in err and "--way" not in err


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("rate = 0.01", "rate = 0.5", "inner.rate was 0.01 and is 0.5"),
        ("first_order_steps = 0", "first_order_steps = 3", "inner.first_order_steps was 0 and is 3"),
        ("multi_step_steps = 0", "multi_step_steps = 10", "inner.multi_step_steps was 0 and is 10"),
    ],
)
def test_a_recipe_that_was_changed_by_hand_is_refused(before, after, said, trained, capsys):
    """Its states were made with another one: neither training nor evaluation goes on, and nothing is written."""
    path = trained.folder / "recipe.toml"
    text = path.read_text()
    assert "[inner]" in text and f"\n{before}\n" in text
    path.write_text(text.replace(f"\n{before}\n", f"\n{after}\n", 1))
    files = {p.name: p.read_bytes() for p in trained.folder.iterdir() if p.is_file()}
    for words in (["train", "--resume"], ["train", "--steps", "7", "--resume"], ["evaluate", "--episodes", "3"]):
        assert cli.main([*words, str(trained.folder)]) == 1
        err = capsys.readouterr().err
        assert f"recipe.toml was changed after step-00000004.safetensors was made ({said})" in err
    assert files == {p.name: p.read_bytes() for p in trained.folder.iterdir() if p.is_file()}
    path.write_text(f"{text}\n[leo]\nkl = 1.0\n")
    assert cli.main(["evaluate", str(trained.folder), "--episodes", "3"]) == 1
    assert "has a recipe.toml that cannot be used: leo.kl is 1.0" in capsys.readouterr().err
    path.write_text(text.replace("\nsteps = 4\n", "\nsteps = 9\n"))  # more steps are given by a command, which is noted
    assert cli.main(["train", "--resume", str(trained.folder)]) == 1
    assert "outer.steps was 4 and is 9" in capsys.readouterr().err
    path.write_text(text)
    assert cli.main(["evaluate", str(trained.folder), *JUDGE]) == 0


def test_checkpoints_without_their_recipe_are_left_alone(trained, capsys):
    """Neither the method nor the seed of a run whose recipe is gone is known: nothing may be written over it."""
    (trained.folder / "recipe.toml").unlink()
    before = {p: p.read_bytes() for p in trained.folder.rglob("*") if p.is_file()}
    for method in ("maml", "l2f"):
        assert cli.main(["train", "sinusoid", "--method", method, "--out", str(trained.folder)]) == 1
        assert "holds checkpoints of a run whose recipe.toml is gone: put that file back" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in trained.folder.rglob("*") if p.is_file()}


def test_the_first_command_of_a_longer_run_says_how_to_go_on(trained, capsys):
    assert train("--resume", trained.folder, "--steps", 6) == 0
    assert train(*OPTIONS, "--out", trained.folder) == 1
    assert "it is finished; evaluate it by lethax evaluate" in capsys.readouterr().err
    newest = max(trained.folder.joinpath("checkpoints").glob("step-*"))
    newest.rename(newest.with_name(newest.name.replace("6", "5")))  # as after a run that was stopped
    assert train(*OPTIONS, "--out", trained.folder) == 1
    assert "it has more steps than that; go on with it by lethax train --resume" in capsys.readouterr().err
