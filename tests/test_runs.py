"""Runs: the same bits after any kill, one process a folder, the command line as a user meets it."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lethax import checkpoint, cli, progress
from lethax.domains import supervised
from lethax.errors import RecipeError
from lethax.files import read_lines
from lethax.recipe import Recipe
from lethax.recipe.record import key_of
from lethax.recipe.resolve import resolve
from lethax.runs import making, training

KILLS = 4  # tests/durability.py does more, of every command
JUDGE = ("--episodes", 20, "--steps", 2)
TRAIN = "train sinusoid --steps 2400 --epoch 100 --val-episodes 50 --filters 8 --seed 3".split()


@pytest.fixture(scope="module")
def lethax(tmp_path_factory):
    """Runs the program; compiled programs are cached between the calls of this file."""
    cache = tmp_path_factory.mktemp("cache")
    env = {**os.environ, "LETHAX_CACHE": str(cache), "LETHAX_DATA": str(cache / "data"), "COLUMNS": "200"}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "true"  # off in the tests of functions, see conftest.py
    folder = tmp_path_factory.mktemp("cwd")

    def start(*args, **options):
        command = [sys.executable, "-m", "lethax", *map(str, args)]
        return subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def run(*args):
        process = start(*args)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    run.start = start
    return run


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Runs the program in this process, which costs no start and no compilation of what is compiled."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(progress.console, "_width", 200)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        try:
            code = cli.main([*map(str, args)])
        except SystemExit as end:  # of --help
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that no test may change, by the folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    recipe = resolve(Recipe.of(steps=600, epoch=100, method="maml"))
    list(training.train(making.create(recipe, folder)))
    return folder


def final_files(folder):
    """The newest state, the best checkpoints that it lists, and the metrics: to the byte."""
    newest = max((folder / "checkpoints").glob("step-*"))
    best = [f"best-{step:08d}.safetensors" for _, step in checkpoint.read_info(newest)["best"]]
    return [
        path.read_bytes() for path in (newest, *(newest.with_name(name) for name in best), folder / "metrics.jsonl")
    ]


def test_killed_at_random_moments(lethax, tmp_path):
    """Killed at random moments without warning, a run ends in the same bits, metrics and best checkpoints as an unbroken one."""
    code, _, err = lethax(*TRAIN, "--out", tmp_path / "whole")
    assert code == 0, err
    kills, rounds, clock = 0, 0, random.Random(0)
    while kills < KILLS:  # on a fast machine a run may end before its last kill: then another one begins
        broken = tmp_path / f"broken{rounds}"
        process, died = lethax.start(*TRAIN, "--out", broken), True
        while died and kills < KILLS:
            died = killed(process, broken, clock, moving=kills % 2 == 1)
            kills += died
            process = lethax.start("train", "--resume", broken) if died else process
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert final_files(broken) == final_files(tmp_path / "whole")
        rounds += 1


def test_damaged_newest_state_is_named_and_the_one_before_used(here, whole, tmp_path, caplog):
    """With its best checkpoints too, though each later epoch is better here and has taken a place among them."""
    shutil.copytree(whole, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000600.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    code, out, _ = here("evaluate", tmp_path / "run", *JUDGE, "--ensemble", "3", "--json")
    assert code == 0 and "step-00000600.safetensors damaged and passed over, step-00000500" in caplog.text
    caplog.clear()
    assert len(json.loads(out)[0]["checkpoints"]) == 3
    code, _, _ = here("train", "--resume", tmp_path / "run")
    assert code == 0 and "damaged and passed over" in caplog.text
    assert final_files(tmp_path / "run") == final_files(whole)


def killed(process, folder, clock, moving):
    """Whether the process was still there to be killed; `moving` waits for a new checkpoint, so that the run gets on."""
    while not (folder / "recipe.toml").exists() and process.poll() is None:
        time.sleep(0.05)
    before = set(folder.glob("checkpoints/step-*"))
    while moving and process.poll() is None and not set(folder.glob("checkpoints/step-*")) - before:
        time.sleep(0.005)
    time.sleep(clock.random() * (0.05 if moving else 2.0))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


def test_signals_save(lethax, tmp_path):
    """They save where no checkpoint was due, in the middle of a line of metrics; the run ends in the same bits."""
    total = 23 * 475  # a call has 475, the largest number up to 500 that divides the steps; every fourth writes a line
    options = ["train", "sinusoid", "--steps", total, "--epoch", total, "--val-episodes", 5, "--batch", 1]
    code, _, err = lethax(*options, "--out", tmp_path / "whole")
    assert code == 0, err
    stopped, reached = None, 0
    for number, said in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
        for attempt in range(9):  # on a busy machine a run may be at its end when the signal comes: then once more
            folder = tmp_path / f"{said}-{attempt}"
            if stopped:
                shutil.copytree(stopped, folder)
            # A job in the background of a script ignores interrupts, and so would its children; they listen where it does.
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            process = lethax.start(*options, "--out", folder)
            signal.signal(signal.SIGINT, before)
            while process.poll() is None and not (folder / ".lock").exists():
                time.sleep(0.01)
            while process.poll() is None and _last_logged(folder) <= reached:
                time.sleep(0.01)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
            saved = max(checkpoint.numbered(folder / "checkpoints", "step"))
            if saved < total:
                break
        assert process.returncode == 128 + number and err.endswith(
            f"{said}; the state is saved at step {saved}: go on with lethax train --resume {folder}\n"
        )
        assert reached < saved < total
        stopped, reached = folder, saved
    code, _, err = lethax("train", "--resume", folder)
    assert code == 0, err
    assert final_files(folder) == final_files(tmp_path / "whole")


def _last_logged(folder):
    """The step of the last line of metrics."""
    path = folder / "metrics.jsonl"
    return max((line["step"] for line in read_lines(path)), default=0) if path.exists() else 0


def test_evaluate_several(here, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "maml")
    code, _, err = here("train", "sinusoid", "--method", "l2f", "--steps", 20, "--epoch", 10, "--out", tmp_path / "l2f")
    assert code == 0, err
    code, out, err = here("evaluate", tmp_path / "maml", tmp_path / "l2f", *JUDGE, "--ensemble", 2)
    assert code == 0 and "less the first" in out and "gates" in out, err
    path = next((tmp_path / "l2f" / "evaluations").glob("*.json"))
    record = json.loads(path.read_text())
    assert len(record["per_episode"]) == record["n"] == 20 and len(record["by_inner_steps"]) == 3
    assert record["mean"] == pytest.approx(np.mean(record["per_episode"]))
    other = json.loads(next((tmp_path / "maml" / "evaluations").glob("*.json")).read_text())
    assert record["episodes_hash"] == other["episodes_hash"]
    code, out, _ = here("evaluate", tmp_path / "l2f", *JUDGE, "--json")
    assert code == 0 and json.loads(out)[0]["method"] == "l2f"


@pytest.mark.parametrize(
    "args,code,message",
    [
        (["train", "sinusoids"], 1, "net 'conv4'|no data set 'sinusoids'"),
        (["train", "sinusoid", "--method", "l2g"], 2, "Did you mean 'l2f'"),
        (["train", "sinusoid", "--stepz", "3"], 2, ""),
        (["train"], 2, "needs DATA"),
        (["train", "--resume", "nowhere"], 1, "is not a run"),
        (["evaluate", "nowhere"], 1, "is not a run"),
        (["train", "sinusoid", "--order", "3"], 2, "order is '3'"),
        (["data", "prepare", "cifar100", "--from", "nowhere"], 1, "does not exist"),
        (["data", "verify", "nothing"], 1, "no data set 'nothing'"),
        (["data", "list"], 0, ""),
        (["--help"], 0, ""),
    ],
)
def test_messages(args, code, message, here):
    got, out, err = here(*args)
    assert got == code and re.search(message, err), (got, out, err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "values,message",
    [
        ({"method": "cavia+l2f"}, "cavia moves a context that starts at 0"),
        ({"method": "leo"}, "leo takes features, see lethax embed"),
        ({"method": "leo+l2f", "data": "made", "gate_fixed": (1.0, 1.0)}, "gate.fixed is .* does not have that choice"),
        ({"method": "leo+l2f", "data": "made", "gate_scope": "layer"}, "gate.scope is layer"),
        ({"method": "leo", "data": "made", "rule": "lslr"}, "inner.rule is lslr; method 'leo'"),
        ({"method": "leo", "data": "made", "leo_dropout": 1.0}, "leo.dropout is 1.0; it has to be below 1"),
        ({"method": "reptile", "multi_step_steps": 10_000}, "inner.multi_step_steps is 10000; method 'reptile'"),
        ({"method": "reptile", "inner_rate": 0.0}, "reptile divides by it"),
        ({"method": "imaml+l2f", "proximity": 0.0}, "imaml.proximity is 0.0; it has to be above 0"),
        ({"method": "maml_pp", "multi_step_epochs": 0}, "multi_step_epochs is 0; it has to be at least 1"),
        ({"method": "maml", "full_steps": 0}, "full_steps is 0; it has to be at least 1"),
    ],
)
def test_combinations_that_cannot_be(values, message):
    with pytest.raises(RecipeError, match=message):
        resolve(Recipe.of(**values))


def test_help_imports_no_jax():
    code = "import sys, lethax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def values_of(resolved, *names):
    """Values by their short names."""
    return tuple(resolved.value(key_of(name)) for name in names)


def test_presets_follow_the_released_configurations():
    mini = resolve(Recipe.of(data="miniimagenet", shot=5, method="l2f"))
    assert values_of(mini, "batch", "steps", "first_order_steps", "filters", "clamp") == (2, 30_000, 5_500, 48, 10.0)
    half = resolve(Recipe.of(data="cifar_fs", shot=1, steps=25_000))
    assert values_of(half, "batch", "first_order_steps", "clamp") == (4, 2_750, 0.0)
    short = resolve(Recipe.of(data="cifar_fs", method="maml", full_steps=1_000))
    assert values_of(short, "steps", "first_order_steps") == (1_000, 110)
    short = resolve(Recipe.of(data="sinusoid", method="maml_pp", full_steps=1_000))
    assert values_of(short, "steps", "multi_step_steps") == (1_000, 200)
    paper = resolve(Recipe.of(data="tieredimagenet", preset="paper", net="resnet12"))
    assert values_of(paper, "batch", "steps", "first_order_steps") == (1, 125_000, 0)
    # Released with ALFA, which has L2F as a switch: the budget of L2F's own configurations is theirs alone.
    assert resolve(Recipe.of(data="miniimagenet", method="alfa+l2f", shot=5)).outer.steps == 50_000
    assert mini.outer.reduction == half.outer.reduction == "sum"
    leo = resolve(Recipe.of(data="mini_leo", method="leo", shot=1))
    assert values_of(leo, "reduction", "clamp", "clip_tensor_norm", "batch", "steps") == ("mean", 0.1, 0.1, 12, 100_000)
    own = {
        name: resolve(Recipe.of(data="cifar_fs", method=name))
        for name in ("boil", "cavia", "reptile", "imaml", "anil+l2f")
    }
    assert {name: (r.inner.steps, r.inner.rate) for name, r in own.items()} == {
        "boil": (1, 0.5), "cavia": (2, 1.0), "reptile": (8, 0.01), "imaml": (16, 0.1), "anil+l2f": (5, 0.01),
    }  # fmt: skip
    modes = resolve(Recipe.of(data="modes3", method="mumomaml"))
    assert values_of(modes, "batch", "shot", "query", "inner_steps", "inner_rate") == (75, 5, 5, 5, 0.001)
    assert values_of(modes, "filters", "depth", "deviation", "inner_clamp", "steps") == (100, 3, 0.01, 10.0, 70_000)
    assert modes.outer.reduction == "mean"


def test_the_first_call_is_saved(monkeypatch, tmp_path):
    """What compiled for minutes is not lost to a kill a second later."""
    monkeypatch.setattr(supervised, "CHUNK", 10)
    recipe = resolve(Recipe.of(steps=100, epoch=100, filters=4))
    with contextlib.closing(training.train(making.enter(recipe, tmp_path / "run", ""))) as statuses:
        assert next(statuses).step == 10
        assert list(checkpoint.numbered(tmp_path / "run" / "checkpoints", "step")) == [10]
