"""How long work shows that it goes on: a bar on a terminal, plain lines at intervals elsewhere."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console()
LINE_SECONDS = 15.0  # between plain lines of progress where the output is not a terminal


def say(text: str) -> None:
    """One line for people: nothing in it is markup, nothing is coloured, and no line break is put into it.

    What comes from a file or from the command line is passed through `text.shown` first.
    """
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def bar(what: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar with rate and time left on a terminal, one plain line at intervals otherwise."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
            task = progress.add_task(what, total=total, note="")
            yield lambda done, note: progress.update(task, completed=done, note=note)
        return
    begun = last = time.monotonic()
    first: float | None = None

    def show(done: float, note: str) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first is None else first
        if now - last < LINE_SECONDS and done < total:
            return
        last = now
        if isinstance(total, float):  # a share of stages, which have no common rate
            console.print(f"{what}: {note} {done:.0%}", highlight=False, markup=False, soft_wrap=True)
            return
        rate = (done - first) / max(now - begun, 1e-9)
        pace = f", {rate:.3g}/s, {timedelta(seconds=round((total - done) / rate))} left" if rate > 0 else ""
        console.print(f"{what} {done:g}/{total:g}{pace} {note}".rstrip(), highlight=False, soft_wrap=True)

    yield show


def follow(what: str, total: int, statuses: Generator[Any, None, None]) -> None:
    """Show training go on; closed by an interrupt, it saves its state."""
    note = ""
    with bar(what, total) as show, closing(statuses):
        for status in statuses:
            if status.line:
                note = "  ".join(
                    f"{k} {status.line[k]:.4g}" for k in ("loss", "score", "val_score") if k in status.line
                )
            show(status.step, note)
