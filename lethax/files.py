"""Small files, written so that a reader sees the old or the new content, never a mixture."""

import json
import math
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lethax.errors import RunError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside the target, flush to the disk, rename over it; RunError if that fails."""
    data = content.encode() if isinstance(content, str) else content
    beside = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with beside.open("xb") as file:  # not tempfile, which would make it private whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}; free some space or check permissions, what was there is unchanged."
        ) from None
    finally:
        with suppress(OSError):  # gone after the rename; left by a failure
            beside.unlink()


def _sync_folder(folder: Path) -> None:
    """The rename itself has to survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, text: str) -> None:
    """Add one line to a file of lines."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; free some space or check permissions.") from None


def to_json(value: Any, indent: int | None = 1) -> str:
    """JSON that every reader takes: null stands for a number that is not finite."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Parsed JSON; RunError names the file."""
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}; restore or delete it.") from None


def truncate_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the JSON lines that satisfy `keep`; a torn line at the end is dropped, one before it is a RunError."""
    lines = [line for line in _read_text(path).split("\n") if line.strip()]
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError(f"it is a {type(entry).__name__}")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, entry {number} is not a JSON object: {error}; delete that line.") from None
        if keep(entry):
            kept.append(line + "\n")
    write_atomic(path, "".join(kept))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")  # a write may be torn within a character
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; check that it exists and may be read.") from None
