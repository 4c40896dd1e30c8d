"""Read xz and bzip2 files to their end, within a bound of memory.

`lzma.open` has no bound, although a file may ask for a window of 4 GiB, and `bz2.open` passes over what stands behind the end.
"""

import bz2
import io
import lzma
from io import BufferedReader
from typing import Any

from lethax.errors import DataError

WINDOW = 1 << 28  # bytes; `xz -9` takes a quarter of them
PIECE = 1 << 16  # bytes that are read at once


class Packed(io.RawIOBase):
    """The unpacked bytes of an xz or bzip2 file, read forwards. DataError if unpacking needs more than WINDOW bytes."""

    def __init__(self, file: BufferedReader, title: str, *, xz: bool) -> None:
        self._file, self._title, self._at, self._xz = file, title, 0, xz
        self._stream = self._begun()

    def _begun(self) -> lzma.LZMADecompressor | bz2.BZ2Decompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW) if self._xz else bz2.BZ2Decompressor()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        found = b""
        while not found:
            packed = b""
            if self._stream.eof:  # a file may be several streams, with zeros between them
                packed = self._stream.unused_data.lstrip(b"\0")
                while not packed and (piece := self._file.read(PIECE)):
                    packed = piece.lstrip(b"\0")
                if not packed:
                    return 0
                self._stream = self._begun()
            elif self._stream.needs_input and not (packed := self._file.read(PIECE)):
                raise EOFError("the file ends within a stream")
            found = self._unpack(packed, len(into))
        into[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _unpack(self, packed: bytes, count: int) -> bytes:
        try:
            return self._stream.decompress(packed, count)
        except lzma.LZMAError as error:
            if "emory" not in str(error):
                raise
            raise DataError(
                f"{self._title} needs more than {WINDOW >> 20} MiB of memory to be unpacked: it was not read. "
                "Unpack it and give the folder."
            ) from None

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Move forwards only, which is enough for `tarfile`."""
        target = self._at + place if whence == io.SEEK_CUR else place
        if target < self._at or whence == io.SEEK_END:
            raise io.UnsupportedOperation("a packed file is read forwards")
        left = target - self._at
        while left and (found := self.read(min(left, PIECE))):
            left -= len(found)
        return self._at
