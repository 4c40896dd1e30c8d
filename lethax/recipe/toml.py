"""Read and write recipes as TOML: a table for each section, and above each value its help as a comment."""

import json
import tomllib
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lethax.errors import OF_A_PLUGIN, RecipeError, did_you_mean
from lethax.recipe import sections
from lethax.recipe.record import TOP, Recipe, Resolved, key_of
from lethax.text import shown

_LARGEST_FILE = 1 << 20  # bytes; a complete recipe with its comments has about 8000
_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
TOP_KINDS = {name: kind for name, kind in typing.get_type_hints(Recipe).items() if name in TOP}


def load(path: Path, data: str | None = None) -> Recipe:
    """Read a recipe from a file, on other data if these are given.

    RecipeError names what is wrong, and for an unknown key the nearest known one. A recipe has to name its data.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise RecipeError(f"recipe {shown(path)} cannot be read: {getattr(error, 'strerror', error)}.") from None
    if len(raw) > _LARGEST_FILE:
        raise RecipeError(f"recipe {shown(path)} has more than {_LARGEST_FILE} bytes: it is no recipe.")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {shown(path)} is not text in UTF-8: it is no recipe.") from None
    values = _values(text, f"recipe {shown(path)}")
    if data is None and "data" not in values:
        raise RecipeError(
            f'recipe {shown(path)} names no data: add a line such as data = "sinusoid" above its sections.'
        )
    return Recipe(**{**values, **({"data": data} if data else {})})


def parse(text: str, name: str) -> Recipe:
    """Read a recipe from TOML text. RecipeError says what is wrong and where; `name` is what the text is called there.

    Keys outside of tables may be the short names of options ("shot"). A recipe without any table may be from before there were
    sections.
    """
    return Recipe(**_values(text, name))


def _values(text: str, name: str) -> dict[str, Any]:
    """The fields of the recipe."""
    try:
        source = tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{name} nests its values too deeply; expected one `key = value` a line.") from None
    except ValueError as error:  # TOML's own errors, and integers or dates that Python does not take
        raise RecipeError(f"{name} is not TOML: {error}; correct it there.") from None
    top: dict[str, Any] = {}
    given: dict[str, Any] = {}
    known, flat = sections.by_key(), not any(isinstance(value, dict) for value in source.values())
    for key, value in source.items():
        if isinstance(value, dict):
            of_section = _section(key, value, name)
            _refuse_twice(given, of_section, name)
            given |= of_section
        elif key in TOP:
            top[key] = read(value, TOP_KINDS[key], f"{name}: {key}")
        else:
            found = _flat(key, value, name)
            _refuse_twice(given, [found], name)
            given[found] = read(value, known[found].kind, f"{name}: {key}")
    return {**top, "given": given, "flat": flat and bool(given)}


def _refuse_twice(given: Collection[str], more: Collection[str], name: str) -> None:
    """RecipeError for an option that is given under two of its names."""
    for key in more:
        if key in given:
            raise RecipeError(f"{name} gives {key} twice, under two names: leave one out.")


def _section(section: str, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    if section not in sections.SECTIONS:
        hint = did_you_mean(section, sections.SECTIONS)
        raise RecipeError(f"{name} has a section [{shown(section, 60)}], which no recipe has.{hint}{OF_A_PLUGIN}")
    options, found = sections.options(section), {}
    for key, value in values.items():
        if key not in options:
            short = _short(key).partition(".")
            hint = f" Did you mean '{short[2]}'?" if short[0] == section else did_you_mean(key, options)
            raise RecipeError(f"{name} has a key '{shown(key, 60)}' in [{section}], which is no option.{hint}")
        found[f"{section}.{key}"] = read(value, options[key].kind, f"{name}: {section}.{key}")
    return found


def _short(name: str) -> str:
    """The key of an option by its name; "" where there is none."""
    try:
        return key_of(name)
    except RecipeError:
        return ""


def _flat(key: str, value: Any, name: str) -> str:
    try:
        return key_of(key)  # of `net` too, which is a section and the short name of one of its options
    except RecipeError as error:
        if key not in sections.SECTIONS:
            raise RecipeError(f"{name}: {error}") from None
    example = next(iter(sections.options(key).values())).key
    raise RecipeError(
        f"{name} has the value {_quoted(value)} for the section [{key}]; expected a table of its options, as in {example}."
    )


def dump(resolved: Resolved) -> str:
    """Write a resolved recipe: a table for each section that is read, and a line `key = value` for each option below its help."""
    lines = []
    for key, f in TOP.items():
        lines += [f"# {f.metadata['text']}", f"{key} = {write(getattr(resolved, key))}"]
    known = sections.by_key()
    for section in resolved.sections:
        lines += ["", f"[{section}]"]
        for one in (known[key] for key in resolved.used if known[key].section == section):
            lines += [f"# {one.text}", f"{one.name} = {write(resolved.value(one.key))}"]
    return "\n".join(lines) + "\n"


def write(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's but for two: DEL has to be escaped, and surrogate pairs must not be.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(write(item) for item in value) + "]"
    if isinstance(value, float):
        return float.__repr__(value)  # the shortest text that reads back to the same bits; inf and nan are TOML too
    return repr(value)


def read(value: Any, kind: Any, where: str) -> Any:
    """Convert a value to the type of an option. RecipeError says what was found and what was expected.

    Numbers and arrays of NumPy and JAX count as those of Python.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if typing.get_origin(kind) is typing.Literal:
        known = typing.get_args(kind)
        if value in known and type(value) in map(type, known):
            return value
        raise RecipeError(f"{where} is {_quoted(value)}.{_hint(value, known)} Expected {noun(kind)}.")
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(read(entry, typing.get_args(kind)[0], f"{where}[{i}]") for i, entry in enumerate(value))
    if kind is float and type(value) in (int, float):
        return _as_float(value, where)
    if type(value) is kind:
        return value
    raise RecipeError(f"{where} is {_quoted(value)}; expected {noun(kind)}.")


def _hint(value: Any, known: Collection[Any]) -> str:
    """The nearest choice; for the text of a number in place of the number, nothing that looks the same."""
    return "" if shown(value) in map(str, known) else did_you_mean(shown(value), map(str, known))


def _as_float(value: int | float, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise RecipeError(f"{where} is an integer of more than 300 digits; expected a number below 1e308.") from None


def _quoted(value: Any) -> str:
    return f"'{shown(value, 60)}'" if isinstance(value, str) else shown(value, 60)


def noun(kind: Any) -> str:
    """Describe the values of a type: "an integer", "a list, each entry a number", "one of: sum, mean"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of: {', '.join(map(str, args))}"
    if origin is tuple:
        return f"a list, each entry {noun(args[0])}"
    return _NOUNS.get(kind, str(kind))
