"""Open files from elsewhere. Only plain files are opened, which never block; their bytes are mapped and not copied."""

import hashlib
import mmap
import os
from io import BufferedReader
from pathlib import Path

from lethax.errors import DataError
from lethax.files import open_plain
from lethax.text import shown


def open_file(path: Path) -> BufferedReader:
    """Open a plain file for reading. DataError if it cannot be opened."""
    try:
        return open_plain(path)
    except OSError as error:
        raise DataError(
            f"{shown(path)} cannot be read: {error.strerror}; check that it is there, is a file, and may be read."
        ) from None


def mapped(path: Path) -> bytes | mmap.mmap:
    """The bytes of a file; they stay on the disk, so that a large one takes no memory.

    Nothing guards against another program that shortens the file meanwhile: the system then ends this one (SIGBUS).
    """
    with open_file(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_small(path: Path, limit: int) -> bytes:
    """Read a file of the size that a person could have written. DataError if it has more than `limit` bytes."""
    with open_file(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise DataError(f"{shown(path)} has more than {limit} bytes: it was not read.")
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; of a file's name that is not, Python keeps the bytes as half characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
