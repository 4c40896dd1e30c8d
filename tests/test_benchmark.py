"""`lethax bench`: a line for each case, measured in a process of its own; the same as JSON; one sentence if a case fails."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from lethax import benchmark, cli, trees
from lethax.benchmark import Case, Measured

TINY = replace(benchmark.SINUSOID, name="tiny", filters=4, batch=2)
IMAGES = Case("images", px=16, filters=2, way=2, shot=1, query=1, steps=1)


def test_a_case_is_measured_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "QUICK", (TINY,))
    assert cli.main(["bench", "--json", "--calls", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    (row,) = said["rows"]
    assert said["processor"] and said["cores"] and said["jax"]
    assert row["name"] == "tiny" and 0 < row["min_s"] <= row["median_s"] < row["first_step_s"] and row["peak_mib"] > 50


@pytest.mark.parametrize("case", [IMAGES, replace(IMAGES, judged=True)])
def test_images_are_trained_and_judged(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path))
    measured = benchmark.measure(case, 2)
    assert len(measured.seconds) == 2 and min(measured.seconds) > 0 and measured.first > 0


@pytest.mark.parametrize("case", [benchmark.SINUSOID, benchmark.CONV_84, benchmark.RESNET])
def test_the_weights_that_peers_get_are_those_of_the_net(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    from peers import problem

    learner = benchmark.learner_of(case)[2]
    weights = jax.eval_shape(learner.init, jax.random.key(0))["weights"]
    shapes = [leaf.shape for leaf in jax.tree.leaves(weights)]
    assert dict(zip(trees.names(weights), shapes, strict=True)) == problem.shapes(case)
    moved = jax.tree.leaves(learner.mask(weights))
    assert [problem.moves(name) for name in trees.names(weights)] == moved


def test_the_table_has_a_line_for_each_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "sinusoid": Measured(2.0, [1e-4, 2e-4, 9.0], 1 << 29),
        "ResNet12 84 px, 1 shot": Measured(90.0, [20.0], None),
    }
    monkeypatch.setattr(
        benchmark, "apart", lambda case, calls, cache: found.get(case.name, Measured(5.0, [0.5], 3 << 30))
    )
    assert cli.main(["bench", "--all"]) == 0
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(benchmark.ALL) and {len(line) for line in lines} == {len(head)}
    cells = {
        case.name: line.removeprefix(case.name).split("  ") for case, line in zip(benchmark.ALL, lines, strict=True)
    }
    assert [c.strip() for c in cells["sinusoid"] if c] == ["0.2 ms", "5,000", "2.0 s", "512 MiB"]
    assert [c.strip() for c in cells["ResNet12 84 px, 1 shot"] if c] == ["20,000 ms", "0.05", "90 s", "not known"]


def test_a_case_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *words, **more: ended)
    assert cli.main(["bench"]) == 1 and "'sinusoid' could not be timed (signal 9)" in capsys.readouterr().err
    assert cli.main(["bench", "--calls", "0"]) == 2 and "it has to be from 1 to 1,000" in capsys.readouterr().err
