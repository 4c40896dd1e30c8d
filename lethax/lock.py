"""Let one process at a time use a folder. Runs and stores are locked by the same function, on every operating system."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from filelock import lock_descriptor

from lethax.errors import RunError
from lethax.text import shown

LOCK = ".lock"  # the file in a locked folder
_OPENING = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # where a link leads, nothing is ours to write
_TRIES = (0, 0.01, 0.02, 0.02)  # seconds before each try
_BEHIND = 1  # Windows locks the first byte against reading; the holder's number stands behind it


class InUse(Exception):
    """Another process, or another part of this one, holds the lock; the text is that of `holder`."""


class RunInUse(RunError):
    """Another process makes, trains or judges the run."""


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold FOLDER/.lock: one process at a time, and the file goes with the lock.

    The operating system frees the lock however its holder ends, so that none is ever stale: what a kill leaves is a file that the
    next holder takes. `wait`: until it is free. Raises InUse where it is not, OSError where the folder cannot be written, and on
    file systems without locks.
    """
    path = folder / LOCK
    handle = _taken(path, wait)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no open file: there it stays
            if _is_at(path, handle):  # the folder may have been moved, and another stand in its place
                path.unlink()
        os.close(handle)


def _taken(path: Path, wait: bool) -> int:
    """Open and lock the file of the lock."""
    while True:
        handle = os.open(path, _OPENING, 0o644)
        try:
            if not _locks(handle, wait):
                raise InUse(_holder(handle))
            if _is_at(path, handle):
                with suppress(OSError):  # on a full disk the lock holds all the same, only unnamed
                    os.ftruncate(handle, 0)
                    os.write(handle, b" " * _BEHIND + f"{os.getpid()} {socket.gethostname()}".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder before deleted it after this process had opened it: others lock another file now


def _locks(handle: int, wait: bool) -> bool:
    """Whether the lock is taken now. It is tried several times, because who only asks for the holder has it for a moment."""
    for pause in _TRIES:
        time.sleep(pause)
        if lock_descriptor(handle, blocking=wait):
            return True
    return False


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def holder(folder: Path) -> str:
    """Who holds the lock of a folder: "123", "123 on HOST" of another machine, "unknown" where that is not said; "" if nobody does.

    OSError as in `locked`, but for a folder that is not there: nobody holds it.
    """
    try:
        handle = os.open(folder / LOCK, _OPENING & ~os.O_CREAT)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        return "" if lock_descriptor(handle, blocking=False) else _holder(handle)
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    os.lseek(handle, _BEHIND, os.SEEK_SET)
    process, _, host = os.read(handle, 300).decode(errors="replace").strip().partition(" ")
    return f"{process} on {host}" if host not in ("", socket.gethostname()) else process or "unknown"


class RunLock:
    """Context manager: holds a run folder. RunInUse says which process has it; RunError why none can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = ExitStack()

    def __enter__(self) -> "RunLock":
        try:
            self._held.enter_context(locked(self.folder))
        except InUse as other:
            raise RunInUse(
                f"run {shown(self.folder)} is in use by process {shown(other, 100)}; wait for it, or choose another --out."
            ) from None
        except OSError as error:
            raise RunError(
                f"run {shown(self.folder)} cannot be locked: {error.strerror}; check that the folder may be written, and that its "
                "file system has locks."
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
