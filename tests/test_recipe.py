"""Recipes from files, and values that cannot be: one sentence each."""

import pytest

from lethax.errors import RecipeError
from lethax.recipe import Recipe, load
from lethax.recipe.resolve import resolve


@pytest.mark.parametrize(
    "values,message",
    [
        ({"seed": -1}, "seed is -1; it has to be from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; it has to be from 0"),
        ({"seed": 10**22}, "seed is 10000000000000000000000; it has"),
        ({"seed": 10**5000}, "seed is a number of more than 24 digits; it has"),
        ({"data": "birds", "way": 1}, "episode.way is 1; with one class there is nothing to tell apart"),
        ({"way": 5}, "episode.way is 5; data 'sinusoid' has no classes: leave --way out"),
        ({"data": "navigation", "way": 2}, "data 'navigation' has no classes"),
        ({"steps": 10**400}, "outer.steps is a number of more than 24 digits; it has to be below"),
        ({"filters": 2**31}, "net.filters is 2147483648; it has to be below 2147483648"),
        ({"first_order_steps": -1}, "inner.first_order_steps is -1; it has to be at least 0"),
        ({"inner_rate": float("inf")}, "inner.rate is inf; it has to be a finite number"),
        ({"gate_embedding_scale": float("nan")}, "gate.embedding_scale is nan; it has to be a finite"),
        ({"gate_fixed": (1.0, float("nan"))}, "gate.fixed is nan; it has to be a finite number"),
        ({"method": "\x1b[31ml2g"}, r"no method is called '\\x1b\[31ml2g'"),
        ({"rule": "x" * 10_000}, r"^inner.rule is 'xx+\.\.\.x+'\. Expected"),
    ],
)
def test_values_that_cannot_be(values, message):
    with pytest.raises(RecipeError, match=message) as caught:
        resolve(Recipe.of(**values))
    assert len(str(caught.value)) < 400


def test_largest_seed_is_taken():
    assert resolve(Recipe(seed=2**32 - 1)).seed == 2**32 - 1


@pytest.mark.parametrize(
    "content,message",
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"#" * (2 << 20), "has more than 1048576 bytes"),
        (b"data = [[[[", "is not TOML"),
        (b"inner_raet = 0.1", "no option is called 'inner_raet'. Did you mean 'inner_rate'?"),
        (b"inner_rate = 'fast'", "inner_rate is 'fast'; expected a number"),
    ],
)
def test_files_that_are_no_recipe(content, message, tmp_path):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert message in str(caught.value) and len(str(caught.value)) < 400


def test_a_recipe_with_windows_line_ends_is_read(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(b'data = "sinusoid"\r\nseed = 3\r\n')
    assert load(tmp_path / "recipe.toml") == Recipe(seed=3)


@pytest.mark.parametrize("name", ["a\x1b[31m", "two words", "../up", "Sinusoid", ""])
def test_a_data_set_s_name_is_checked(name):
    with pytest.raises(RecipeError, match="the name of a data set has lower-case letters") as caught:
        resolve(Recipe.of(data=name, way=5, shot=1, query=1))
    assert str(caught.value).isprintable()
