"""Stores of features: images become features that a method trains on."""

import json

import jax
import numpy as np
import pytest

from lethax import cli, embed, pretrain
from lethax.baselines import prototype_logits
from lethax.data import embeddings
from lethax.data.feature_files import read_features, split_of
from lethax.data.source import Features, FeatureTasks, features_on_device
from lethax.data.store import open_store
from lethax.data.writer import StoreWriter
from lethax.domains import domain_of, supervised
from lethax.errors import DataError, RecipeError
from lethax.nets import Conv4
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.records import EpisodeShape, Split
from lethax.report import cells, table_rows
from lethax.runs import folder as folders
from lethax.runs import making

SPLITS = ("train", "val", "test")
quiet = lambda what, share: None  # noqa: E731


def made(classes=("n02", "n01"), each=4, seed=0):
    """Features whose first entry numbers the row, and the class of each, mixed."""
    random = np.random.RandomState(seed)
    labels = np.array([classes[i % len(classes)] for i in range(each * len(classes))])
    features = random.randn(len(labels), 3).astype(np.float32)
    features[:, 0] = np.arange(len(labels))
    return features, labels


def test_draws_are_whole_classes_without_repeats(tmp_path, key):
    embeddings.write_features("made", {"train": split_of("", *made(classes=("a", "b", "c"), each=5))}, tmp_path, {})
    split = open_store("made", tmp_path).splits["train"]
    tasks, source = features_on_device(split)
    unscaled = tasks.__class__(tasks.sizes, unit=False)
    episode = unscaled.draw(source, EpisodeShape(2, 2, 3), key)
    rows = np.concatenate([episode.support.x[:, 0], episode.query.x[:, 0]]).astype(int)
    assert len(set(rows.tolist())) == 10
    by_label = {y: {int(r) % 3 for r in episode.support.x[episode.support.y == y, 0]} for y in (0, 1)}
    assert all(len(classes) == 1 for classes in by_label.values()) and by_label[0] != by_label[1]
    lengths = np.linalg.norm(tasks.draw(source, EpisodeShape(2, 2, 3), key).query.x, axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-6)


def test_vectors_have_length_one(x64, key):
    """Of (3, 4, 0) the direction (0.6, 0.8, 0)."""
    source = Features(jax.numpy.array([[3.0, 4, 0]] * 2), jax.numpy.array([0, 1, 2]))
    episode = FeatureTasks((1, 1)).draw(source, EpisodeShape(2, 1, 0), key)
    np.testing.assert_allclose(episode.support.x, [[0.6, 0.8, 0]] * 2, atol=1e-9)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Four classes of dark to bright pictures, as a store of images."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    random = np.random.RandomState(0)
    with StoreWriter(tmp_path, "pictures", mean=(0.5,), std=(0.25,), source={}) as writer:
        for split in SPLITS:
            out = writer.split(split, (16, 16, 1), [(f"{split}{c}", "", 20) for c in range(4)])
            for c in range(4):
                out[c * 20 : (c + 1) * 20] = (60 * c + random.randint(0, 60, (20, 16, 16, 1))).astype(np.uint8)
    return open_store("pictures")


