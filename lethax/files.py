"""Write small files so that a reader sees the old or the new content, never a mixture; read them, where they are plain files."""

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

from lethax.errors import RunError

# Not to wait for the writer of a pipe, on Unix; not to change line ends, on Windows.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file beside the target, flush it to the disk, and rename it over the target. RunError if that fails."""
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write files as `write_atomic` does, of which the last describes the others. RunError if that fails.

    It is deleted before another is replaced, and comes last, so that a kill leaves it beside none but those that it describes. All
    are on the disk before that: a disk that is full changes nothing.
    """
    beside = {path: path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp" for path in contents}
    *others, last = contents
    for path in contents:
        if path.exists() and not path.is_file():  # a rename would put a file in the place of a device
            raise RunError(f"{path} is a folder or a device: name a file.")
    try:
        for path, content in contents.items():
            with beside[path].open("xb") as file:  # not tempfile, which would make it private whatever the umask
                file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        if others:
            last.unlink(missing_ok=True)
        for path in contents:
            os.replace(beside[path], path)
            sync(path.parent)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}; free some space or check permissions, what was there is unchanged."
        ) from None
    finally:
        for left in beside.values():
            with suppress(OSError):  # gone after the rename; left by a failure
                left.unlink()


def in_the_way(path: Path) -> Path | None:
    """What stands where a folder above a path has to be, so that nothing can be written there; None if nothing does."""
    above = next((folder for folder in path.parents if os.path.lexists(folder)), None)
    return above if above is not None and not above.is_dir() else None


def sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk: a rename itself has to survive a power cut.

    Systems that cannot do so with a folder are let be: Windows does not open one, and some file systems refuse to sync it.
    """
    folder = path.is_dir()
    with suppress(OSError) if folder else nullcontext():
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows syncs only what may be written
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_all(folder: Path, stem: str, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write STEM.KIND for every kind of contents, such as "csv" and "png", each atomically. The folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{kind}" for kind in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths


def append_line(path: Path, text: str) -> None:
    """Add one line to a file of lines."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; free some space or check permissions.") from None


def settle_lines(*paths: Path) -> None:
    """Force files of lines, those that are there, to the disk; RunError if that fails."""
    for path in filter(Path.exists, paths):
        try:
            sync(path)
            sync(path.parent)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}; free some space or check the disk.") from None


def to_json(value: Any, indent: int | None = 1) -> str:
    """Write JSON that every reader takes: null stands for a number that is not finite."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file. RunError names the file if it cannot be read."""
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}; restore or delete it.") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log: JSON objects with a number "step". A torn last line is left out; any other one is a RunError."""
    return [entry for entry, _ in _lines(path)]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log as in `read_lines`; none where it is not there."""
    return read_lines(path) if path.is_file() else []


def truncate_lines(path: Path, step: int) -> None:
    """Delete a torn last line of a log and the lines of later steps. RunError as in `read_lines`."""
    text = "".join(line + "\n" for entry, line in _lines(path) if entry["step"] <= step)
    if text != _read_text(path):
        write_atomic(path, text)


def _lines(path: Path) -> list[tuple[dict[str, Any], str]]:
    lines = [line for line in _read_text(path).split("\n") if line.strip()]
    found: list[tuple[dict[str, Any], str]] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError(f"it is a {type(entry).__name__}")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, entry {number} is not a JSON object: {error}; delete that line.") from None
        if type(entry.get("step")) is not int:
            raise RunError(f"{path}, entry {number} has no number 'step'; delete that line.")
        found.append((entry, line))
    return found


def _read_text(path: Path) -> str:
    try:
        with TextIOWrapper(open_plain(path), "utf-8", "replace") as file:  # a write may be torn within a character
            return file.read()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; check that it exists and may be read.") from None


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading. OSError for anything else, such as a pipe, which could block for ever."""
    handle = os.open(path, _READING)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is no plain file")
