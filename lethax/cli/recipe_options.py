"""The options of `lethax train` and `lethax recipe` that set values of a recipe, and their help. Nothing here imports JAX."""

import dataclasses
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lethax.errors import RecipeError
from lethax.recipe import Recipe, sections
from lethax.recipe.options import Option
from lethax.recipe.record import TOP, key_of
from lethax.recipe.toml import write

# What `lethax train --help` shows where nothing says yet which options matter.
COMMON = (
    "episode.way", "episode.shot", "episode.query", "net.kind", "inner.steps", "inner.rate", "outer.steps", "outer.batch",
    "outer.rate", "outer.epoch",
)  # fmt: skip
_METAVARS: dict[Any, str] = {
    int: "INT",
    float: "FLOAT",
    str: "NAME",
    Path: "PATH",
    tuple[float, ...]: "FLOAT ...",
    tuple[str, ...]: "NAME ...",
}


def _top() -> Iterator[Option]:
    kinds = typing.get_type_hints(Recipe)
    for name, f in TOP.items():
        if name != "data":
            yield Option("", name, kinds[name], f.metadata["text"], f.default, f.metadata["range"], name)


def every_option() -> list[Option]:
    """All options: first those of no section, then section by section."""
    return [*_top(), *sections.by_key().values()]


def negative(one: Option) -> str:
    """The flag that switches an option off: "no-rotate", "gate.no-detached"."""
    return f"no-{one.short}" if one.short else f"{one.section}.no-{one.name}".replace("_", "-")


def _place(flag: str) -> str:
    """The name of the field that holds a flag."""
    return flag.replace(".", "__").replace("-", "_")


def parsed_fields(without: Collection[str] = ()) -> list[tuple[str, Any, Any]]:
    """A field for every option, which is None unless it is given. An option that is true or false has two switches.

    without: the values of no section that a command has in another form.
    """
    # With their help, or the parser looks for it in source text, which takes seconds.
    found: list[tuple[str, Any, Any]] = []
    for one in every_option():
        if not one.section and one.name in without:
            continue
        if one.kind is bool:
            for flag in (one.flag, negative(one)):
                about = tyro.conf.arg(name=flag, help=one.text)
                kind = Annotated[bool, tyro.conf.FlagCreatePairsOff, about]
                found.append((_place(flag), kind, dataclasses.field(default=False)))
        else:
            about = tyro.conf.arg(name=one.flag, metavar=metavar(one.kind), help=one.text)
            found.append((_place(one.flag), Annotated[one.kind | None, about], dataclasses.field(default=None)))
    return found


def given(args: Any) -> Mapping[str, Any]:
    """The values that were given, by the names that `Recipe.with_values` takes. RecipeError if a switch is both on and off."""
    found: dict[str, Any] = {}
    for one in every_option():
        name = one.key if one.section else one.name
        value = getattr(args, _place(one.flag), None)
        if one.kind is bool:
            off = getattr(args, _place(negative(one)))
            if value and off:
                raise RecipeError(f"--{one.flag} and --{negative(one)} were both given: leave one out.")
            if value or off:
                found[name] = value
        elif value is not None:
            found[name] = value
    return found


def normal(word: str) -> str:
    """The spelling that is parsed: --shot for --episode.shot, --gate.scope for --gate-scope. Other words stay as they are."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    name = flag.removeprefix("--").replace("-", "_")
    for prefix in ("", "no_", ".no_"):
        plain = name.removeprefix("no_") if prefix == "no_" else name.replace(".no_", ".") if prefix else name
        if prefix and plain == name:
            continue
        try:
            one = sections.by_key()[key_of(plain)]
        except RecipeError:
            continue
        return f"--{negative(one) if prefix else one.flag}{equals}{value}"
    return word


def metavar(kind: Any) -> str:
    """What stands for a value in the help: a word in capitals, or the choices."""
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    return _METAVARS[kind]


def help_of(groups: Mapping[str, list[tuple[Option, Any]]], width: int) -> Group:
    """The help of options by section, wrapped to a width. A value that is not None is shown as the option's default."""
    parts: list[Any] = []
    for name, options in groups.items():
        table = Table.grid(padding=(0, 1, 0, 0), expand=False)
        table.width = width
        table.add_column(no_wrap=True, width=min(30, width // 2))
        table.add_column(overflow="fold")
        for one, value in options:
            switch = one.kind is bool
            both = switch and value is not None  # of a recipe: it can be switched off as well
            flag = f"  --{negative(one).replace('no-', '[no-]', 1) if both else one.flag}"
            long = typing.get_origin(one.kind) is Literal
            left = flag if switch or long else f"{flag} {metavar(one.kind)}"
            choices = f" {metavar(one.kind)}" if long else ""
            unless = "" if value is None else f" (default: {_said(value)})"
            table.add_row(Text(left), Text(f"{one.text}{choices}{unless}"))
        parts += [Text(f"\n{name}:"), table]
    return Group(*parts)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value == () else value if isinstance(value, str) else write(value)