def test_a_backbone_learns_and_its_features_do_not_depend_on_neighbours(pictures, tmp_path):
    net = embed.net_for("conv4", pictures, 4)
    assert net == Conv4(4, 16, 1, 4)
    seen = []
    how = pretrain.Schooling(steps=60, batch=16, rate=0.1, padding=1)
    backbone = embed.school(pictures, net, how, 0, lambda done, total, note: seen.append((done, total)))
    assert backbone.accuracy > 0.6 and seen[-1] == (60, 60)
    splits = embed.features_of(pictures, backbone.reading(pictures), lambda *_: None)
    assert splits["test"][0].shape == (80, 4) and splits["test"].numbers[79] == 3 and splits["test"].names[3] == "test3"
    reference, images = embed.reference_of(pictures), pictures.splits["test"].images
    read = lambda x: np.concatenate(list(pretrain.read(net, backbone.weights, reference, x, (0.5,), (0.25,))))  # noqa: E731
    np.testing.assert_allclose(read(images[7:8]), splits["test"][0][7:8], rtol=1e-4, atol=1e-5)
    embed.write(tmp_path / "out.safetensors", splits)
    again = read_features(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(again["val"][0], splits["val"][0])
    np.testing.assert_array_equal(again["val"][1], splits["val"][1])
    with pytest.raises(RecipeError, match="conv4 or resnet12"):
        embed.net_for("vgg", pictures, 4)


@pytest.mark.parametrize("method, fits", [("l2f", True), ("cavia", False), ("mumomaml", False)])
def test_a_run_is_a_backbone_only_if_its_weights_are_those_of_a_network_alone(
    method, fits, pictures, tmp_path, monkeypatch, key
):
    recipe = resolve(Recipe.of(data="pictures", method=method, way=2, shot=1, query=1, filters=2))
    folder = making.create(recipe, tmp_path / method).folder
    monkeypatch.setattr(embed, "best_metas", lambda run, count: ([run.learner().init(key)], [0]))
    if fits:
        assert embed.from_run(folder).net == Conv4(2, 16, 1, 2, conv_form="native")
    else:
        with pytest.raises(RecipeError, match=f"is of method {method}, whose weights are not those of a network alone"):
            embed.from_run(folder)


def learner_of(recipe):
    domain = domain_of(recipe)
    return domain.learner(recipe, domain.inputs(recipe))


def test_recipes_of_features(pictures, tmp_path):
    embeddings.write_features("made", {s: split_of("", *made(tuple("abcdef"), 20)) for s in SPLITS}, tmp_path, {})
    leo = resolve(Recipe.of(data="made", method="leo+l2f", shot=1, query=5))
    assert (leo.outer.batch, leo.outer.rate, leo.outer.clip_tensor_norm, leo.leo.kl) == (12, 2.739071e-4, 0.1, 0.756143)
    assert learner_of(leo).net.inputs == 3 and learner_of(leo).start.scope == "filter"
    plain = resolve(Recipe.of(data="made", method="l2f", net="mlp", query=5))
    assert learner_of(plain).net.hidden == (100, 100)
    with pytest.raises(RecipeError, match="'conv4' does not fit data 'made': it holds features"):
        learner_of(resolve(Recipe.of(data="made", method="maml", net="conv4", query=5)))
    with pytest.raises(RecipeError, match="'mlp' does not fit data 'pictures': it holds images"):
        learner_of(resolve(Recipe.of(data="pictures", method="maml", net="mlp", way=2)))
    with pytest.raises(RecipeError, match="leo takes features, and it holds images: see lethax embed"):
        learner_of(resolve(Recipe.of(data="pictures", method="leo", way=2)))
    with pytest.raises(DataError, match="made holds features; embed reads images"):
        embed.images_of("made")
    assert jax.eval_shape(learner_of(leo).init, jax.random.key(0))["start"]["weight"]["layer0"]["weight"].shape == (
        3,
        3,
    )


def test_nearest_prototype(x64):
    """Against distances written out."""
    pair = Split(jax.numpy.array([[1.0, 2], [0, -1]]), jax.numpy.array([0, 1]))
    two = prototype_logits(pair, jax.numpy.array([[0.5, 0.25]]), 2)
    np.testing.assert_allclose(two, [[-3.3125, -1.8125]], atol=1e-9)
    random = np.random.RandomState(0)
    x, query = random.randn(6, 3), random.randn(4, 3)
    y = np.array([0, 1, 2, 0, 1, 2])
    got = prototype_logits(Split(jax.numpy.asarray(x), jax.numpy.asarray(y)), jax.numpy.asarray(query), 3)
    for c in range(3):
        expected = -((query - x[y == c].mean(axis=0)) ** 2).sum(axis=1)
        np.testing.assert_allclose(got[:, c], expected, rtol=1e-12)


def test_features_from_training_to_numbers(tmp_path, monkeypatch):
    """LEO+L2F on clusters far apart, by the command line; the baseline stands beside it."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    random = np.random.RandomState(0)
    labels = np.repeat(np.arange(6), 20)
    features = (4 * np.eye(6)[labels] + random.randn(120, 6)).astype(np.float32)
    embeddings.write_features("made", {split: split_of("", features, labels) for split in SPLITS}, None, {})
    monkeypatch.setattr(supervised, "CHUNK", 10)
    options = ["--shot", "2", "--query", "4", "--batch", "2", "--steps", "20", "--epoch", "10", "--val-episodes", "20"]
    options += ["--inner-steps", "1"]  # of the weights
    run = str(tmp_path / "run")
    assert cli.main(["train", "made", "--method", "leo+l2f", *options, "--out", run]) == 0
    assert cli.main(["evaluate", run, "--episodes", "40", "--steps", "2"]) == 0
    judged = next((tmp_path / "run" / "evaluations").glob("*.json"))
    record = json.loads(judged.read_text())
    assert record["nearest_prototype"]["mean"] > 0.9 and record["mean"] > 0.8
    assert [gate["name"] for gate in record["gates"]] == ["latent", "weight"] and len(record["by_inner_steps"]) == 3
    recipe = folders.open_run(tmp_path / "run").recipe
    row = table_rows.entry(
        cells.Cell("x/leo", Recipe.of(data="made", method="leo+l2f"), None),
        recipe,
        [tmp_path / "run"],
        judged.name,
        "lethax",
    )
    assert row["nearest_prototype"] == {k: 100 * record["nearest_prototype"][k] for k in ("mean", "ci95")}
