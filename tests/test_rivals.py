"""Baselines: their numbers by hand, on the very episodes of the method, with settings that no test episode has chosen."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import cli
from lethax.baselines import LinearProbe, probe_logits
from lethax.data import embeddings
from lethax.data.feature_files import FeatureSplit
from lethax.data.source import Features, FeaturesBeside, features_on_device, on_device
from lethax.data.store import ClassSplit, open_store
from lethax.data.writer import StoreWriter
from lethax.errors import DivergedError
from lethax.evaluation import draw
from lethax.records import Episode, EpisodeShape, Split
from lethax.runs import rivals
from lethax.runs.folder import open_run

TINY = "--way 3 --shot 2 --query 3 --filters 4 --inner-steps 1 --batch 1 --steps 1 --epoch 1 --val-episodes 2".split()


@pytest.mark.parametrize("decay", [0.05, min(rivals.DECAYS)])
def test_the_probe_is_the_optimum_of_its_loss(decay: float, x64: None) -> None:
    random = np.random.default_rng(0)
    x, y, query = random.normal(size=(8, 5)), np.arange(8) % 3, random.normal(size=(4, 5))
    found = probe_logits(Split(jnp.asarray(x), jnp.asarray(y)), jnp.asarray(query), 3, decay)
    entries = lambda x: np.c_[x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(len(x))]  # noqa: E731

    def loss(w: jax.Array) -> jax.Array:
        outputs = entries(x) @ w
        return jnp.mean(jax.nn.logsumexp(outputs, axis=1) - outputs[jnp.arange(8), y]) + decay / 2 * jnp.sum(w**2)

    flat = lambda v: loss(v.reshape(6, 3))  # noqa: E731
    newton = jax.jit(
        lambda v: v - jnp.linalg.solve(jax.hessian(flat)(v), jax.grad(flat)(v))
    )  # another way to the same optimum
    w = jnp.zeros(18)
    for _ in range(20):
        w = newton(w)
    np.testing.assert_allclose(found, entries(query) @ w.reshape(6, 3), rtol=1e-7)


def test_masked_examples_change_no_probe(x64: None) -> None:
    random = np.random.default_rng(1)
    x, y, query = random.normal(size=(6, 4)), jnp.array([0, 1, 0, 1, 0, 1]), jnp.asarray(random.normal(size=(3, 4)))
    few = probe_logits(Split(jnp.asarray(x[:4]), y[:4]), query, 2, 0.01)
    masked = probe_logits(Split(jnp.asarray(x), y, jnp.array([1.0, 1, 1, 1, 0, 0])), query, 2, 0.01)
    np.testing.assert_allclose(masked, few, rtol=1e-9)
    path, _ = LinearProbe(2, 0.01).path({}, Episode(Split(jnp.asarray(x[:4]), y[:4]), Split(query, y[:3])), 7)
    np.testing.assert_allclose(path[0], few)


@pytest.mark.parametrize("rotate", [False, True])
def test_features_beside_are_of_the_same_examples(rotate: bool) -> None:
    rows = np.arange(20, dtype=np.uint8)
    images = np.broadcast_to(rows[:, None, None, None], (20, 2, 2, 1))
    split = ClassSplit(images, np.array([0, 6, 11, 20]), ("a", "b", "c"), ("",) * 3)
    vectors = np.stack([np.cos(rows / 20), np.sin(rows / 20)], axis=1).astype(np.float32)
    shape, key = EpisodeShape(2, 2, 3), jax.random.key(3)
    tasks, pixels = on_device(split, (0.0,), (1 / 255,), rotate)
    beside = Features(jnp.asarray(vectors * 7), jnp.asarray(split.starts, jnp.int32))
    ours, theirs = (
        draw(t, shape, 4, s, key, jnp.asarray(0)) for t, s in ((tasks, pixels), (FeaturesBeside(tasks), beside))
    )
    for one, other in zip(ours, theirs, strict=True):
        numbers = np.rint(np.asarray(one.x)[..., 0, 0, 0]).astype(int)
        np.testing.assert_allclose(other.x, vectors[numbers], rtol=1e-5)
        np.testing.assert_array_equal(one.y, other.y)
    tasks, own = features_on_device(split.__class__(vectors, split.starts, split.classes, split.superclasses))
    again = [draw(t, shape, 2, own, key, jnp.asarray(0)).query.x for t in (tasks, FeaturesBeside(tasks))]
    np.testing.assert_allclose(*again)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on pictures whose shade is their class, and features of the same pictures."""
    home = tmp_path_factory.mktemp("rivals")
    random = np.random.default_rng(0)
    splits = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHAX_DATA", str(home / "data"))
        with StoreWriter(None, "shades", mean=(0.5,), std=(0.25,), source={}) as writer:
            for split in ("train", "val", "test"):
                numbers = np.repeat(np.arange(5), 8)
                array = writer.split(split, (16, 16, 1), [(f"{split}{i}", "", 8) for i in range(5)])
                array[:] = random.integers(0, 40, array.shape) + 40 * numbers[:, None, None, None].astype(np.uint8)
                splits[split] = FeatureSplit(
                    np.eye(5, dtype=np.float32)[numbers], numbers, [f"{split}{i}" for i in range(5)]
                )
        embeddings.write_features("shades-own", splits, None, {})
        embeddings.write_features(
            "shades-few", {s: FeatureSplit(p[0][:32], p[1][:32], p[2][:4]) for s, p in splits.items()}, None, {}
        )
        assert cli.main(["train", "shades", "--method", "l2f", *TINY, "--out", str(home / "run")]) == 0
        assert (
            cli.main(["train", "shades-own", "--method", "leo", *TINY[:6], *TINY[10:], "--out", str(home / "leo")]) == 0
        )
    return home


