"""Several runs in one program: the numbers of each alone, the same bits after an interruption between two checkpoints."""

import itertools
import json

import jax
import numpy as np
import pytest

from lethax import checkpoint
from lethax.domains import domain_of, supervised
from lethax.errors import RunError
from lethax.outer import begin
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.runs import folder as folders
from lethax.runs import jobs, making, training

SEEDS = 2


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(supervised, "CHUNK", 20)


def key_of(recipe):
    """Equal where recipes train in one program."""
    return domain_of(recipe).together(recipe, None)


def recipes():
    """Two seeds of two ranges: one shape."""
    base = Recipe.of(shot=5, method="l2f", filters=6, steps=120, epoch=40, val_episodes=10)
    return [
        resolve(base.with_values(data=data, seed=seed))
        for data in ("sinusoid", "sinusoid_shift")
        for seed in range(SEEDS)
    ]


def train(folder, stop=None):
    made = [
        folders.open_run(folder / f"{i}") if (folder / f"{i}").exists() else making.create(recipe, folder / f"{i}")
        for i, recipe in enumerate(recipes())
    ]
    for status in training.train_together(made):
        if status.step == stop:
            break
    return made


def arrays(run):
    path = checkpoint.path_of(folders.checkpoints(run), "step", 120)
    learner, plan = run.learner(), run.plan()
    state, info = checkpoint.load(path, begin(learner, plan, jax.random.key(0)))
    return jax.tree.leaves(state.meta), info, (run.folder / "metrics.jsonl").read_text()


def test_one_shape():
    keys = [key_of(recipe) for recipe in recipes()]
    assert len(set(keys)) == 1
    assert key_of(resolve(Recipe.of(shot=10))) != keys[0]


def test_equals_each_alone_and_resumes_to_the_same_bits(tmp_path, x64):
    """Equal in float64: two programs round differently, and training makes more of it."""
    together = train(tmp_path / "whole")
    for i in (0, 3):  # another seed and another range
        alone = making.create(recipes()[i], tmp_path / f"alone{i}")
        for _ in training.train(alone):
            pass
        for a, b in zip(arrays(alone)[0], arrays(together[i])[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
        lines = [[json.loads(line) for line in arrays(run)[2].splitlines()] for run in (alone, together[i])]
        np.testing.assert_allclose(*[[line["loss"] for line in run] for run in lines], rtol=1e-6)
    broken = train(tmp_path / "broken", stop=80)
    newest = checkpoint.path_of(folders.checkpoints(broken[1]), "step", 80)
    newest.unlink()  # as if killed between the first run's checkpoint and this one's
    again = train(tmp_path / "broken")
    for whole, resumed in zip(together, again, strict=True):
        for a, b in zip(arrays(whole)[0], arrays(resumed)[0], strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        assert arrays(whole)[1:] == arrays(resumed)[1:]


def jobs_of(folder, count):
    return [jobs.Job(recipe, folder / f"{i}") for i, recipe in enumerate(recipes()[:count])]


def steps_of(run):
    return [json.loads(line)["step"] for line in (run.folder / "timing.jsonl").read_text().splitlines()]


def test_a_run_that_was_begun_before_the_others_goes_on(tmp_path):
    """It loses nothing of its training, which the others have not had."""
    first, *_ = jobs_of(tmp_path, 1)
    calls = training.train(first.open())
    while next(calls).step < 80:
        pass
    calls.close()
    before, at = (first.folder / "metrics.jsonl").read_text(), first.reached
    failed = {}
    reached = [status.step for status in jobs.train(jobs_of(tmp_path, 3), failed)]
    assert not failed and all(job.trained for job in jobs_of(tmp_path, 3))
    assert at == 80 and reached == [100, 120, *range(20, 121, 20)]  # it alone, and then the others together
    assert (first.folder / "metrics.jsonl").read_text().startswith(before)


def test_a_run_that_diverges_leaves_the_others_of_its_program(tmp_path, monkeypatch):
    asked = itertools.count()
    broken = lambda seen, meta, done: (50, "layer0") if done == 60 and next(asked) == 1 else None  # noqa: E731
    monkeypatch.setattr(training, "not_finite", broken)
    group, failed = jobs_of(tmp_path, 3), {}
    reached = [status.step for status in jobs.train(group, failed)]
    assert [*failed] == [group[1].folder] and "outer step 50" in str(failed[group[1].folder])
    assert [job.trained for job in group] == [True, False, True]
    assert reached == [20, 40, 60, *range(80, 121, 20)]  # what the others had done is not done again


def test_a_state_is_not_lost_to_runs_whose_states_are_damaged(tmp_path):
    made = train(tmp_path, stop=80)
    checkpoint.path_of(folders.checkpoints(made[0]), "step", 40).unlink()
    newest = checkpoint.path_of(folders.checkpoints(made[1]), "step", 80)
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(RunError, match="train it alone first: lethax train --resume"):
        train(tmp_path)
    assert jobs.Job(made[0].recipe, made[0].folder).reached == 80
