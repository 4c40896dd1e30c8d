"""Archives read in place: a folder, a tar or a zip; nothing is unpacked to the disk, and sizes are bounded."""

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lethax.errors import DataError, did_you_mean

MEMBER_BYTES = 1 << 30
TOTAL_BYTES = 16 << 30
MEMBERS = 2_000_000

Wanted = Callable[[str], bool]
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    ValueError, OverflowError, IndexError, MemoryError,
)  # fmt: skip


class Archive:
    """A folder, a .tar (.gz, .xz, .bz2) or a .zip, read in place: nothing is ever unpacked to the disk.

    DataError for links, devices, absolute names, `..`, and more or larger members than the bounds allow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise DataError(f"{path} does not exist: give the folder or archive that holds the data.")
        self.kind = "folder" if path.is_dir() else "zip" if self._begins() == b"PK" else "tar"

    def names(self) -> list[str]:
        """Names of all files, in archive order. A compressed tar is read once for it."""
        names: list[str] = []

        def note(name: str) -> bool:
            names.append(name)
            return False  # only listed: no content is kept

        for _ in self.items(note):
            pass
        return names

    def read(self, name: str) -> bytes:
        """The content of one file; DataError if there is none of that name."""
        found = dict(self.items(lambda member: member == name))  # to the end, see `_Bounded.finish`
        if name in found:
            return found[name]
        raise DataError(f"{self.path} has no {name}.{did_you_mean(name, self.names())} Fetch it again.")

    def items(self, wanted: Wanted | None = None) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every file in archive order; of those alone whose name `wanted` accepts, where given."""
        read = {"folder": self._folder, "zip": self._zip, "tar": self._tar}[self.kind]
        total = 0
        try:
            for name, content in read(wanted or (lambda _: True)):
                total += len(content)
                if total > TOTAL_BYTES:
                    raise self._too_large(f"more than {TOTAL_BYTES} bytes")
                yield name, content
        except _DAMAGE as error:
            what = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise DataError(f"{self.path} cannot be read, is damaged or truncated ({what}): fetch it again.") from None

    def _begins(self, count: int = 2) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(count)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from None

    def _folder(self, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
        root = self.path.resolve()
        for path in self._walk():
            name = path.relative_to(self.path).as_posix()
            linked = path.is_dir()  # _walk gives folders only where they are links
            if not linked and not (path.is_file() and wanted(name)):
                continue  # also broken links, and pipes, which would block
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise DataError(
                    f"{path} links outside {self.path} and was not read: replace it by the file or folder itself."
                )
            if not linked:
                self._bound(name, path.stat().st_size)
                yield name, path.read_bytes()

    def _walk(self) -> list[Path]:
        """All files, and the links to folders, which are not followed; sorted."""
        found: list[Path] = []
        for at, folders, files in os.walk(self.path):
            found += [Path(at) / name for name in files]
            found += [path for path in (Path(at) / name for name in folders) if path.is_symlink()]
            if len(found) > MEMBERS:
                raise self._too_large(f"more than {MEMBERS} files")
        return sorted(found)

    def _zip(self, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            if len(archive.infolist()) > MEMBERS:
                raise self._too_large(f"more than {MEMBERS} files")
            for entry in archive.infolist():
                name = self._inside(entry.filename)
                kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive is not of a Unix
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self._refused(name)
                if not entry.is_dir() and wanted(name):
                    self._bound(name, entry.file_size)
                    with archive.open(entry) as file:
                        yield name, self._content(file, name)

    def _tar(self, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
        with self._unpacked() as plain:
            tape = _Bounded(plain, self)
            archive = tarfile.open(fileobj=tape, mode="r:")  # type: ignore[call-overload]
            count = 0
            while (entry := archive.next()) is not None:
                count += 1
                archive.members.clear()  # tarfile would keep every header in memory
                name = self._inside(entry.name)
                if count > MEMBERS:
                    raise self._too_large(f"more than {MEMBERS} files")
                if not entry.isfile() and not entry.isdir():
                    raise self._refused(name)
                self._bound(name, entry.size)
                file = archive.extractfile(entry) if entry.isfile() and wanted(name) else None
                if file:
                    yield name, self._content(file, name)
            tape.finish()

    def _unpacked(self) -> IO[bytes]:
        begins = self._begins(6)
        if begins.startswith(b"\x1f\x8b"):
            return gzip.open(self.path)  # type: ignore[return-value]
        if begins.startswith(b"BZh"):
            return bz2.open(self.path)
        return lzma.open(self.path) if begins == b"\xfd7zXZ\x00" else self.path.open("rb")

    def _content(self, file: IO[bytes], name: str) -> bytes:
        content = file.read(MEMBER_BYTES + 1)  # what a header says of a size is not trusted
        self._bound(name, len(content))
        return content

    def _bound(self, name: str, size: int) -> None:
        if not 0 <= size <= MEMBER_BYTES:
            raise self._too_large(f"{name} of {size} bytes, more than {MEMBER_BYTES}")

    def _too_large(self, what: str) -> DataError:
        return DataError(f"{self.path} holds {what}: it was not read. Fetch it again from where it was published.")

    def _refused(self, name: str) -> DataError:
        return DataError(
            f"{self.path} holds {name}, a link or device: it was not read. Give an archive of plain files."
        )

    def _inside(self, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise DataError(f"{self.path} holds {name!r}, which points outside: it was not read.")
        return path.as_posix()


class _Bounded:
    """The decompressed bytes of a tar: a header that claims a huge field, or endless padding, ends here."""

    def __init__(self, file: IO[bytes], archive: Archive) -> None:
        self._file, self._archive = file, archive
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MEMBER_BYTES + tarfile.BLOCKSIZE:
            raise self._archive._too_large(f"a header field of {size} bytes, more than {MEMBER_BYTES}")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        if place > TOTAL_BYTES:
            raise self._archive._too_large(f"more than {TOTAL_BYTES} bytes")
        return self._file.seek(place, whence)

    def finish(self) -> None:
        """Read to the end: what was compressed has its checksum there."""
        while self._file.read(1 << 20):
            self.seek(self.tell())
