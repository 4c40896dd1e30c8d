"""Features: every form is read, hostile or broken ones are not, and images become features that a method trains on."""

import json
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy

from lethax import assemble, cli, embed, folders, pretrain
from lethax.baselines import prototype_logits
from lethax.data import embeddings
from lethax.data.source import Features, FeatureTasks, features_on_device
from lethax.data.store import StoreWriter, open_store
from lethax.errors import DataError, RecipeError
from lethax.nets import Conv4
from lethax.recipe import Recipe, resolve
from lethax.records import EpisodeShape
from lethax.report import cells, tables

SPLITS = ("train", "val", "test")
quiet = lambda what, share: None  # noqa: E731


def made(seed=0, classes=("n02", "n01"), each=4):
    """Features whose first entry numbers the row, and the class of each, mixed."""
    random = np.random.RandomState(seed)
    labels = np.array([classes[i % len(classes)] for i in range(each * len(classes))])
    features = random.randn(len(labels), 3).astype(np.float32)
    features[:, 0] = np.arange(len(labels))
    return features, labels


def pickles(folder, keys=None, protocol=2):
    for split in SPLITS:
        features, labels = made()
        names = keys or [f"{i:03d}-{c}-{c}_{i}" for i, c in enumerate(labels)]
        content = {"embeddings": features, "keys": names, "labels": [1]}
        (folder / f"{split}_embeddings.pkl").write_bytes(pickle.dumps(content, protocol))
    return folder


def safetensor(folder):
    arrays, names = {}, {}
    for split in SPLITS:
        features, labels = made()
        names[split], numbers = np.unique(labels, return_inverse=True)
        arrays |= {f"{split}/features": features, f"{split}/labels": numbers}
    path = folder / "made.safetensors"
    safetensors.numpy.save_file(arrays, path, {"classes": json.dumps({s: n.tolist() for s, n in names.items()})})
    return path


def npz(folder):
    features, labels = made()
    path = folder / "made.npz"
    split = np.repeat(SPLITS, len(labels))
    np.savez(path, features=np.tile(features, (3, 1)), labels=np.tile(labels, 3), split=split)
    return path


def npy(folder):
    for split in SPLITS:
        features, labels = made()
        np.save(folder / f"{split}_features.npy", features)
        np.save(folder / f"{split}_labels.npy", labels)
    return folder


