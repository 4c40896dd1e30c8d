"""The help of the commands that take values of a recipe, which lists the options that matter for the given data and method."""

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from lethax.cli import commands, recipe_options, train
from lethax.cli.fields import WITH_RECIPE
from lethax.errors import LethaxError
from lethax.progress import console
from lethax.recipe import Recipe, sections
from lethax.recipe.options import Option, Range

_MORE = (
    "Which other options there are depends on the data and the method. `lethax train DATA --method M --help` lists them, with the "
    "values that would be used. `lethax recipe DATA --method M` prints the same as a recipe. Options are in these sections, and "
    "--gate.scope is `scope` in the section gate:"
)


_KINDS: dict[str | None, Any] = {"INT": int, "NAME": str, "NAME ...": tuple[str, ...]}


def print_help(command: str, args: Any) -> None:
    """Print the help of a command; `args` is what else stands on its command line, which may name data, a method or a recipe."""
    usage = f"usage: lethax {command} [DATA] [OPTIONS]"
    parts: list[Any] = [Text(f"{usage}\n\n{commands.commands()[command].__doc__}")]
    own = [(one, None) for one in _own(command)]
    alone = not hasattr(args, "method")  # with several methods, which options matter depends on each
    if alone or not (args.data or args.recipe or args.method):
        common = [(one, None) for one in _common() if one.section or hasattr(args, one.name)]
        parts.append(recipe_options.help_of({"options": own, "common values of a recipe": common}, console.width))
        parts.append(Text(f"\n{_MORE}"))
        parts.append(Text("\n".join(_sections())))
    else:
        asked = train.asked(args)
        parts.append(Text(f"\nFor method {asked.method} on {asked.data}, with preset {asked.preset}."))
        parts.append(recipe_options.help_of({"options": own, **_values(asked)}, console.width))
    console.print(Group(*parts), soft_wrap=False)


def _own(command: str) -> Iterator[Option]:
    for name, kind, _ in WITH_RECIPE[command]:
        base, *extras = typing.get_args(kind)
        text = next(e.help for e in extras if getattr(e, "help", None))
        metavar = next((e.metavar for e in extras if getattr(e, "metavar", None)), None)
        yield Option(
            "", name, _KINDS.get(metavar, bool if base is bool else Path), text, None, Range(), name.replace("_", "-")
        )


def _common() -> Iterator[Option]:
    yield from (one for one in recipe_options.every_option() if not one.section)
    known = sections.by_key()
    yield from (known[key] for key in recipe_options.COMMON)


def _sections() -> list[str]:
    return [f"  {name:12} {(section.__doc__ or '').splitlines()[0]}" for name, section in sections.SECTIONS.items()]


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
