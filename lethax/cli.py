"""The `lethax` program: parse, act, and turn an error into one sentence and an exit code."""

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import tyro

from lethax import __version__, arguments, commands, commands_data, signals, usage
from lethax.errors import LethaxError, RecipeError
from lethax.text import ENCODING_ERRORS, shown

_ABOUT = "Meta-learning: train, evaluate, compare. `lethax --version` prints the version."
_LESS_MEMORY = "lower --batch, --query, --filters or --inner-steps, or take --memory lean"


def main(argv: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 failed with one sentence, 2 wrong usage, 128 + a signal's number."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print(f"lethax {__version__}")
        return 0
    plain_where_needed()
    args: Any = None
    actions: dict[type, Callable[[Any], None]] = {
        arguments.DataCommand: commands_data.data_sets, arguments.Train: commands.train, arguments.Evaluate: commands.evaluate,
        arguments.Embed: commands.embed_images, arguments.Reproduce: commands.fill_table, arguments.Demo: commands.show_demo,
    }  # fmt: skip
    try:
        args = parsed(argv)
        root = getattr(args, "root", None)
        if root:
            os.environ["LETHAX_DATA"] = str(root)
        actions[type(args)](args)
    except LethaxError as error:
        if os.environ.get("LETHAX_DEBUG"):
            traceback.print_exc()
        print(f"lethax: {error}", file=sys.stderr)
        return 2 if isinstance(error, RecipeError) else 1
    except OSError as error:
        if signals.waiting():  # a terminal that hung up takes no more lines either
            return _interrupted(signals.waiting())
        if isinstance(error, BrokenPipeError):  # `lethax … | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if os.environ.get("LETHAX_DEBUG"):
            traceback.print_exc()
        where = shown(error.filename or "a file")
        print(f"lethax: {where}: {shown(error.strerror or error)}; check the path and the disk.", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # of JAX too, whose error cannot be named here without importing it
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        if os.environ.get("LETHAX_DEBUG"):
            traceback.print_exc()
        print(f"lethax: the memory does not suffice for this; {_LESS_MEMORY}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        return _interrupted(getattr(error, "number", signal.SIGINT))
    return 0


def parsed(argv: list[str]) -> Any:
    """The command and its options; RecipeError, one sentence, where they are none."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(arguments.Command, prog="lethax", description=_ABOUT, args=argv)
    except SystemExit as end:
        if not end.code:  # help was asked for and given
            raise
        raise usage.explain(argv, said.getvalue()) from None


def plain_where_needed() -> None:
    """Let a terminal or pipe that has no ± or … be given +/- and ... instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)


def _interrupted(number: int) -> int:
    with contextlib.suppress(OSError):
        print(signals.sentence(number), file=sys.stderr)
    return 128 + number


def entry() -> None:
    """`main` as a process: it ends with the exit code."""
    code = main()
    if code > 128:
        # What was interrupted may still run in threads, which an orderly end of the interpreter can trip over.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
