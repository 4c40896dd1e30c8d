"""Small files, written so that a reader sees the old or the new content, never a mixture."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lethax.errors import RunError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside the target, flush to the disk, rename over it."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RunError(f"{path} cannot be written: {error.strerror}; what was there before is unchanged.") from None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself has to survive a power cut
    finally:
        os.close(folder)


def append_line(path: Path, text: str) -> None:
    """Add one line to a file of lines."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}.") from None


def read_json(path: Path) -> Any:
    """Parsed JSON; RunError names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None


def truncate_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the JSON lines that satisfy `keep`; a torn line at the end is dropped."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            wanted = keep(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        if wanted:
            kept.append(line + "\n")
    write_atomic(path, "".join(kept))