@pytest.fixture
def evaluate(home: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("LETHAX_DATA", str(home / "data"))
    monkeypatch.setattr(rivals, "TRIED", dict.fromkeys(rivals.TRIED, 3))
    monkeypatch.setattr(rivals, "STEPS", 4)
    return lambda run, *more: cli.main(["evaluate", str(home / run), "--episodes", "6", "--steps", "1", *more])


def test_baselines_stand_in_the_table(home: Path, evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("run", "--baselines", "--features", "shades-own") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 steps of the whole network on every episode" in said
    for line in ("nearest prototype, no learning", "linear probe on shades-own: decay",
                 "fine-tuning of the network on shades: rate",
                 "training from scratch on shades: rate", "steps 4, chosen on 3 validation episodes"):  # fmt: skip
        assert line in said, line
    assert "The baseline is better: nearest prototype on shades-own beats" in said
    (path,) = (home / "run" / "evaluations").glob("test-*.json")
    record = json.loads(path.read_text())
    assert list(record["baselines"]) == list(rivals.NAMES)
    for found in record["baselines"].values():
        scores, ours = np.array(found["per_episode"]), np.array(record["per_episode"])
        assert len(scores) == 6 and abs(scores.mean() - found["mean"]) < 1e-9
        assert abs((scores - ours).mean() - found["difference"]["mean"]) < 1e-9
        assert found["wins"] == (found["difference"]["mean"] > found["difference"]["ci95"])
    assert record["baselines"]["prototype"]["mean"] == record["baselines"]["probe"]["mean"] == 1.0


def test_json_and_the_same_numbers_again(home: Path, evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("run", "--baselines", "prototype", "probe", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert set(record["baselines"]) == {"prototype", "probe"}
    assert record["baselines"]["prototype"]["per_episode"] == record["nearest_prototype"]["per_episode"]
    assert record["baselines"]["probe"]["setting"]["decay"] in rivals.DECAYS


def test_settings_come_from_validation_alone(home: Path, evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged on other splits before the choice would raise here."""
    run = open_run(home / "run")
    contest = rivals.Contest(run.recipe, run.inputs, "test", 6, jax.random.key(0), None, None)
    seen, given = [], {"a": 0.2, "b": 0.9, "c": float("nan")}
    monkeypatch.setattr(
        rivals, "_scores", lambda contest, split, name, rival, *_: seen.append(split) or np.array([given[rival.judged]])
    )
    tried = [rivals.Rival(name, {}, {}) for name in given]
    best, chosen = rivals._chosen(contest, "probe", tried, lambda what, count, parts: parts)
    assert best.judged == "b" and chosen == "on 3 validation episodes" and set(seen) == {"val"}
    without = contest._replace(
        recipe=replace(run.recipe, data="shades-few", episode=replace(run.recipe.episode, way=9))
    )
    monkeypatch.undo()
    monkeypatch.setenv("LETHAX_DATA", str(home / "data"))
    probes = rivals._rivals(without, "probe")
    best, chosen = rivals._chosen(without, "probe", probes, lambda *_: [])
    why = "shades-few/val has 4 classes, but a 9-way episode needs 9: lower --way"
    assert best == probes[1] and chosen == f"without validation episodes ({why})"

    def diverges(*_):
        raise DivergedError("the scores are not finite.")

    monkeypatch.setattr(rivals, "_scores", diverges)
    with pytest.raises(DivergedError):  # which is no question of the data
        rivals._chosen(contest, "probe", probes, lambda *_: [])


@pytest.mark.parametrize(
    ("run", "more", "why"),
    [("run", ["--features", "shades-own"], "--features are read by baselines"),
     ("run", ["--baselines", "scratch", "--features", "shades-own"], "--features are what prototype and probe read"),
     ("run", ["--baselines", "probe", "--features", "shades-few"], "has other classes than shades/test"),
     ("run", ["--baselines", "probe", "--features", "shades"], "holds no features"),
     ("leo", ["--baselines", "finetune"], "finetune does not fit the method leo")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(run, more, why, evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, *more) in (1, 2)
    assert why in capsys.readouterr().err
    assert open_store("shades-own").features == 5
