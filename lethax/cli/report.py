"""The command `lethax report`. JAX is imported by what needs it."""

import time
from collections.abc import Sequence
from pathlib import Path

from lethax import signals
from lethax.cli import arguments
from lethax.cli.usage import check_once, check_output, check_range
from lethax.errors import LethaxError, RecipeError
from lethax.files import write_atomic
from lethax.progress import say
from lethax.text import counted, shown

LEAST_SECONDS, MOST_SECONDS = 1, 86_400  # between two pages


def report(args: arguments.Report) -> None:
    """Run the command `lethax report`: write the page, and with --watch write it again and again."""
    from lethax.devices import use_all_cores
    from lethax.report.page.document import plotly_script

    if not args.runs:
        raise RecipeError("report needs at least one run folder, as in: lethax report runs/sinusoid-l2f-5shot-seed0")
    if args.samples < 0:
        raise RecipeError(f"--samples is {args.samples}; it has to be 0 or more.")
    check_range("watch", args.watch, LEAST_SECONDS, MOST_SECONDS)
    check_output("out", args.out, ".html", ".htm")
    check_once(args.runs)
    plotly_script()  # it says so if it is missing
    use_all_cores()
    runs = _runs(args.runs)
    size, damaged = write(runs, args.out, args.samples, args.watch)
    _tell(damaged)
    say(f"written: {shown(args.out)}, {size / 1e6:.1f} MB, {counted(len(runs), 'run')}; open it in a browser")
    if args.watch is None:
        return
    say(f"It is written again every {args.watch:g} s, and an open page follows. Ctrl-C ends this.")
    signals.say(f"{shown(args.out)} is kept as it is", "")
    while True:
        time.sleep(args.watch)
        try:
            _, now = write(runs, args.out, args.samples, args.watch)
            _tell([one for one in now if one not in damaged])
            damaged = now
        except LethaxError as error:  # a run may be replaced just now
            say(f"not written this time: {error}")


def _runs(folders: Sequence[Path]) -> Sequence[Path]:
    """The folders that hold runs. Others, as `runs/*` may name some, are left out and named. All of them, if none is a run."""
    from lethax.runs.folder import RECIPE

    found = [folder for folder in folders if (folder / RECIPE).is_file()]
    for folder in folders if found else ():
        if folder not in found:
            say(f"{shown(folder)} is left out: it is not a run, because it has no recipe.toml")
    return found or folders


def _tell(damaged: Sequence[str]) -> None:
    for sentence in damaged:
        say(f"An evaluation is left out: {sentence}")


def write(folders: Sequence[Path], out: Path, samples: int, refresh: float | None) -> tuple[int, list[str]]:
    """Write the page once. Returns its size in bytes, and what is wrong with evaluations that are left out.

    In a page that is written again and again nothing is compiled.
    """
    from lethax.report.page.document import document
    from lethax.report.page.gather import gather
    from lethax.report.page.samples import samples as sampled

    runs = gather(folders)
    found, why = ([], "A page that is being watched has no sample episodes.") if refresh else sampled(runs, samples)
    content = document(runs, found, why, refresh).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, content)
    return len(content), [sentence for told in runs for sentence in told.damaged]
