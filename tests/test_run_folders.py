"""Run folders as the commands of training and evaluation meet them: in this process, on small sinusoids."""

import json
import shutil

import numpy as np
import pytest

from lethax import assemble, cli, runs, training
from lethax.errors import RunError
from lethax.evaluate import evaluate
from lethax.recipe import Recipe

TINY = Recipe(method="l2f", shot=2, query=2, filters=4, steps=4, epoch=2, val_episodes=3)
OPTIONS = "sinusoid --method l2f --shot 2 --query 2 --filters 4 --steps 4 --epoch 2 --val-episodes 3".split()
JUDGE = ("--episodes", "3", "--steps", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that no test may change."""
    run = runs.create(TINY, tmp_path_factory.mktemp("whole") / "run")
    list(training.train(run))
    return run


@pytest.fixture
def trained(whole, tmp_path):
    """A finished run of the test's own."""
    shutil.copytree(whole.folder, tmp_path / "run")
    return runs.open_run(tmp_path / "run")


def test_evaluation_is_shown_before_it_is_written(trained, capsys, monkeypatch):
    def full(result):
        raise RunError("the disk is full.")

    monkeypatch.setattr(runs, "write_evaluation", full)
    assert cli.main(["evaluate", str(trained.folder), *JUDGE]) == 1
    out, err = capsys.readouterr()
    assert "mean ± 95 %" in out and "lethax: the disk is full." in err
    assert cli.main(["evaluate", str(trained.folder), *JUDGE, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["n"] == 3


def test_gates_of_an_ensemble_are_means_over_its_checkpoints(trained):
    learner, family = assemble.learner(trained.recipe), assemble.family(trained.recipe, "test")
    how, key = assemble.trial(trained.recipe, 3), assemble.test_key(0)
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
