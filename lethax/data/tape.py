"""Pass the unpacked bytes of a tar to `tarfile`, and stop at headers that would take memory or time without end."""

import io
import re
import tarfile
from collections.abc import Callable
from typing import IO

HEADER_BYTES = 1 << 24  # of what stands before one member
EXTENDED, ALL_EXTENDED = 1 << 16, 1 << 28  # bytes of one extended header, and of all together
KEPT = 1 << 12  # bytes of those that count for all later members
DIGITS = 64  # in a row in such a header: `tarfile` takes the square of their number
PIECE = 1 << 17  # bytes that are read at once

_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class Tape:
    """The file that `tarfile` reads from. `too_large` makes the error of an archive of more than `total` bytes."""

    def __init__(self, file: IO[bytes], too_large: Callable[[str], Exception], total: int) -> None:
        self._file, self._too_large, self._total = file, too_large, total
        self.tell = file.tell
        self._pax, self._extended, self._kept = False, 0, 0
        self.header()

    def header(self) -> None:
        """From here on HEADER_BYTES may be read until this is called again."""
        self._left = HEADER_BYTES

    def entry_type(self) -> type[tarfile.TarInfo]:
        """The type that `tarfile` makes of headers. It tells this tape of each header before it reads on."""
        tape = self

        class Entry(tarfile.TarInfo):
            @classmethod
            def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Entry":
                try:
                    entry = super().frombuf(buf, encoding, errors)
                except tarfile.HeaderError as error:  # `tarfile` takes it for the end; only zeros are one
                    if buf == bytes(tarfile.BLOCKSIZE):
                        raise
                    raise tarfile.ReadError(f"{error} where a member or the end should be") from None
                tape._follows(entry.type, entry.size)
                return entry

        return Entry

    def _follows(self, kind: bytes, size: int) -> None:
        """An extended header holds a long name, or fields of the next member or of all later ones."""
        self._pax = kind in _PAX
        if not self._pax and kind not in _LONG:
            return
        if not 0 <= size <= EXTENDED:
            raise self._too_large(f"a header of {size} bytes, more than {EXTENDED}")
        self._extended += size
        self._kept += size if kind == tarfile.XGLTYPE else 0
        if self._kept > KEPT or self._extended > ALL_EXTENDED:
            raise self._too_large("headers without end")

    def read(self, size: int = -1) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise self._too_large(f"a header of {size} bytes or more")
        found = self._file.read(size)
        if self._pax:
            self._pax = False
            _check_fields(found)
        return found

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        if place > self._total:
            raise self._too_large(f"more than {self._total} bytes")
        return self._file.seek(place, whence)

    def finish(self) -> None:
        """Read to the end, where compressed data have their checksum. Only zeros may stand there: else a header was zeroed."""
        while found := self._file.read(PIECE):
            if found.strip(b"\0"):
                raise tarfile.ReadError("something stands behind the end")
            self.seek(self.tell())


def _check_fields(header: bytes) -> None:
    """That an extended header is a row of fields `length name=value`: in any other `tarfile` looks for them again and again."""
    at = 0
    while header[at : at + 1] not in (b"", b"\0"):
        length, space, _ = header[at : at + 8].partition(b" ")
        end = at + (int(length) if space and length.isdigit() else 0)
        if end <= at or end > len(header) or header[end - 1] != ord("\n") or header.find(b"=", at, end) < 0:
            raise tarfile.ReadError("a field of an extended header has not the length that it says")
        at = end
    if any(len(digits) > DIGITS for digits in re.findall(rb"\d+", header)):
        raise tarfile.ReadError(f"more than {DIGITS} digits in a row in an extended header")
