"""What is dumped reads back exactly; what does not fit is one sentence."""

import math
import tomllib
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import pytest

from lethax import toml
from lethax.errors import RecipeError


@dataclass(frozen=True)
class Sample:
    count: int = field(default=1, metadata={"help": "how many"})
    rate: float = field(default=0.1, metadata={"help": "first line\nsecond line"})
    on: bool = True
    name: str = "x"
    sizes: tuple[int, ...] = (1, 2)
    rates: tuple[float, ...] | None = None
    pair: tuple[int, str] = (1, "a")
    limit: int | None = None
    old: Optional[float] = None  # noqa: UP045  both spellings have to work


@dataclass(frozen=True)
class Required:
    count: int
    note: str | None


def round_trip(sample: Sample) -> Sample:
    return toml.parse(Sample, toml.dump(sample), "file")


def test_dump_is_this_text() -> None:
    assert toml.dump(Sample(limit=3)) == (
        "# how many\ncount = 1\n# first line\n# second line\nrate = 0.1\non = true\n"
        'name = "x"\nsizes = [1, 2]\npair = [1, "a"]\nlimit = 3\n'
    )


STRINGS = ["", '"', "\\", "a\nb\r\t", "\x00\x1f\x7f", "ü漢😀", "#no comment", "'''", '"""', "\u2028", "C:\\new", "\x85"]


@pytest.mark.parametrize("text", STRINGS)
def test_strings_round_trip(text: str) -> None:
    assert round_trip(Sample(name=text)).name == text


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1e-5, 1e16, 1e300, 5e-324, 1 / 3, math.inf, -math.inf, -2.5e-7])
def test_floats_round_trip_to_the_bit(value: float) -> None:
    found = round_trip(Sample(rate=value, rates=(value, 1.0), old=value))
    assert [x.hex() for x in (found.rate, *(found.rates or ()), found.old or 0.0)] == [
        x.hex() for x in (value, value, 1.0, value or 0.0)
    ]


def test_nan_and_numpy_floats_round_trip() -> None:
    import numpy as np

    assert math.isnan(round_trip(Sample(rate=math.nan)).rate)
    assert round_trip(Sample(rate=np.float64(0.1))).rate == 0.1


@pytest.mark.parametrize(
    "change",
    [{"count": -(2**62)}, {"on": False}, {"sizes": ()}, {"rates": ()}, {"limit": 0}, {"pair": (7, "#")}, {"old": 2.0}],
)
def test_everything_else_round_trips(change: dict[str, Any]) -> None:
    sample = replace(Sample(), **change)
    assert round_trip(sample) == sample
    assert toml.dump(round_trip(sample)) == toml.dump(sample)
    assert set(tomllib.loads(toml.dump(sample))) >= {"count", "rate", "on", "name", "sizes"}


def test_int_is_taken_where_a_float_is_expected() -> None:
    found = toml.parse(Sample, "rate = 3\nrates = [1, 2.5]", "file")
    assert type(found.rate) is float and found.rate == 3.0
    assert found.rates == (1.0, 2.5) and all(type(x) is float for x in found.rates)


def test_mapping_is_read_like_text() -> None:
    assert toml.parse(Sample, {"count": 5, "sizes": (4,)}, "options") == Sample(count=5, sizes=(4,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count = 1.5", "file: count is 1.5; expected an integer."),
        ("count = true", "file: count is True; expected an integer."),
        ("rate = true", "file: rate is True; expected a number."),
        ("rate = '1'", "file: rate is '1'; expected a number."),
        ("on = 1", "file: on is 1; expected true or false."),
        ("name = 3", "file: name is 3; expected a string."),
        ("name = 2020-01-01", "file: name is datetime.date(2020, 1, 1); expected a string."),
        ("sizes = 3", "file: sizes is 3; expected a list, each entry an integer."),
        ("sizes = [1, 'a']", "file: sizes[1] is 'a'; expected an integer."),
        ("pair = [1]", "file: pair has 1 entry; expected 2."),
        ("limit = 'a'", "file: limit is 'a'; expected an integer."),
        ("[count]\na = 1", "file: count is {'a': 1}; expected an integer."),
    ],
)
def test_wrong_type_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        toml.parse(Sample, text, "file")
    assert str(caught.value) == message


def test_unknown_key_gets_the_nearest_name() -> None:
    with pytest.raises(RecipeError) as caught:
        toml.parse(Sample, "cuont = 1", "file")
    assert str(caught.value) == "file has a key 'cuont', which is no field. Did you mean 'count'?"


@pytest.mark.parametrize("text", ["count = ", "count = 1\ncount = 2", "count = " + "9" * 5000])
def test_what_is_no_toml(text: str) -> None:
    with pytest.raises(RecipeError, match="file is not TOML: "):
        toml.parse(Sample, text, "file")


def test_fields_without_default() -> None:
    assert toml.parse(Required, "count = 1", "file") == Required(1, None)
    with pytest.raises(RecipeError, match="file lacks the field 'count', an integer; add it."):
        toml.parse(Required, "", "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "file nests its values too deeply"),
        ("a = " + "{b = " * 100_000, "file nests its values too deeply"),
        ("[" + ".".join("a" * 5_000) + "]", "file has a key 'a', which is no field."),
        ("rate = 1" + "0" * 400, "file: rate is an integer of more than 300 digits"),
        ("on = 0x" + "f" * 5000, "file: on is a very long int; expected true or false."),
        ("count = ['" + "x" * 5000 + "']", "file: count is ['xxxx"),
        ("count = 12:00:00", "file: count is datetime.time(12, 0); expected an integer."),
    ],
)
def test_what_no_recipe_has_is_one_short_sentence(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        toml.parse(Sample, text, "file")
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 200
