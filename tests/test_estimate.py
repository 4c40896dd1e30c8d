"""What `lethax train --dry-run` says of a run: counts in closed form, memory against what there is, and nothing written."""

from pathlib import Path
from typing import Any

import pytest
from run_folders import trained

from lethax import cli, hardware
from lethax.domains import Inputs, domain_of
from lethax.meta_batch import Plan
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.records import EpisodeShape
from lethax.runs import estimate

WORDS = "train sinusoid --method l2f --shot 5 --query 10 --steps 1000 --filters 40".split()


def test_a_dry_run_says_what_a_run_costs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*WORDS, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    # 1-40-40-1: 40 + 40 + 1600 + 40 + 40 + 1 weights; the attenuator of 6 gates has 6 · 6 + 6 twice.
    assert "parameters: 1,845 are learned; the network has 1,761, of which the inner loop moves 1,761" in said
    assert "floating-point operations" in said and "memory of an outer step" in said and "for 1,000 outer steps" in said
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_more_steps_is_of_those_that_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "run")
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "step-00000100.safetensors").touch()
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    resume = ["train", "--resume", str(run.folder), "--dry-run"]
    assert cli.main([*resume, "--steps", "1000"]) == 0
    assert "for 900 outer steps from step 100 on" in " ".join(capsys.readouterr().out.split())
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    for more, says in (("--shot", "--resume goes on with a run as it is"), ("--steps", "--steps is 7, but")):
        assert cli.main([*resume, more, "7"]) == 2
        assert says in capsys.readouterr().err


def test_what_does_not_fit_is_said_before_it_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hardware, "memory", lambda: hardware.Memory(8 << 30, 1 << 30, 1000))
    monkeypatch.setattr(estimate, "fit", None)  # would fail if it were called
    assert cli.main([*WORDS, "--dry-run"]) == 1
    err = capsys.readouterr().err
    assert "the memory does not suffice" in err and "--memory lean" in err


def test_operations_and_time_are_of_one_outer_step() -> None:
    """More than the products of the forward passes alone, and in proportion to the tasks."""
    recipe = resolve(Recipe.of(data="sinusoid", method="maml", steps=4, epoch=4))
    ticks = iter([0.0, 8.0])
    found = estimate.cost(recipe, clock=lambda: next(ticks))
    twice = estimate.cost(resolve(recipe.with_values(batch=2 * recipe.outer.batch)), timed=False)
    points = recipe.episode.shot + recipe.episode.query
    assert found.operations and twice.operations and found.operations > 2 * 1680 * points * recipe.outer.batch
    assert 1.8 < twice.operations / found.operations < 2.2 and twice.seconds is None
    assert found.seconds == 8.0 / (2 * 4) and found.memory > 0 and found.fits


@pytest.mark.parametrize("chunk,brief", [(500, 50), (7, 7), (53, 1), (1, 1)])
def test_a_timed_call_is_short_and_ends_where_those_of_the_run_end(chunk: int, brief: int) -> None:
    plan = estimate.brief(Plan(EpisodeShape(1, 5, 10), total=1000, chunk=chunk))
    assert plan.chunk == brief and plan.total == 1000


def test_tasks_go_one_by_one_where_the_weights_of_all_do_not_fit_a_cache() -> None:
    """125 tasks of over 20,000 weights each, and four of 1,761."""
    for data, loop in (("modes5", "scan"), ("sinusoid", "vmap")):
        recipe = resolve(Recipe.of(data=data, method="maml"))
        assert domain_of(recipe).plan(recipe).task_loop == loop  # type: ignore[attr-defined]


@pytest.mark.parametrize("data, method", [("sinusoid", "maml"), ("vectors", "leo"), ("birds", "maml")])
def test_lean_goes_through_tasks_and_inner_steps_one_by_one(data: str, method: str) -> None:
    recipe = resolve(Recipe.of(data=data, method=method, memory="lean"))
    domain: Any = domain_of(recipe)
    assert domain.plan(recipe).task_loop == "scan" == domain.trial(recipe, 2, 1, False).task_loop
    shape = (6,) if method == "leo" else (16, 16, 1)
    assert getattr(domain.learner(recipe, Inputs(data, None, shape)), "loop", "scan") == "scan"


def test_control_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "navigation", "--dry-run"]) == 2
    assert "cannot be estimated" in capsys.readouterr().err
