"""Several runs in one program: the numbers of each alone, the same bits after an interruption between two checkpoints."""

import json

import jax
import numpy as np
import pytest

from lethax import checkpoint
from lethax.domains import domain_of, supervised
from lethax.outer import begin
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.runs import folder as folders
from lethax.runs import making, training

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
