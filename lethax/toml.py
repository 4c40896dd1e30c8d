"""Flat, frozen dataclasses as TOML: typed, ordered, unknown keys refused."""

import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from lethax.errors import RecipeError, did_you_mean
from lethax.text import counted, shown

T = TypeVar("T")
_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a string", Path: "a path"}


def dump(instance: Any) -> str:
    """One `key = value` a field, in field order, its help text as a comment above; a None is left out."""
    lines: list[str] = []
    for f in fields(instance):
        value = getattr(instance, f.name)
        if value is None:
            continue
        lines.extend(f"# {line}" for line in f.metadata.get("help", "").splitlines())
        lines.append(f"{f.name} = {_write(value)}")
    return "\n".join(lines) + "\n"


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's but for two: DEL has to be escaped, and surrogate pairs must not be.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_write(item) for item in value) + "]"
    if isinstance(value, float):
        return float.__repr__(value)  # the shortest text that reads back to the same bits; inf and nan are TOML too
    return repr(value)


def parse(cls: type[T], source: str | Mapping[str, Any], name: str) -> T:
    """The dataclass from TOML text or a mapping; RecipeError names the file, the key and what was expected."""
    if isinstance(source, str):
        try:
            source = tomllib.loads(source)
        except RecursionError:
            raise RecipeError(f"{name} nests its values too deeply; expected one `key = value` a line.") from None
        except ValueError as error:  # TOML's own errors, and integers or dates that Python does not take
            raise RecipeError(f"{name} is not TOML: {error}; correct it there.") from None
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in source:
        if key not in known:
            raise RecipeError(f"{name} has a key '{shown(key, 60)}', which is no field.{did_you_mean(key, known)}")
    hints = typing.get_type_hints(cls)
    values = {key: _read(value, hints[key], f"{name}: {key}") for key, value in source.items()}
    for key, f in known.items():
        if key in values or f.default is not MISSING or f.default_factory is not MISSING:
            continue
        if type(None) not in _options(hints[key]):
            raise RecipeError(f"{name} lacks the field '{key}', {noun(hints[key])}; add it.")
        values[key] = None
    return cls(**values)


def _read(value: Any, kind: Any, where: str) -> Any:
    for option in _options(kind):
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            return _read_tuple(value, option, where)
        if option is float and type(value) in (int, float):
            return _as_float(value, where)
        if type(value) is option:
            return value
    raise RecipeError(f"{where} is {_quoted(value)}; expected {noun(kind)}.")


def _as_float(value: int | float, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise RecipeError(f"{where} is an integer of more than 300 digits; expected a number below 1e308.") from None


def _quoted(value: Any) -> str:
    try:
        return shown(repr(value), 60)
    except (ValueError, RecursionError):  # an integer of thousands of digits, which hexadecimal digits can write
        return f"a very long {type(value).__name__}"


def _read_tuple(value: list[Any] | tuple[Any, ...], kind: Any, where: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise RecipeError(f"{where} has {counted(len(value), 'entry')}; expected {len(kinds)}.")
    return tuple(_read(entry, k, f"{where}[{i}]") for i, (entry, k) in enumerate(zip(value, kinds, strict=True)))


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def noun(kind: Any) -> str:
    """What a value of a type is called: "an integer", "a list, each entry a number"."""
    parts = []
    for option in _options(kind):
        if typing.get_origin(option) is tuple:
            parts.append(f"a list, each entry {noun(typing.get_args(option)[0])}")
        elif option is not type(None):
            parts.append(_NOUNS.get(option, str(option)))
    return " or ".join(parts)
