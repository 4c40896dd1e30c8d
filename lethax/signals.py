"""Signals that ask the program to end: SIGINT, SIGTERM, SIGHUP. The exit code is 128 and the signal's number; what is said is true.

An exception raised wherever the program happens to be can be lost within an import or compiled code, or end as another one. So a
thread takes the signals. It ends the program at once, which costs nothing where nothing is unsaved. Code that has something to
save runs within `deferred` and calls `check` where it can; code that has something to clean away runs within `raising`.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

CAUGHT = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # Windows has none
    CAUGHT[signal.SIGHUP] = "hung up"
SAME_SECONDS = 1.0  # in which a second signal is the first one again, passed on by a program that started this one


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end, at a place where that is safe."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Now:
    """The state of the process, which the signals share."""

    lock = threading.Lock()
    way = "leave"  # what a signal does: leave, keep or raise
    asked = 0  # the signal that waits for `check`
    since = 0.0
    saved = "nothing was saved yet"
    then = ""


def hold() -> None:
    """Let signals wait until `listen`, also where the program starts itself anew."""
    if hasattr(signal, "pthread_sigmask"):  # on Windows none waits: it ends the program, as Python does
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)


def listen() -> None:
    """From now on signals end the program as this file says; one that the caller ignores, as nohup does, stays ignored."""
    reading, writing = os.pipe()
    if hasattr(os, "set_blocking"):  # Windows lacks it before Python 3.12, and does not ask for it
        os.set_blocking(writing, False)
    for number in CAUGHT:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)


def say(saved: str, then: str | None = None) -> None:
    """Set what is said if a signal comes now: what is saved, and how to go on from there (as before unless given)."""
    _Now.saved = saved
    _Now.then = _Now.then if then is None else then


def sentence(number: int) -> str:
    """The sentence that the program prints at its end."""
    then = f": {_Now.then}" if _Now.then else ""
    return f"lethax: {CAUGHT.get(signal.Signals(number), 'interrupted')}; {_Now.saved}{then}"


@contextmanager
def deferred() -> Iterator[None]:
    """Within, a signal waits for `check`; a second one ends the program at once."""
    _Now.way = "keep"
    try:
        yield
    finally:
        with _Now.lock:
            _Now.way = "leave"
    check()  # of one that came after the last


@contextmanager
def raising() -> Iterator[None]:
    """Within, a signal is raised as `Interrupted` wherever the main thread is."""
    _Now.way = "raise"
    try:
        yield
    finally:
        _Now.way = "leave"


@contextmanager
def unheard() -> Iterator[None]:
    """Within, programs that this one starts will not hear Ctrl-C, which a terminal sends to all that runs in it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check() -> None:
    """Raise `Interrupted` if a signal waits."""
    if _Now.asked:
        raise Interrupted(_Now.asked)


def waiting() -> int:
    """The signal that waits for `check`, or 0."""
    return _Now.asked


def _raise(number: int, frame: FrameType | None) -> None:
    if _Now.way == "raise":
        raise Interrupted(number)


def _watch(reading: int) -> None:
    while True:
        for number in os.read(reading, 64):
            if number in CAUGHT:
                with _Now.lock:
                    _take(number)


def _take(number: int) -> None:
    first = not _Now.asked
    if first:
        _Now.asked, _Now.since = number, time.monotonic()
    if _Now.way == "leave" or not (first or time.monotonic() - _Now.since < SAME_SECONDS):
        leave(number)


def leave(number: int) -> None:
    """End the process without going through what still runs."""
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # a bar of progress hides the cursor
        os.write(2, f"{sentence(number)}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)
