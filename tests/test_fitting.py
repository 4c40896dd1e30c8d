"""What `train` takes of a small data set, and what it says where nothing fits."""

import shlex

import numpy as np
import pytest

from lethax import cli
from lethax.cli.program import parsed
from lethax.cli.train import asked
from lethax.data.writer import StoreWriter
from lethax.errors import DataError
from lethax.recipe import Recipe
from lethax.recipe.resolve import fit


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Makes a store of the given (classes, images a class) of every split."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))

    def make(**splits):
        with StoreWriter(None, "birds", mean=[0.5], std=[0.5], source={}) as writer:
            for split, (classes, images) in splits.items():
                named = [(f"{split}{i}", "", images) for i in range(classes)]
                array = writer.split(split, (16, 16, 1), named)
                array[:] = np.arange(array.size, dtype=np.uint8).reshape(array.shape)

    return make


def shape(recipe):
    return recipe.episode.way, recipe.episode.shot, recipe.episode.query


def test_a_large_enough_store_takes_the_usual_values(birds):
    birds(train=(6, 20), val=(5, 20), test=(5, 20))
    recipe, note = fit(Recipe.of(data="birds"))
    assert (*shape(recipe), note) == (5, 5, 15, "")


def test_twenty_classes_of_ten_pictures_are_fitted_and_it_is_said(birds):
    birds(train=(13, 10), val=(3, 10), test=(4, 10))
    recipe, note = fit(Recipe.of(data="birds"))
    assert (*shape(recipe), recipe.episode.eval_query) == (3, 5, 5, 5)
    assert note.startswith(
        "way 3 instead of 5, query 5 instead of 15, to fit birds, which allows at most 3-way, because"
    )
    assert "at most 10, because class " in note


def test_what_is_given_stays(birds):
    birds(train=(13, 10), val=(3, 10), test=(4, 10))
    recipe, note = fit(Recipe.of(data="birds", shot=1, query=9))
    assert shape(recipe) == (3, 1, 9) and "query 9" not in note and "shot 1" not in note and "instead of 15" not in note


def test_a_test_split_that_is_too_small_is_said(birds):
    birds(train=(13, 10), val=(3, 10), test=(2, 10))
    recipe, note = fit(Recipe.of(data="birds", way=3))
    assert recipe.episode.way == 3 and "test split allows at most 2-way" in note and "cannot be evaluated" in note


def test_what_cannot_be_is_one_sentence_with_a_command_that_works(birds, capsys, tmp_path):
    birds(train=(13, 10), val=(3, 10), test=(4, 10))
    with pytest.raises(
        DataError, match="birds does not allow 5-way episodes of 5 shots and 15 queries a class"
    ) as caught:
        fit(Recipe.of(data="birds", way=5, method="maml"))
    said = str(caught.value)
    assert "at most 3-way, because val has 3 classes" in said
    command = shlex.split(said.partition("This fits: ")[2])
    assert command == ["lethax", "train", "birds", "--method", "maml", "--way", "3", "--shot", "5", "--query", "5"]
    assert fit(asked(parsed(command[1:])))[0].episode.way == 3
    assert cli.main(["train", "birds", "--way", "5", "--out", str(tmp_path / "run")]) == 1
    assert "This fits: lethax train birds --way 3" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_store_for_no_episode_at_all(birds):
    birds(train=(2, 1), val=(2, 1))
    with pytest.raises(DataError, match="prepare it again with more"):
        fit(Recipe.of(data="birds"))
