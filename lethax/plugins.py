"""Load methods and domains from outside the package: files that the user names, and installed packages."""

import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from lethax.errors import RecipeError
from lethax.text import shown

GROUP = "lethax.plugins"  # of entry points: modules, or functions without arguments, that register what they have
VARIABLE = "LETHAX_PLUGINS"  # files, separated as in $PATH


def load(files: list[str]) -> None:
    """Import the given files, those of $LETHAX_PLUGINS, and installed packages with an entry point; each registers what it has.

    A plugin is code of the user's own and runs as such. RecipeError for a file that cannot be imported.
    """
    named = [*os.environ.get(VARIABLE, "").split(os.pathsep), *files]
    for path in dict.fromkeys(str(Path(name).resolve()) for name in named if name):
        _run(Path(path))
    for point in entry_points(group=GROUP):
        found = point.load()
        if callable(found):
            found()


def _run(path: Path) -> None:
    name = f"lethax_plugin_{path.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RecipeError(f"plugin {shown(path)} is no Python file: name one that registers a method or a domain.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(f"plugin {shown(path)} fails: {type(error).__name__}: {error}; correct it there.") from error
