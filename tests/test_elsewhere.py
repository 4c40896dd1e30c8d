"""Runs that are judged on other data: test classes alone, the size and normalisation of training, and classes that were seen."""

import json

import numpy as np
import pytest
from PIL import Image

from lethax import cli
from lethax.data.decode import resize_array
from lethax.data.embeddings import write_features
from lethax.data.feature_files import split_of
from lethax.data.origin import Origin
from lethax.data.store import open_store
from lethax.data.writer import StoreWriter
from lethax.domains import features, images, prepared
from lethax.errors import RecipeError
from lethax.evaluation import score
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.report import scores
from lethax.runs.evaluation import Result
from lethax.streams import test_key as episodes_key

SPLITS = ("train", "val", "test")


def write_pictures(name, side, names, draws, mean=0.5, channels=1, same=None):
    """A data set of 4 pictures of 3 classes a split; `same`: pictures that stand first in the last test class."""
    with StoreWriter(None, name, mean=(mean,) * channels, std=(0.25,) * channels, source={}) as writer:
        for split in SPLITS:
            out = writer.split(split, (side, side, channels), [(f"{one} {split}", "", 4) for one in names])
            out[:] = draws.integers(0, 256, out.shape)
            if split == "test" and same is not None:
                out[8:10] = same


@pytest.fixture
def own(tmp_path, monkeypatch):
    """What a run keeps that was trained on the pictures of `own`, and its recipe."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    write_pictures("own", 16, "abc", np.random.default_rng(0), mean=0.2)
    recipe = resolve(Recipe.of(data="own", method="maml", way=2, shot=1, query=1, steps=2, filters=2, inner_steps=1))
    return recipe, images.DOMAIN.inputs(recipe)


def judged(own, data):
    """The record of what `report` says of other data, and the family that is drawn from."""
    recipe, inputs = own
    domain, there = images.DOMAIN.elsewhere(recipe, inputs, data)
    record = domain.report(there, "test", np.zeros((2, 2)), episodes_key(0))
    return {"data": data, **record}, domain.family(there, "test")


def test_pictures_have_the_size_and_the_normalisation_of_training(own):
    write_pictures("large", 20, ["A", "x", "y"], np.random.default_rng(1))
    record, family = judged(own, "large")
    assert family.source.images.shape == (12, 16, 16, 1) and family.tasks.mean == (0.2,) and not family.tasks.rotate
    about = record["elsewhere"]
    assert (about["trained_on"], about["checkpoint_chosen_on"]) == ("own", "own/val")
    assert (about["resized_from"], about["example"]) == ([20, 20, 1], [16, 16, 1])
    assert about["shared"] == {"classes": 3, "pictures": 12, "by_name": [], "by_picture": None, "seen": None}
    assert scores.elsewhere(record) == [
        "The pictures of large were resized from 20 x 20 to 16 x 16 pixels, and normalised as those of own.",
        "Whether pictures of large are among those of own was not looked at, because their shapes differ.",
    ]


def test_classes_that_were_seen_are_counted_by_name_and_by_picture(own, tmp_path):
    seen = open_store("own").splits["val"].images[:2]
    write_pictures("near", 16, ["p", "q", "r"], np.random.default_rng(2), same=seen)
    manifest = open_store("near").splits["test"].classes
    assert manifest == ("p test", "q test", "r test")
    record, family = judged(own, "near")
    np.testing.assert_array_equal(family.source.images, open_store("near").splits["test"].images)
    assert record["elsewhere"]["shared"] == {
        "classes": 3,
        "pictures": 12,
        "by_name": [],
        "by_picture": ["r test"],
        "seen": 2,
    }
    assert scores.elsewhere(record)[1:] == [
        "Of 3 test classes of near, 1 is by their pictures among those that the run was trained or chosen on (r test): this is "
        "not accuracy on new classes alone.",
        "2 of its 12 test pictures are, bit for bit, among those of own.",
    ]
    recipe, inputs = own
    known = inputs._replace(classes=("Q TEST", "a train"), sha256="0" * 64)  # the data set is another one by now
    record, _ = judged((recipe, known), "near")
    assert record["elsewhere"]["shared"] == {
        "classes": 3,
        "pictures": 12,
        "by_name": ["q test"],
        "by_picture": None,
        "seen": None,
    }
    assert "because own is not there as it was" in scores.elsewhere(record)[-1]


def test_the_runs_own_data_are_not_elsewhere_and_have_the_normalisation_of_training(own):
    record, family = judged(own, "own")
    assert "elsewhere" not in record and scores.elsewhere(record) == [] and family.tasks.mean == (0.2,)
    write_pictures("own", 16, "abc", np.random.default_rng(3), mean=0.7)  # prepared anew
    record, family = judged(own, "own")
    assert family.tasks.mean == (0.2,) and record["elsewhere"]["shared"]["by_picture"] is None


def test_colours_are_made_gray_for_a_run_on_gray_pictures_and_gray_ones_are_given_three_channels(own):
    write_pictures("colour", 20, ["A", "x", "y"], np.random.default_rng(4), channels=3)
    record, family = judged(own, "colour")
    assert family.source.images.shape == (12, 16, 16, 1) and record["elsewhere"]["resized_from"] == [20, 20, 3]
    assert scores.elsewhere(record)[0] == (
        "The pictures of colour were made gray, resized from 20 x 20 to 16 x 16 pixels, and normalised as those of own."
    )
    as_pillow = Image.fromarray(open_store("colour").splits["test"].images[3]).convert("L")
    as_pillow = as_pillow.resize((16, 16), Image.Resampling.BICUBIC, reducing_gap=3.0)
    np.testing.assert_array_equal(family.source.images[3, ..., 0], np.asarray(as_pillow))
    gray = open_store("own").splits["test"].images
    np.testing.assert_array_equal(resize_array(gray, (16, 16, 3)), np.repeat(gray, 3, 3))


def test_what_a_net_cannot_read_is_refused(own):
    write_pictures("seven", 16, "abc", np.random.default_rng(4), channels=7)
    with pytest.raises(RecipeError, match=r"seven has examples of shape \(16, 16, 7\), own of \(16, 16, 1\)"):
        images.DOMAIN.elsewhere(*own, "seven")


def test_the_title_says_what_the_runs_were_trained_on():
    record = {"data": "cub", "split": "test", "way": 5, "shot": 1, "inner_steps": 5, "seed": 0, "score": "accuracy", "n": 2,
              "elsewhere": {"trained_on": "miniimagenet"}}  # fmt: skip
    final = score(np.array([0.4, 0.6]))
    said = scores.title([Result(final, [final], record, None, {}, None)] * 2)
    assert said.startswith(
        "accuracy on 2 test episodes of cub, trained on miniimagenet: 5-way 1-shot, 5 inner steps, seed 0"
    )


def test_a_run_of_features_on_other_features(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    for seed, name in enumerate(("mine", "theirs")):
        draws = np.random.RandomState(seed)
        splits = {
            split: split_of(f"{split} of {name}", draws.randn(12, 4).astype(np.float32), np.repeat(np.arange(3), 4))
            for split in SPLITS
        }
        write_features(name, splits, None, {})
    options = (
        "--method maml --net mlp --way 2 --shot 1 --query 1 --filters 4 --steps 2 --epoch 2 --val-episodes 2".split()
    )
    folder = tmp_path / "run"
    assert cli.main(["train", "mine", *options, "--out", str(folder)]) == 0
    capsys.readouterr()
    judge = ["evaluate", str(folder), "--episodes", "3", "--steps", "1", "--data", "theirs"]
    assert cli.main(judge) == 0
    assert "accuracy on 3 test episodes of theirs, trained on mine" in " ".join(capsys.readouterr().out.split())
    record = json.loads((folder / "evaluations" / "theirs-test-seed0-n3-best1.json").read_text())
    about = record["elsewhere"]
    assert about["trained_on"] == "mine" and about["resized_from"] is None and about["shared"]["by_picture"] == []
    assert cli.main([*judge, "--split", "train"]) == 2
    assert "--split is train, but of other data only the test classes are judged" in capsys.readouterr().err


def test_features_of_another_network_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    splits = {s: split_of(s, np.eye(4, dtype=np.float32), np.repeat(np.arange(2), 2)) for s in SPLITS}
    write_features("mine", splits, None, {})
    inputs = prepared.inputs_of(open_store("mine"))
    recipe = resolve(Recipe.of(data="mine", method="maml", net="mlp", way=2, shot=1, query=1))
    other = inputs._replace(origin=Origin("efficientnet-lite0", 96, (32, 32, 3), "0" * 64))
    with pytest.raises(RecipeError, match="hold features of different networks"):
        features.DOMAIN.elsewhere(recipe, other, "mine")
