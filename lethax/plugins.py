"""Load methods and domains from outside the package: files that the user names, and installed packages."""

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lethax.errors import RecipeError
from lethax.text import ALWAYS, shown

GROUP = "lethax.plugins"  # of entry points: modules, or functions without arguments, that register what they have
VARIABLE = "LETHAX_PLUGINS"  # files, separated as in $PATH

_ADDED: dict[str, set[str]] = {}  # by each plugin: "method decayed", "section decay", "tasks oscillations"


def load(files: list[str]) -> None:
    """Import the given files, those of $LETHAX_PLUGINS, and installed packages with an entry point; each registers what it has.

    A plugin is code of the user's own and runs as such. RecipeError for a file that cannot be imported.
    """
    note(files)
    named = [*os.environ.get(VARIABLE, "").split(os.pathsep), *files]
    for path in dict.fromkeys(Path(name).resolve() for name in named if name):
        _run(path)
    for point in entry_points(group=GROUP):
        try:
            with _noted(point.value):
                found = point.load()
                if callable(found):
                    found()
        except (Exception, SystemExit) as error:
            raise RecipeError(
                f"{_failure(point.value, error)} Update the package that it is of, or remove it."
            ) from error


def note(files: list[str]) -> None:
    """Note the files that the command names, without importing them: commands that it proposes or starts name them, too."""
    ALWAYS[:] = [word for name in files for word in ("--plugin", name)]


def used_by(recipe: Any) -> dict[str, list[str]]:
    """What of a resolved recipe is from plugins, by the name of the plugin: {"mine.py": ["method decayed", "section decay"]}."""
    from lethax.domains import domain_of

    sections = (f"section {name}" for name in recipe.sections)
    used = {f"method {recipe.method}", f"net {recipe.net.kind}", f"tasks {domain_of(recipe).kind}", *sections}
    return {name: sorted(used & added) for name, added in _ADDED.items() if used & added}


def missing(wanted: Any) -> list[str]:
    """The names of the plugins of `used_by` that are not loaded, under whatever name; empty for anything else."""
    there = _registered()
    found = wanted.items() if isinstance(wanted, dict) else ()
    return [name for name, added in found if isinstance(added, list) and not set(map(str, added)) <= there]


def _registered() -> set[str]:
    from lethax.domains import DOMAINS
    from lethax.domains.own_nets import NETS
    from lethax.methods.registry import METHODS
    from lethax.recipe.sections import SECTIONS

    kinds = {f"tasks {domain.kind}" for domain in DOMAINS} | {f"net {name}" for name in NETS}
    return kinds | {f"method {name}" for name in METHODS} | {f"section {name}" for name in SECTIONS}


@contextmanager
def _noted(name: str) -> Iterator[None]:
    """Note what a plugin registers."""
    before = _registered()
    yield
    _ADDED.setdefault(name, set()).update(_registered() - before)


def _run(path: Path) -> None:
    name = "lethax_plugin" + re.sub(r"\W", "_", str(path))  # two files of one name are two modules
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RecipeError(f"plugin {shown(path)} is no Python file: name one that registers a method or a domain.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _noted(path.name):
            spec.loader.exec_module(module)
        if not _ADDED[path.name]:
            raise RecipeError("it registers no method, no net, no tasks and no section")
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        raise RecipeError(f"{_failure(path, error, where)} Correct it there.") from error


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _failure(name: object, error: BaseException, where: str = "") -> str:
    return f"plugin {shown(name)} fails{where}: {type(error).__name__}: {_ended(shown(error, 300))}"
