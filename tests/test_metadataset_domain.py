"""Meta-Dataset as a domain: training on miniature sources, resuming, a column for each test source, and what is refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from lethax import checkpoint, cli
from lethax.data.store import StoreWriter
from lethax.recipe import Recipe
from lethax.recipe.resolve import fit
from lethax.runs import making, training
from lethax.runs.evaluation import evaluate_run
from lethax.runs.folder import checkpoints, open_run

SPLITS = {"omniglot": ("train", "val", "test"), "aircraft": ("train", "val", "test"), "traffic_sign": ("test",)}
SMALL = {"filters": 3, "inner_steps": 1, "val_episodes": 2, "epoch": 3, "steps": 6, "weight_decay": 1e-4}


def write_source(root: Path, source: str, image: int = 16) -> None:
    """A source of six classes of four pictures each, whose colours say the class, with noise."""
    random = np.random.default_rng(len(source))
    name = f"metadataset-{source}"
    with StoreWriter(root, name, mean=(0.5,) * 3, std=(0.5,) * 3, source={"kind": "metadataset"}) as writer:
        for split in SPLITS[source]:
            array = writer.split(split, (image, image, 3), [(f"{split}{i}", "", 4) for i in range(6)])
            colours = np.repeat(random.integers(0, 200, (6, 1, 1, 3)), 4, axis=0)
            array[:] = colours + random.integers(0, 50, array.shape)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for source in SPLITS:
        write_source(root, source)
    return root


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("LETHAX_DATA", str(root))


def recipe_of(**values):
    return fit(Recipe.of(**{"data": "metadataset", "method": "maml", **SMALL, **values}))[0]


def trained(folder: Path, **values):
    run = making.create(recipe_of(**values), folder)
    for _ in training.train(run):
        pass
    return run


def state_of(run):
    fresh = training.Recorder(run, run.learner(), run.plan()).fresh
    return fresh, checkpoint.newest(checkpoints(run), fresh)[0]


@pytest.fixture(scope="module")
def l2f(tmp_path_factory: pytest.TempPathFactory, root: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHAX_DATA", str(root))
        return trained(tmp_path_factory.mktemp("runs") / "l2f", method="l2f")


def test_training_moves_the_weights(l2f) -> None:
    fresh, state = state_of(l2f)
    moved = [bool((a != b).any()) for a, b in zip(*(jax.tree.leaves(s.meta) for s in (fresh, state)), strict=True)]
    assert int(state.step) == 6 and sum(moved) > len(moved) / 2
    assert l2f.recipe.metadataset.train == "omniglot,aircraft" and l2f.recipe.inner.head == "prototypes"


def test_a_resumed_run_has_the_same_bits(l2f, tmp_path: Path) -> None:
    run = making.create(l2f.recipe, tmp_path / "run")
    statuses = training.train(run)
    for status in statuses:
        if status.step == 2:
            statuses.close()
            break
    for _ in training.train(open_run(tmp_path / "run")):
        pass
    again, whole = state_of(run)[1], state_of(l2f)[1]
    assert all(
        np.array_equal(a, b) for a, b in zip(*(jax.tree.leaves((s.meta, s.optim)) for s in (again, whole)), strict=True)
    )


def test_a_column_for_each_test_source(l2f, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["evaluate", str(l2f.folder), "--episodes", "3", "--steps", "2", "--json"])
    records = json.loads(capsys.readouterr().out)
    assert [record["data"] for record in records] == [f"metadataset-{name}" for name in SPLITS]
    for record in records:
        scores = np.array(record["per_episode"])
        assert record["n"] == 3 and record["norm"] == "support" and len(record["by_inner_steps"]) == 3
        assert record["ci95"] == pytest.approx(1.96 * scores.std() / 3**0.5)
    assert len({record["episodes_hash"] for record in records}) == 3
    again = evaluate_run(l2f, episodes=3, ensemble=1, steps=1, seed=0, data="traffic_sign")
    assert again.record["per_episode"] == records[2]["per_episode"]
    cli.main(["evaluate", str(l2f.folder), "--episodes", "2", "--steps", "1", "--split", "val"])
    shown = "".join(capsys.readouterr())
    assert "any-way any-shot" in shown and "metadataset-aircraft" in shown and "metadataset-traffic_sign" not in shown
