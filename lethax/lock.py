"""One process a run folder."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lethax.errors import RunError


class RunLock:
    """Context manager: holds FOLDER/.lock; RunError if another process does. The kernel frees it however the holder ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle = -1

    def __enter__(self) -> "RunLock":
        try:
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(
                f"run {self.folder} cannot be locked: {error.strerror}; check that the folder exists and may be written."
            ) from None
        try:
            self._take(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def _take(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise RunError(
                f"run {self.folder} is in use by process {holder}; wait for it, or choose another --out."
            ) from None
        except OSError as error:
            raise RunError(f"run {self.folder} cannot be locked: {error.strerror}; use a local disk.") from None
        # Of whoever held it last; the file stays, because deleting it would let two processes lock two files.
        with suppress(OSError):  # on a full disk the lock holds all the same, only unnamed
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
