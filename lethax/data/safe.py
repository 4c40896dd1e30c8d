"""Opening files from elsewhere: only plain files, which never block, and whose bytes are mapped rather than copied."""

import hashlib
import mmap
import os
import stat
from io import BufferedReader
from pathlib import Path

from lethax.errors import DataError
from lethax.text import shown


def open_file(path: Path) -> BufferedReader:
    """A plain file, open for reading; DataError for what is none, such as a pipe, which could block for ever."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(handle, "rb")
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return file
        file.close()
        reason = "it is no plain file"
    except OSError as error:
        reason = str(error.strerror)
    raise DataError(f"{shown(path)} cannot be read: {reason}.")


def mapped(path: Path) -> bytes | mmap.mmap:
    """The bytes of a file; they stay on the disk, so that a large one takes no memory."""
    with open_file(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; of a file's name that is not, Python keeps the bytes as half characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
