"""One process a run folder."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from lethax.errors import RunError


class RunLock:
    """Context manager: holds FOLDER/.lock; RunError if another process does. The kernel frees it however the holder ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle = -1

    def __enter__(self) -> "RunLock":
        self._handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise RunError(
                f"run {self.folder} is in use by process {holder}; wait for it, or choose another --out."
            ) from None
        os.ftruncate(self._handle, 0)
        os.write(self._handle, str(os.getpid()).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
