"""Explain in one sentence why a command line was refused: what was typed, what was expected, and where the help is."""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from lethax.cli import commands
from lethax.errors import RecipeError, did_you_mean
from lethax.files import in_the_way
from lethax.recipe import sections
from lethax.recipe.toml import noun
from lethax.text import shown

NAMED = 10  # values that a message lists; the help has all of them


class Word(typing.NamedTuple):
    """An option, or a positional argument if `flag` has no dashes. `kind` is the type of its value, or of each of many values.

    needed: whether the command cannot do without the option.
    """

    flag: str
    kind: Any
    many: bool = False
    needed: bool = False


def explain(argv: list[str], otherwise: str) -> RecipeError:
    """An error that names the first fault of a command line; `otherwise` is what the parser said, for a fault not known here."""
    command, rest, known = "lethax", list(argv), commands.commands()
    while True:
        if not rest:
            return RecipeError(f"{command} needs one of: {', '.join(known)}. See {command} --help.")
        word = rest.pop(0)
        if word not in known:
            wrong = f"'{shown(word, 60)}' stands where {command} expects a command"
            return RecipeError(f"{wrong}.{did_you_mean(word, known)} Commands: {', '.join(known)}.")
        command, kind = f"{command} {word}", known[word]
        if word not in commands.NESTED:
            break
        known = commands.NESTED[word]
    said = next(_faults(command, rest, list(options_of(kind))), None)
    return RecipeError(f"{said or _plain(otherwise)} See {command} --help.")


def options_of(command: Any) -> Iterator[Word]:
    """The options and positional arguments of a command."""
    hints = typing.get_type_hints(command, include_extras=True)
    for f in dataclasses.fields(command):
        kind, *extras = typing.get_args(hints[f.name]) if hasattr(hints[f.name], "__metadata__") else (hints[f.name],)
        kinds = (
            [k for k in typing.get_args(kind) if k is not type(None)] if type(None) in typing.get_args(kind) else [kind]
        )
        many = typing.get_origin(kinds[0]) is tuple
        name = next((e.name for e in extras if getattr(e, "name", None)), f.name.replace("_", "-"))
        flag = f.name.upper() if tyro.conf.Positional in extras else f"--{name}"
        needed = flag.startswith("--") and f.default is f.default_factory is dataclasses.MISSING
        yield Word(flag, typing.get_args(kinds[0])[0] if many else kinds[0], many, needed)
        for short in (alias for e in extras for alias in getattr(e, "aliases", None) or ()):
            yield Word(short, kinds[0])
        if kinds[0] is bool and tyro.conf.FlagCreatePairsOff not in extras:
            yield Word(f"--no-{name}", bool)


def _faults(command: str, words: list[str], known: list[Word]) -> Iterator[str]:
    """A sentence for each fault, in the order of the words."""
    options = {option.flag: option for option in known if option.flag.startswith("-")}
    places = [option for option in known if not option.flag.startswith("-")]
    needed = {option.flag: option for option in known if option.needed}
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if word.startswith("--") or flag in options:
            option = options.get(flag.replace("_", "-"))
            if option is None:
                yield f"{command} has no option '{shown(flag, 60)}'.{_nearest_option(flag, options)}"
                continue
            needed.pop(option.flag, None)
            values = [value] if equals else _values(option, words)
            if option.kind is bool:
                if equals or (words and words[0].lower() in ("true", "false")):
                    yield f"{flag} takes no value: write {flag} or {_opposite(flag)}."
            elif not values:
                yield f"{flag} needs a value, {expected(option.kind)}."
            yield from (_wrong(flag, v, option.kind) for v in values if not fits(v, option.kind))
        elif not places:
            yield f"{command} has no place for '{shown(word, 60)}': a value stands after its --option, words with spaces in quotes."
        else:
            if not fits(word, places[0].kind):
                yield _wrong(places[0].flag, word, places[0].kind)
            if not places[0].many:
                places.pop(0)
    yield from (f"{command} needs {option.flag}." for option in places[:1] if not option.many)
    yield from (f"{command} needs {option.flag}, {expected(option.kind)}." for option in needed.values())


def _values(option: Word, words: list[str]) -> list[str]:
    """Take the words that belong to an option from the front of `words`."""
    found: list[str] = []
    while option.kind is not bool and words and not words[0].startswith("--") and (option.many or not found):
        found.append(words.pop(0))
    return found


def fits(value: str, kind: Any) -> bool:
    """Whether a word can be read as a value of the type."""
    if typing.get_origin(kind) is Literal:
        return value in map(str, typing.get_args(kind))
    if kind in (str, Path):
        return "\0" not in value
    try:
        kind(value)
    except ValueError:
        return False
    return True


def expected(kind: Any) -> str:
    """Describe the values of a type."""
    if typing.get_origin(kind) is Literal:
        values = [str(value) for value in typing.get_args(kind)]
        more = f" and {len(values) - NAMED} more" if values[NAMED:] else ""
        return f"one of {', '.join(values[:NAMED])}{more}"
    return noun(kind)


def _nearest_option(flag: str, options: dict[str, Word]) -> str:
    """A hint at the nearest option. Names are compared without their dashes, which all have in common."""
    if section := sections.SECTIONS.get(flag.removeprefix("--")):
        name = flag.removeprefix("--")
        return f" {name} is a section of options, such as --{name}.{dataclasses.fields(section)[0].name}."
    hint = did_you_mean(flag.removeprefix("--"), [known.removeprefix("--") for known in options])
    return hint.replace("'", "'--", 1)


def _opposite(flag: str) -> str:
    """The switch that undoes another: --gate.no-detached of --gate.detached, and the other way round."""
    section, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{section}{dot}{name.removeprefix('no-') if name.startswith('no-') else f'no-{name}'}"


def _wrong(flag: str, value: str, kind: Any) -> str:
    known = map(str, typing.get_args(kind)) if typing.get_origin(kind) is Literal else ()
    return f"{flag} is '{shown(value, 60)}'; expected {expected(kind)}.{did_you_mean(value, known)}"


def _plain(said: str) -> str:
    """The words of the parser without the frame that it draws around them."""
    rows = [line.strip("│|+- ─") for line in said.splitlines()]
    words = " ".join(row for row in rows if row and not row.startswith(("╭", "╰", "For full help")))
    return shown(words, 300) or "The command line cannot be read."


def check_range(name: str, value: float | None, least: float, most: float) -> None:
    """RecipeError if an option was given that is not from `least` to `most`."""
    if value is not None and not least <= value <= most:
        raise RecipeError(f"--{name} is {value}; it has to be from {least:,} to {most:,}.")


def check_output(name: str, path: Path | None, *endings: str) -> None:
    """RecipeError if a file that is to be written has another ending, so that no picture is written over, or has no place."""
    if path is not None and path.suffix not in endings:
        known = " or ".join(endings)
        raise RecipeError(
            f"--{name} is {shown(path)}; its name has to end in {known}, as in --{name} NAME{endings[0]}."
        )
    if path is not None and path.exists() and not path.is_file():
        raise RecipeError(f"--{name} is {shown(path)}, which is there and is no file: name another.")
    if path is not None and (other := in_the_way(path)):
        raise RecipeError(f"--{name} is {shown(path)}, but {shown(other)} is a file, not a folder: name another.")


def check_once(runs: Sequence[Path]) -> None:
    """Raise RecipeError if a run folder is named twice."""
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise RecipeError("a run is named twice: name each once.")
