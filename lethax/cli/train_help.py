"""The help of `lethax train` and `lethax recipe`, which lists the options that matter for the given data and method."""

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from lethax.cli import arguments, recipe_options
from lethax.errors import LethaxError
from lethax.progress import console
from lethax.recipe import Recipe, load, sections
from lethax.recipe.sections import Option, Range

_MORE = (
    "Which other options there are depends on the data and the method. `lethax train DATA --method M --help` lists them, with the "
    "values that would be used. `lethax recipe DATA --method M` prints the same as a recipe. Options are in these sections, and "
    "--gate.scope is `scope` in the section gate:"
)


def print_help(command: str, words: Sequence[str]) -> None:
    """Print the help of a command; `words` are the other words of the command line, which may name data and a method."""
    usage = f"usage: lethax {command} [DATA] [OPTIONS]"
    parts: list[Any] = [Text(f"{usage}\n\n{arguments.commands()[command].__doc__}")]
    asked = _asked(words)
    own = [(one, None) for one in _own(command)]
    if asked is None:
        common = [(one, None) for one in _common()]
        parts.append(recipe_options.help_of({"options": own, "common values of a recipe": common}, console.width))
        parts.append(Text(f"\n{_MORE}"))
        parts.append(Text("\n".join(_sections())))
    else:
        parts.append(Text(f"\nFor method {asked.method} on {asked.data}, with preset {asked.preset}."))
        parts.append(recipe_options.help_of({"options": own, **_values(asked)}, console.width))
    console.print(Group(*parts), soft_wrap=False)


def _own(command: str) -> Iterator[Option]:
    fields = arguments.TRAIN if command == "train" else arguments.SHOW_RECIPE
    for name, kind, _ in fields:
        base, *extras = typing.get_args(kind)
        switch = base is bool
        text = next(e.help for e in extras if getattr(e, "help", None))
        yield Option("", name, bool if switch else Path, text, None, Range(), name)


def _common() -> Iterator[Option]:
    yield from (one for one in recipe_options.every_option() if not one.section)
    known = sections.by_key()
    yield from (known[key] for key in recipe_options.COMMON)


def _sections() -> list[str]:
    return [f"  {name:12} {(section.__doc__ or '').splitlines()[0]}" for name, section in sections.SECTIONS.items()]


def _asked(words: Sequence[str]) -> Recipe | None:
    """The recipe that the words beside --help describe; None if they name neither data nor a method nor a recipe."""
    given, data, path, words = {}, None, None, list(words)
    known = {f"--{one.flag}": one for one in recipe_options.every_option()}
    paths = {f"--{one.name}" for one in _own("train") if one.kind is Path}
    while words:
        word, equals, value = words.pop(0).partition("=")
        one = known.get(recipe_options.normal(word))
        if word == "--recipe":
            path = value if equals else words.pop(0) if words else None
        elif word in paths:
            words = words if equals else words[1:]
        elif one is not None and one.kind is not bool:
            text = value if equals else words.pop(0) if words else ""
            parsed = _value(one, text)
            if parsed is not None:
                given[one.key if one.section else one.name] = parsed
        elif not word.startswith("-") and data is None:
            data = word
    if not (data or path or "method" in given):
        return None
    base = load(Path(path)) if path else Recipe()
    return base.with_values(**given, **({"data": data} if data else {}))


def _value(one: Option, text: str) -> Any:
    """A word as the value of an option; None if it is not one, which the parser reports."""
    for kind in typing.get_args(one.kind) if typing.get_origin(one.kind) is typing.Literal else (one.kind,):
        if kind == text or str(kind) == text:
            return kind
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                return None
    return None


def _values(asked: Recipe) -> Mapping[str, list[tuple[Option, Any]]]:
    """The options that the method and the data read, by section, with the values that would be used."""
    from lethax.recipe.resolve import fit, resolve

    try:
        recipe = fit(asked)[0]
    except LethaxError:  # the data set is not prepared yet, or too small: its usual values are known all the same
        recipe = resolve(asked)
    known = sections.by_key()
    top = [(one, getattr(recipe, one.name)) for one in recipe_options.every_option() if not one.section]
    groups: dict[str, list[tuple[Option, Any]]] = {"recipe": top}
    for key in recipe.used:
        groups.setdefault(known[key].section, []).append((known[key], recipe.value(key)))
    return groups
