"""Probes of a run: they change no bit of training, and a resumed run has the lines of an unbroken one."""

import json
import shutil
from pathlib import Path

import pytest

from lethax import checkpoint, cli
from lethax.files import read_lines
from lethax.lock import RunLock
from lethax.runs import folder as folders

TINY = "sinusoid --method l2f --shot 3 --query 4 --steps 8 --epoch 4 --val-episodes 10 --batch 2 --inner-steps 2"


def train(out: Path, *more: str) -> int:
    return cli.main(["train", *TINY.split(), "--out", str(out), *more])


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "run"
    assert train(out, "--probe", "landscape", "conflict", "--probe-every", "4") == 0
    return out


def final_bits(out: Path) -> bytes:
    return checkpoint.path_of(out / "checkpoints", "step", 8).read_bytes()


def test_a_probe_changes_no_bit_of_training(probed: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run") == 0
    assert final_bits(probed) == final_bits(tmp_path / "run")
    assert (probed / "metrics.jsonl").read_bytes() == (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert not (tmp_path / "run" / "probes.jsonl").exists()


def test_every_measurement_is_a_line(probed: Path) -> None:
    lines = read_lines(probed / "probes.jsonl")
    assert [(line["step"], line["probe"], line["split"]) for line in lines] == [
        (step, probe, split) for step in (0, 4, 8) for probe in ("landscape", "conflict") for split in ("train", "val")
    ]
    first, _, conflict, _ = lines[:4]
    assert len(first["smoothness"]) == 2 and first["initialisation"]["smoothness"] > 0 and first["tasks"] == 2
    assert "initialisation" not in lines[1]
    assert {len(conflict[name]) for name in ("tensors", "between", "within", "random", "random_std")} == {6}


def test_a_broken_run_goes_on_with_its_probes(probed: Path, tmp_path: Path) -> None:
    """Back at the state of step 4, with lines of later steps and a torn one: the same lines again, none twice."""
    run = tmp_path / "run"
    shutil.copytree(probed, run)
    checkpoint.path_of(run / "checkpoints", "step", 8).unlink()
    with (run / "probes.jsonl").open("a") as file:
        file.write('{"step": 8, "probe": "landsc')
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert (run / "probes.jsonl").read_bytes() == (probed / "probes.jsonl").read_bytes()
    for path in (run / "checkpoints").iterdir():  # and from the very beginning
        path.unlink()
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert (run / "probes.jsonl").read_bytes() == (probed / "probes.jsonl").read_bytes()


def test_the_cost_is_printed_and_kept(probed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = folders.open_run(probed)
    cost = folders.probing(run)
    assert cost is not None and min(cost) > 0
    assert sum(line["probes"] for line in read_lines(probed / "timing.jsonl")) == pytest.approx(cost[0])


@pytest.mark.parametrize("more, said", [
    (["--probe", "landscpe"], "no probe is called 'landscpe'. Did you mean 'landscape'?"),
    (["--probe-every", "5"], "give --probe as well"),
    (["--probe", "conflict", "--probe-every", "0"], "--probe-every is 0; it has to be at least 1 outer step"),
])  # fmt: skip
def test_what_cannot_be_asked(more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", *more) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_no_step_would_measure_is_not_asked(
    probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a finished run or one in use, whose next command would be probed; the same command as before is none of these."""
    run = tmp_path / "run"
    shutil.copytree(probed, run)
    assert train(run, "--probe", "landscape", "conflict", "--probe-every", "4") == 0
    (run / "probes.json").unlink()
    assert train(run, "--probe", "conflict") == 1
    assert "is finished, so there is no step to probe" in " ".join(capsys.readouterr().err.split())
    checkpoint.path_of(run / "checkpoints", "step", 8).unlink()
    with RunLock(run):
        assert train(run, "--probe", "conflict") == 1
    assert "is in use by process" in capsys.readouterr().err and not (run / "probes.json").exists()


@pytest.mark.parametrize("words, said", [
    (["navigation", "--method", "maml"], "maml on navigation cannot be probed"),
    (["sinusoid", "--method", "l2f", "--gate.every-step"], "l2f with gate.every_step cannot be probed"),
])  # fmt: skip
def test_what_cannot_be_probed(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *words, "--steps", "1", "--out", str(tmp_path / "run"), "--probe", "conflict"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_damaged_list_of_probes_is_named(probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(probed, run)
    checkpoint.path_of(run / "checkpoints", "step", 8).unlink()
    (run / "probes.json").write_text(json.dumps({"names": ["spirits"], "every": 1}))
    assert cli.main(["train", "--resume", str(run)]) == 1
    assert "delete it to go on without" in " ".join(capsys.readouterr().err.split())
