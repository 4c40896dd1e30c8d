"""What is written reads back exactly; what does not fit is one sentence."""

import math
import tomllib
from typing import Any, Literal

import numpy as np
import pytest

from lethax.errors import RecipeError
from lethax.recipe import Recipe, dump, sections
from lethax.recipe.record import TOP
from lethax.recipe.resolve import resolve
from lethax.recipe.toml import noun, parse, read, write


def round_trip(value: Any) -> Any:
    return tomllib.loads(f"value = {write(value)}\n")["value"]


STRINGS = ["", '"', "\\", "a\nb\r\t", "\x00\x1f\x7f", "ü漢😀", "#no comment", "'''", '"""', "\u2028", "C:\\new", "\x85"]


@pytest.mark.parametrize("text", STRINGS)
def test_strings_round_trip(text: str) -> None:
    assert round_trip(text) == text


FLOATS = [0.0, -0.0, 0.1, 1e-5, 1e16, 1e300, 5e-324, 1 / 3, math.inf, -math.inf, -2.5e-7]


@pytest.mark.parametrize("value", FLOATS)
def test_floats_round_trip_to_the_bit(value: float) -> None:
    found = round_trip((value, value))
    assert [x.hex() for x in found] == [value.hex()] * 2 and type(found[0]) is float


def test_nan_and_numpy_floats_round_trip() -> None:
    assert math.isnan(round_trip(math.nan))
    assert round_trip(np.float64(0.1)) == 0.1


@pytest.mark.parametrize("value", [0, -(2**62), True, False, (), (1, 2), (0.5, 1.0)])
def test_everything_else_round_trips(value: Any) -> None:
    found = round_trip(value)
    assert found == (list(value) if isinstance(value, tuple) else value) and write(found) == write(value)


def test_dump_is_a_table_a_section_with_the_help_above_each_value() -> None:
    text = dump(resolve(Recipe.of(data="sinusoid", method="imaml", seed=7, proximity=3)))
    assert f"# {TOP['seed'].metadata['text']}\nseed = 7\n" in text
    help_ = sections.by_key()["imaml.proximity"].text
    assert text.endswith(f"\n\n[imaml]\n# {help_}\nproximity = 3.0\n")
    assert [line for line in text.splitlines() if line.startswith("[")] == [
        "[episode]", "[net]", "[inner]", "[outer]", "[imaml]",
    ]  # fmt: skip


def test_integers_are_taken_where_numbers_are_expected() -> None:
    found = parse("[inner]\nrate = 3\n[gate]\nfixed = [1, 2.5]", "file").given
    assert found == {"inner.rate": 3.0, "gate.fixed": (1.0, 2.5)}
    assert type(found["inner.rate"]) is float and all(type(x) is float for x in found["gate.fixed"])


def test_every_short_name_is_read_outside_of_tables() -> None:
    """As in recipes from before there were sections: `net` is also the name of a section."""
    for one in sections.by_key().values():
        if one.short:
            text = f"{one.short.replace('-', '_')} = {write(one.default)}"
            found = parse(text, "file")
            assert found.given == {one.key: one.default} and found.flat, text


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (1.5, int, "here is 1.5; expected an integer."),
        (True, int, "here is True; expected an integer."),
        (True, float, "here is True; expected a number."),
        ("1", float, "here is '1'; expected a number."),
        (1, bool, "here is 1; expected true or false."),
        (3, str, "here is 3; expected a string."),
        (3, tuple[int, ...], "here is 3; expected a list, each entry an integer."),
        ([1, "a"], tuple[int, ...], "here[1] is 'a'; expected an integer."),
        ({"a": 1}, int, "here is {'a': 1}; expected an integer."),
        (True, Literal[1, 2], "here is True. Expected one of: 1, 2."),
        (2.0, Literal[1, 2], "here is 2.0. Did you mean '2'? Expected one of: 1, 2."),
        ("meen", Literal["sum", "mean"], "here is 'meen'. Did you mean 'mean'? Expected one of: sum, mean."),
    ],
)
def test_wrong_type_is_one_sentence(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(value, kind, "here")
    assert str(caught.value) == message


def test_kinds_have_names() -> None:
    assert noun(tuple[float, ...]) == "a list, each entry a number" and noun(Literal["a", 2]) == "one of: a, 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[gaet]\nscope = 1",
            "file has a section [gaet], which no recipe has. Did you mean 'gate'? "
            "If a plugin adds it, name the plugin with --plugin FILE.",
        ),
        ("[gate]\nscop = 1", "file has a key 'scop' in [gate], which is no option. Did you mean 'scope'?"),
        ("shto = 1", "file: no option is called 'shto'. Did you mean 'shot'?"),
        ("[gate]\nscope = 'x'", "file: gate.scope is 'x'. Expected one of: network, layer, tensor, filter, parameter."),
        ("shot = 1.5", "file: shot is 1.5; expected an integer."),
        ("seed = 'x'", "file: seed is 'x'; expected an integer."),
        ("data = 2020-01-01", "file: data is 2020-01-01; expected a string."),
        ("gate = 3", "file has the value 3 for the section [gate]; expected a table of its options, as in gate.scope."),
        (
            "[shot]\na = 1",
            "file has a section [shot], which no recipe has. If a plugin adds it, name the plugin with --plugin FILE.",
        ),
    ],
)
def test_what_no_recipe_has_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, "file")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["count = ", "count = 1\ncount = 2", "count = " + "9" * 5000])
def test_what_is_no_toml(text: str) -> None:
    with pytest.raises(RecipeError, match="file is not TOML: "):
        parse(text, "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "file nests its values too deeply"),
        ("a = " + "{b = " * 100_000, "file nests its values too deeply"),
        (
            "[" + ".".join("a" * 5_000) + "]",
            "file has a section [a], which no recipe has. If a plugin adds it, name the plugin with --plugin FILE.",
        ),
        ("[inner]\nrate = 1" + "0" * 400, "file: inner.rate is an integer of more than 300 digits"),
        ("rotate = 0x" + "f" * 5000, "file: rotate is a very long int; expected true or false."),
        ("order = 0x" + "f" * 5000, "file: order is a very long int. Expected one of: 1, 2."),
        ("shot = ['" + "x" * 5000 + "']", "file: shot is ['xxxx"),
        ("shot = 12:00:00", "file: shot is 12:00:00; expected an integer."),
        ("x" * 5000 + " = 1", "file: no option is called 'xxxx"),
        ("[" + "x" * 5000 + "]", "file has a section [xxxx"),
    ],
)
def test_what_is_odd_is_one_short_sentence(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, "file")
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 200