@pytest.mark.parametrize("form", [pickles, safetensor, npz, npy])
def test_every_form_gives_the_same_store(form, tmp_path):
    (tmp_path / "source").mkdir()
    source = form(tmp_path / "source")
    assert embeddings.prepare_features(source, tmp_path / "root", quiet, name="made") == ["made"]
    store = open_store("made", tmp_path / "root")
    assert store.features == 3 and set(store.splits) == set(SPLITS)
    split = store.splits["train"]
    assert split.classes == ("n02", "n01") and split.starts.tolist() == [0, 4, 8]
    assert split.images[:, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert split.images.dtype == np.float32


class Hostile:
    def __reduce__(self):
        return (print, ("never",))


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda folder: (folder / "train_embeddings.pkl").write_bytes(pickle.dumps(Hostile())), "was not read"),
        (lambda folder: (folder / "val_embeddings.pkl").write_bytes(b"\x80\x02}q\x00."), "no embeddings and keys"),
        (lambda folder: pickles(folder, [f"{i}-a-b_{i}" for i in range(8)]), "has the key '0-a-b_0'"),
        (lambda folder: pickles(folder, ["0-a-a_0"] * 8), "every image once"),
        (lambda folder: (folder / "test_embeddings.pkl").write_bytes(b"\x80\x02"), "is damaged"),
    ],
)
def test_broken_pickles(spoil, message, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    pickles(source)
    embeddings.prepare_features(source, tmp_path / "root", quiet, name="made")
    spoil(source)
    with pytest.raises(DataError, match=message):
        embeddings.prepare_features(source, tmp_path / "root", quiet, name="made")
    assert open_store("made", tmp_path / "root").features == 3  # the earlier store is as it was
    assert "never" not in capsys.readouterr().out


def test_other_broken_sources(tmp_path):
    read = lambda path: embeddings.prepare_features(path, tmp_path / "root", quiet)  # noqa: E731
    with pytest.raises(DataError, match="does not exist; expected"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no features that are known"):
        read(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="a.npz cannot be read"):
        read(tmp_path / "a.npz")
    (tmp_path / "a.safetensors").write_bytes(b"{}")
    with pytest.raises(DataError, match="a.safetensors cannot be read"):
        read(tmp_path / "a.safetensors")
    features, labels = made()
    features[5, 1] = np.nan
    np.savez(tmp_path / "b.npz", features=features, labels=labels, split=np.repeat("train", 8))
    with pytest.raises(DataError, match="vector 5 has an entry that is NaN"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", features=features[:, 0], labels=labels, split=np.repeat("train", 8))
    with pytest.raises(DataError, match=r"features float32\[8\] and labels"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", features=made()[0], labels=labels, split=np.repeat("test", 8))
    with pytest.raises(DataError, match="expected train"):
        read(tmp_path / "b.npz")


def test_draws_are_whole_classes_without_repeats(tmp_path, key):
    embeddings.write_features("made", {"train": made(classes=("a", "b", "c"), each=5)}, tmp_path, {})
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
    splits = embed.features_of(pictures, backbone, lambda *_: None)
    assert splits["test"][0].shape == (80, 4) and splits["test"][1][79] == "test3"
    reference, images = embed.reference_of(pictures), pictures.splits["test"].images
    read = lambda x: np.concatenate(list(pretrain.read(net, backbone.weights, reference, x, (0.5,), (0.25,))))  # noqa: E731
    np.testing.assert_allclose(read(images[7:8]), splits["test"][0][7:8], rtol=1e-4, atol=1e-5)
    embed.write(tmp_path / "out.safetensors", splits)
    again = embeddings.read_features(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(again["val"][0], splits["val"][0])
    np.testing.assert_array_equal(again["val"][1], splits["val"][1])
    with pytest.raises(RecipeError, match="conv4 or resnet12"):
        embed.net_for("vgg", pictures, 4)


def test_recipes_of_features(pictures, tmp_path):
    embeddings.write_features("made", {s: made(classes=tuple("abcdef"), each=20) for s in SPLITS}, tmp_path, {})
    leo = resolve(Recipe(data="made", method="leo+l2f", shot=1, query=5))
    assert (leo.batch, leo.outer_rate, leo.clip_tensor_norm, leo.leo_kl) == (12, 2.739071e-4, 0.1, 0.756143)
    assert assemble.learner(leo).net.inputs == 3 and assemble.learner(leo).start.scope == "filter"
    plain = resolve(Recipe(data="made", method="l2f", net="mlp", query=5))
    assert assemble.learner(plain).net.hidden == (100, 100)
    with pytest.raises(RecipeError, match="'conv4' does not fit data 'made': it holds features"):
        assemble.learner(resolve(Recipe(data="made", method="maml", query=5)))
    with pytest.raises(RecipeError, match="'mlp' does not fit data 'pictures': it holds images"):
        assemble.learner(resolve(Recipe(data="pictures", method="maml", net="mlp")))
    with pytest.raises(RecipeError, match="leo takes features, and it holds images: see lethax embed"):
        assemble.learner(resolve(Recipe(data="pictures", method="leo")))
    with pytest.raises(DataError, match="made holds features; embed reads images"):
        embed.images_of("made")
    assert jax.eval_shape(assemble.learner(leo).init, jax.random.key(0))["start"]["weight"]["layer0"][
        "weight"
    ].shape == (3, 3)


def test_nearest_prototype(x64):
    """Against distances written out."""
    two = prototype_logits(
        jax.numpy.array([[1.0, 2], [0, -1]]), jax.numpy.array([0, 1]), jax.numpy.array([[0.5, 0.25]]), 2
    )
    np.testing.assert_allclose(two, [[-3.3125, -1.8125]], atol=1e-9)
    random = np.random.RandomState(0)
    x, query = random.randn(6, 3), random.randn(4, 3)
    y = np.array([0, 1, 2, 0, 1, 2])
    got = prototype_logits(jax.numpy.asarray(x), jax.numpy.asarray(y), jax.numpy.asarray(query), 3)
    for c in range(3):
        expected = -((query - x[y == c].mean(axis=0)) ** 2).sum(axis=1)
        np.testing.assert_allclose(got[:, c], expected, rtol=1e-12)


def test_features_from_training_to_numbers(tmp_path, monkeypatch):
    """LEO+L2F on clusters far apart, by the command line; the baseline stands beside it."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    random = np.random.RandomState(0)
    labels = np.repeat(np.arange(6), 20)
    features = (4 * np.eye(6)[labels] + random.randn(120, 6)).astype(np.float32)
    embeddings.write_features("made", {split: (features, labels) for split in SPLITS}, None, {})
    monkeypatch.setattr(assemble, "CHUNK", 10)
    options = ["--shot", "2", "--query", "4", "--batch", "2", "--steps", "20", "--epoch", "10", "--val-episodes", "20"]
    run = str(tmp_path / "run")
    assert cli.main(["train", "made", "--method", "leo+l2f", *options, "--out", run]) == 0
    assert cli.main(["evaluate", run, "--episodes", "40", "--steps", "5"]) == 0
    judged = next((tmp_path / "run" / "evaluations").glob("*.json"))
    record = json.loads(judged.read_text())
    assert record["nearest_prototype"]["mean"] > 0.9 and record["mean"] > 0.8
    assert [gate["name"] for gate in record["gates"]] == ["latent", "weight"] and len(record["by_inner_steps"]) == 6
    recipe = folders.open_run(tmp_path / "run").recipe
    row = tables.entry(cells.Cell("x/leo", recipe, None), recipe, [tmp_path / "run"], judged.name, "lethax")
    assert row["nearest_prototype"] == {k: 100 * record["nearest_prototype"][k] for k in ("mean", "ci95")}
