"""Show the progress of long work: a bar on a terminal, and elsewhere a plain line from time to time."""

import operator
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lethax.text import shown

console = Console()
LINE_SECONDS = 15.0  # between plain lines of progress where the output is not a terminal
_LONGEST = 20_000  # characters of a line: the list of what an import left out is long
SILENCE = 1.0  # seconds without a first result before it is said that a program is being compiled
# The rate is taken over the last minute, because steps of second order cost more than those of first order before them. Where a
# validation takes more than a third of that, it is taken over three times its length.
_RECENT, _GAPS = 60.0, 3.0
_APART = 1.0  # seconds between two marks of the rate, at least


def say(text: str) -> None:
    """Print one line for people, without markup, colours or added line breaks.

    Nothing in the line can act on the terminal. A part that comes from a file or the command line has to pass through
    `text.shown` before, so that it is bounded.
    """
    console.print(shown(text, _LONGEST), highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """ "45 s", "3.4 min" or "2.1 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{max(seconds, 0.1):.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def rate(per_second: float, unit: str) -> str:
    """ "1,460 steps/s"; of slow work "12 s/step"."""
    if per_second >= 0.95:
        return f"{per_second:,.0f} {unit}/s" if per_second >= 9.5 else f"{per_second:.1f} {unit}/s"
    return f"{duration(1 / per_second)}/{unit.removesuffix('s')}"


def figure(value: float) -> str:
    """ "0.5123" or "12,345": about four digits, and no exponent below a million."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}"


class Pace:
    """Compute the rate and the time left. Both start at the second result, because the first one includes the compilation."""

    def __init__(self, total: float, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.unit, self.clock, self.begun = total, unit, clock, clock()
        self.marks: deque[tuple[float, float]] = deque()

    def text(self, done: float) -> str:
        """Note that `done` is reached, and return "1,460 steps/s, 3.4 min left", at the end "in 3.4 min", and at first ""."""
        now = self.clock()
        if not self.marks or now - self.marks[-1][0] >= _APART:
            self.marks.append((now, done))
        times = [time for time, _ in self.marks]
        recent = max(_RECENT, _GAPS * max(map(operator.sub, times[1:], times), default=0.0))
        while len(self.marks) > 2 and now - self.marks[1][0] > recent:
            self.marks.popleft()
        if done >= self.total:
            return f"in {duration(now - self.begun)}"
        (since, before) = self.marks[0]
        if done <= before or now <= since:
            return ""
        speed = (done - before) / (now - since)
        return f"{rate(speed, self.unit)}, {duration((self.total - done) / speed)} left"


@contextmanager
def bar(what: str, total: float, unit: str = "steps") -> Iterator[Callable[[float, str], None]]:
    """Show a bar with rate and time left on a terminal, and elsewhere a plain line from time to time.

    If `total` is a float, progress is a share of several stages, which have no common rate.
    """
    share, pace = isinstance(total, float), Pace(total, unit)
    if console.is_terminal:
        room = [BarColumn(20)] if console.width >= 100 else []
        columns = (TextColumn("{task.description}", markup=False), *room, TextColumn("{task.fields[at]}", markup=False))
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(what, total=total, at="")

            def draw(done: float, note: str) -> None:
                at = f"{done:.0%}  {note}" if share else f"{done:,.0f}/{total:,.0f}  {pace.text(done)}  {note}"
                progress.update(task, completed=done, at=at)

            yield draw
        return
    last, ended = pace.begun, False

    def show(done: float, note: str) -> None:
        nonlocal last, ended
        now, paced = time.monotonic(), pace.text(done)
        if ended or (now - last < LINE_SECONDS and done < total):
            return
        last, ended = now, done >= total
        said = f"{what}: {note} {done:.0%}" if share else f"{what} {done:,.0f}/{total:,.0f}, {paced}  {note}"
        say(said.replace(",   ", "  ").rstrip(" ,"))

    yield show


@contextmanager
def compiling(what: str) -> Iterator[Callable[[], None]]:
    """Say that a program is being compiled, if the first result takes long. Call what is yielded when the result is there."""
    begun, said = time.monotonic(), threading.Event()

    def announce() -> None:
        said.set()
        with suppress(OSError):  # the next line from the main thread fails, too, where that can be told
            say(f"{what}: loading and compiling")

    timer = threading.Timer(SILENCE, announce)
    timer.daemon = True
    timer.start()

    def first() -> None:
        timer.cancel()
        if said.is_set():
            said.clear()
            say(f"{what}: loaded and compiled in {duration(time.monotonic() - begun)}")

    try:
        yield first
    finally:
        timer.cancel()


@contextmanager
def watching(what: str, total: int) -> Iterator[Callable[[Iterable[Any]], Iterator[Any]]]:
    """Show the progress of evaluations of `total` episodes in all. What is yielded passes on the parts of each, as in `watch`."""
    done = 0
    with compiling(what) as first, bar(what, total, "episodes") as show:

        def passed(parts: Iterable[Any]) -> Iterator[Any]:
            nonlocal done
            for part in parts:
                first()
                done += len(part[0])
                show(done, "")
                yield part

        yield passed


def watch(what: str, total: int, parts: Iterable[Any]) -> Iterator[Any]:
    """Show the progress of an evaluation and pass its parts on. The first entry of each part has one row for each episode."""
    with watching(what, total) as passed:
        yield from passed(parts)


def follow(what: str, total: int, statuses: Generator[Any, None, None], compiles: bool = True) -> Any:
    """Show the progress of training, and return its last status, or None if nothing was left to do.

    An interrupt closes `statuses`, which saves the state. `compiles` says whether a program has to be compiled first.
    """
    note, status = "", None
    waiting = compiling(what) if compiles else nullcontext(lambda: None)
    with waiting as first, bar(what, total) as show, closing(statuses):
        for status in statuses:
            first()
            if status.line:
                parts = [f"{k} {figure(status.line[k])}" for k in ("loss", "score", "val_score") if k in status.line]
                note = "  ".join([*parts, *([f"skipped {status.skipped:,}"] if status.skipped else [])])
            show(status.step, note)
    return status
