"""The `lethax` program: it parses the command line, acts, and turns an error into one sentence and an exit code."""

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from lethax import __version__, plugins, signals
from lethax.cli import (
    analyse,
    arguments,
    bench,
    commands,
    compare,
    data_sets,
    doctor,
    embedding,
    evaluate,
    export,
    models,
    predict,
    recipe_options,
    report,
    tables,
    train,
    train_help,
    usage,
)
from lethax.cli.fields import WITH_RECIPE
from lethax.errors import LethaxError, RecipeError
from lethax.files import in_the_way
from lethax.text import ENCODING_ERRORS, ROOT, shown

_ABOUT = """Train, evaluate and compare methods of meta-learning.

`lethax --version` prints the version.

`lethax --plugin FILE ...` loads methods and tasks of your own."""
_LESS_MEMORY = {  # by command
    **dict.fromkeys(
        WITH_RECIPE,
        "lower --batch, --shot, --query, --filters or --inner-steps; outside of control, --task-chunk 1 or --memory lean help too",
    ),
    "data": "prepare smaller pictures with --image, or fewer of them",
    "predict": "predict fewer pictures at a time",
    "evaluate": "lower --way, --shot or --ensemble",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 if it is done, 1 if it failed, 2 for wrong usage, 128 + the number of a signal."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            _flush()
    except OSError as error:
        if signals.waiting():  # a terminal that hung up takes no more lines either
            return _interrupted(signals.waiting())
        if isinstance(error, BrokenPipeError):  # `lethax … | head`: the reader has what it wanted
            return 1
        if os.environ.get("LETHAX_DEBUG"):
            traceback.print_exc()
        print(f"lethax: {_of_the_system(error)}", file=sys.stderr)
        return 1


def _flush() -> None:
    """Write what waits for the standard output. Where that fails, all else goes nowhere: Python would try again at its end."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _run(argv: list[str]) -> int:
    """Run a command and return its exit code. An OSError that has no sentence yet is raised."""
    if argv == ["--version"]:
        print(f"lethax {__version__}")
        return 0
    plain_where_needed()
    try:
        argv = _with_plugins(argv)
        words = [word for word in argv if word not in ("--help", "-h")]
        helps = len(words) < len(argv) and argv[0] in WITH_RECIPE  # whose help depends on the other words
        args = parsed(words if helps else argv)
        root = getattr(getattr(args, "action", args), "root", None)
        ROOT[:] = ["--root", str(root)] if root else []
        if root:
            os.environ["LETHAX_DATA"] = str(root)
        if helps:
            train_help.print_help(argv[0], args)
        else:
            _actions()[type(args)](args)
    except LethaxError as error:
        if os.environ.get("LETHAX_DEBUG"):
            traceback.print_exc()
        print(f"lethax: {error}", file=sys.stderr)
        return 2 if isinstance(error, RecipeError) else 1
    except (MemoryError, RuntimeError) as error:  # of JAX too, whose error cannot be named here without importing it
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        if os.environ.get("LETHAX_DEBUG"):
            traceback.print_exc()
        advice = _LESS_MEMORY.get(argv[0], "close other programs, or use a machine that has more")
        print(f"lethax: the memory does not suffice for this; {advice}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        return _interrupted(getattr(error, "number", signal.SIGINT))
    return 0


def _of_the_system(error: OSError) -> str:
    """A sentence for an error of the system that nothing has turned into one of ours."""
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        if other := in_the_way(Path(os.fsdecode(error.filename)) / "in it"):
            return f"{shown(other)} is a file, not a folder: name another path."
    where = shown(error.filename or "standard output")
    return f"{where}: {shown(error.strerror or error)}; check the path and the disk."


def _actions() -> dict[type, Callable[[Any], None]]:
    """The function that runs each command."""
    done: dict[str, Callable[[Any], None]] = {
        "data": data_sets.data_sets, "models": models.models, "train": train.train, "recipe": train.show_recipe,
        "evaluate": evaluate.evaluate, "compare": compare.compare, "analyse": analyse.analyse, "predict": predict.predict,
        "export": export.export, "embed": embedding.embed_images, "report": report.report, "reproduce": tables.reproduce_targets,
        "demo": _demo, "doctor": doctor.doctor, "bench": bench.bench,
    }  # fmt: skip
    return {kind: done[name] for name, kind in commands.commands().items()}


def _demo(args: arguments.Demo) -> None:
    from lethax.cli import demo  # it draws: what it imports takes long

    demo.show_demo(args)


def _with_plugins(argv: list[str]) -> list[str]:
    """Load the files of --plugin, and return the other words in the spelling that is parsed."""
    files, words, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--plugin":
            if not rest:
                raise RecipeError("--plugin needs a value, a path.")
            files.append(rest.pop(0))
        elif word.startswith("--plugin="):
            files.append(word.partition("=")[2])
        else:
            words.append(word)
    if words[:1] == ["doctor"]:  # which imports them in another process, and says what is wrong with them
        plugins.note(files)
    else:
        plugins.load(files)
    if not words or words[0] not in WITH_RECIPE:
        return words
    spelled: dict[str, str] = {}  # the same spelling again is meant: the last one counts
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and spelled.setdefault(recipe_options.normal(flag), flag) != flag:
            first = shown(spelled[recipe_options.normal(flag)], 60)
            raise RecipeError(f"{first} and {shown(flag, 60)} are two names of one option: leave one out.")
    return [recipe_options.normal(word) for word in words]


def parsed(argv: list[str]) -> Any:
    """Parse the command line. RecipeError, with one sentence, if it cannot be parsed."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(commands.command(), prog="lethax", description=_ABOUT, args=argv)
    except SystemExit as end:
        if not end.code:  # help was asked for and given
            raise
        raise usage.explain(argv, said.getvalue()) from None


def plain_where_needed() -> None:
    """Write +/- and ... to a terminal or pipe that cannot show ± and …, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)


def _interrupted(number: int) -> int:
    with contextlib.suppress(OSError):
        print(signals.sentence(number), file=sys.stderr)
    return 128 + number


def entry() -> None:
    """Run `main`, and end the process with its exit code."""
    code = main()
    if code > 128:
        # What was interrupted may still run in threads, which an orderly end of the interpreter can trip over.
        os._exit(code)
    sys.exit(code)
