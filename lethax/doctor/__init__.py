"""What this machine has, what is wrong, and what to do. Only the standard library is imported: other packages may be broken."""

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from lethax import plugins
from lethax.doctor import folders, installed, machine
from lethax.doctor.rows import OK, WARNING, WRONG, Row
from lethax.text import counted, showable, shown

_LABEL = 9  # columns of the state
_WIDEST = 100


def examine(quick: bool) -> list[Row]:
    """Look at everything. quick: without reading the data sets, whose checksums are compared otherwise."""
    seen = installed.look()
    return [
        *installed.rows(seen), *machine.rows(), *folders.rows(quick, numpy=not seen.errors.get("numpy")),
    ]  # fmt: skip


def table(rows: Sequence[Row], width: int) -> list[str]:
    """The lines of a table: state, what it is about, what was found, and below it what to do."""
    names = max(len(row.what) for row in rows) + 2
    indent = " " * (_LABEL + names)
    lines = []
    for row in rows:
        head = f"{row.state:{_LABEL}}{row.what:{names}}"
        found = shown(row.found, 500)
        lines += textwrap.wrap(f"{head}{found}", width, subsequent_indent=indent) or [head]
        if row.advice:
            lines += textwrap.wrap(shown(row.advice, 500), width, initial_indent=indent, subsequent_indent=indent)
    return lines


def summary(rows: Sequence[Row]) -> str:
    """A sentence on what is wrong, or that nothing is."""
    wrong = [row.what for row in rows if row.state == WRONG]
    warned = [row.what for row in rows if row.state == WARNING]
    said = "Nothing is wrong" if not wrong else f"{counted(len(wrong), 'thing')} to mend: {', '.join(wrong)}"
    return f"{said}; {counted(len(warned), 'warning')}{': ' + ', '.join(warned) if warned else ''}."


def as_json(rows: Iterable[Row]) -> str:
    """The rows, and whether nothing is wrong, as JSON."""
    found = list(rows)
    return json.dumps(
        {"ok": all(row.state != WRONG for row in found), "rows": [row._asdict() for row in found]}, indent=1
    )


def show(rows: Sequence[Row], in_json: bool) -> bool:
    """Print the rows. Returns whether nothing is wrong."""
    if in_json:
        print(as_json(rows))
    else:
        for line in [*table(rows, min(shutil.get_terminal_size().columns, _WIDEST)), summary(rows)]:
            print(showable(line, sys.stdout.encoding or "ascii"))
    return all(row.state != WRONG for row in rows)


def rescue(argv: Sequence[str], error: BaseException) -> int:
    """Do the work of `lethax doctor` where the command line itself cannot be loaded; other commands get a sentence."""
    parser = argparse.ArgumentParser("lethax", add_help=False, allow_abbrev=False)
    for flag in ("--quick", "--json"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--root")
    parser.add_argument("--plugin", action="append", default=[])
    known, words = parser.parse_known_args(argv)
    if words[:1] == ["doctor"]:
        plugins.note(known.plugin)
        if known.root:
            os.environ["LETHAX_DATA"] = known.root
        return 0 if show(examine(known.quick), known.json) else 1
    why = shown(f"{type(error).__name__}: {error}", 300)
    print(f"lethax: the program cannot be loaded ({why}); lethax doctor says what is wrong with it.", file=sys.stderr)
    return 1


__all__ = ["OK", "WARNING", "WRONG", "Row", "as_json", "examine", "rescue", "show", "summary", "table"]
