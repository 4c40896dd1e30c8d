"""Flat, frozen dataclasses as TOML: typed, ordered, unknown keys refused."""

import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from lethax.errors import RecipeError, did_you_mean

T = TypeVar("T")


def dump(instance: Any) -> str:
    """One `key = value` a field, in field order, its help text as a comment above; a None is left out."""
    lines = []
    for f in fields(instance):
        value = getattr(instance, f.name)
        if value is None:
            continue
        if "help" in f.metadata:
            lines.append(f"# {f.metadata['help']}")
        lines.append(f"{f.name} = {_write(value)}")
    return "\n".join(lines) + "\n"


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_write(item) for item in value) + "]"
    return repr(value)  # of floats: the shortest text that reads back to the same bits; inf and nan are TOML too


def parse(cls: type[T], source: str | Mapping[str, Any], name: str) -> T:
    """The dataclass from TOML text or a mapping; RecipeError names the file, the key and what was expected."""
    if isinstance(source, str):
        try:
            source = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{name} is not TOML: {error}.") from None
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in source:
        if key not in known:
            raise RecipeError(f"{name} has no field '{key}'.{did_you_mean(key, known)} Fields: {', '.join(known)}.")
    hints = typing.get_type_hints(cls)
    values = {key: _read(value, hints[key], f"{name}: {key}") for key, value in source.items()}
    for key, f in known.items():
        if key not in values and f.default is MISSING and f.default_factory is MISSING:
            raise RecipeError(f"{name} lacks the field '{key}'.")
    return cls(**values)


def _read(value: Any, kind: Any, where: str) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list):
            item = typing.get_args(option)[0]
            return tuple(_read(entry, item, where) for entry in value)
        if option is float and type(value) in (int, float):
            return float(value)
        if type(value) is option:
            return value
    expected = " or ".join(getattr(o, "__name__", str(o)) for o in options if o is not type(None))
    raise RecipeError(f"{where} is {value!r}; expected {expected}.")
