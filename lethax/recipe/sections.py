"""All options of a recipe by section and by name: those of the package, and those that plugins add."""

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lethax.errors import RecipeError
from lethax.names import COMMAND_LINE
from lethax.recipe.built_in import (
    EpisodeSection,
    GateSection,
    ImamlSection,
    InnerSection,
    LeoSection,
    MetadatasetSection,
    MumomamlSection,
    NetSection,
    OuterSection,
)
from lethax.recipe.control_sections import ControlSection, LocomotionSection, NavigationSection
from lethax.recipe.options import Option
from lethax.text import shown

_KINDS = (int, float, bool, str, tuple[float, ...])  # beside Literal


# The values that belong to no section: see `record`.
TOP_NAMES = ("method", "preset", "seed", "memory")
SECTIONS: dict[str, type] = {
    "episode": EpisodeSection,
    "net": NetSection,
    "inner": InnerSection,
    "outer": OuterSection,
    "gate": GateSection,
    "leo": LeoSection,
    "mumomaml": MumomamlSection,
    "imaml": ImamlSection,
    "control": ControlSection,
    "navigation": NavigationSection,
    "locomotion": LocomotionSection,
    "metadataset": MetadatasetSection,
}


BUILT_IN = frozenset(SECTIONS)


def register_section(name: str, section: type) -> None:
    """A section of a method or domain from outside the package: a frozen dataclass whose fields are made by `option`.

    RecipeError for a name that is taken or cannot be one, and for a field that cannot be an option.
    """
    if SECTIONS.get(name, section) is not section:
        raise RecipeError(f"a section called '{shown(name, 60)}' exists already: choose another name.")
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in COMMAND_LINE + TOP_NAMES:
        raise RecipeError(
            f"a section is called '{shown(name, 60)}': its name has only lower-case letters, digits and _, and is no option itself."
        )
    if name not in SECTIONS:
        _check_section(name, section)
        SECTIONS[name] = section
        by_key.cache_clear()


def _check_section(name: str, section: type) -> None:
    for f in fields(section):
        if not {"text", "short", "range"} <= set(f.metadata):
            raise RecipeError(f'{name}.{f.name} is no option: write {f.name}: TYPE = option(DEFAULT, "What it does.").')
    taken = {one.flag: one.key for one in by_key().values()} | {name: f"--{name}" for name in COMMAND_LINE + TOP_NAMES}
    for one in _options(name, section).values():
        if one.kind not in _KINDS and get_origin(one.kind) is not Literal:
            raise RecipeError(
                f"{one.key} is a {shown(one.kind, 60)}: an option is an int, float, bool, str, Literal[…] or tuple[float, ...]."
            )
        if one.flag in taken:
            raise RecipeError(
                f"{one.key} is called --{one.flag}, as {taken[one.flag]} is already: choose another name."
            )


_MORE: dict[str, tuple[str, ...]] = {}  # values that plugins add to options with choices, by "SECTION.NAME"


def add_choice(key: str, value: str) -> None:
    """Let an option have one more value. RecipeError for a value that it has already."""
    if value in get_args(by_key()[key].kind):
        raise RecipeError(f"{key} has the value '{shown(value, 60)}' already: choose another name.")
    _MORE[key] = (*_MORE.get(key, ()), value)
    _options.cache_clear()
    by_key.cache_clear()


def options(section: str) -> Mapping[str, Option]:
    """The options of a section by name."""
    return _options(section, SECTIONS[section])


@cache
def _options(section: str, cls: type) -> Mapping[str, Option]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        if more := _MORE.get(f"{section}.{f.name}"):
            hints[f.name] = Literal[(*get_args(hints[f.name]), *more)]
    return {
        f.name: Option(
            section, f.name, hints[f.name], f.metadata["text"], f.default, f.metadata["range"], f.metadata["short"]
        )
        for f in fields(cls)
    }


@cache
def by_key() -> Mapping[str, Option]:
    """Every option, by "SECTION.NAME"."""
    return {one.key: one for section in SECTIONS for one in options(section).values()}


def defaults(section: str) -> Mapping[str, Any]:
    """The default values of a section, by "SECTION.NAME"."""
    return {one.key: one.default for one in options(section).values()}
