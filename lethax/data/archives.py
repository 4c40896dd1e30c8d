"""Read archives in place: folders, tars and zips. Nothing is unpacked to the disk, and their memory is bounded.

What a header says of a size is looked at before anything is read, and contents and headers are read in small pieces.
"""

import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO

from lethax.data.packed import Packed
from lethax.data.safe import is_text, open_file
from lethax.data.tape import PIECE, Tape
from lethax.errors import DataError, did_you_mean
from lethax.text import counted, shown

MEMBER_BYTES = 1 << 30
TOTAL_BYTES = 16 << 30
RATIO, ANY_RATIO = 200, 4 << 30  # a file may unpack to more than RATIO times its bytes up to ANY_RATIO
MEMBERS = 1_000_000
NAME, NAMES = 1 << 12, 1 << 28  # letters of a name, and of all together
PARTS = 64  # folders of a name, one within the other
DIRECTORY_BYTES = 1 << 27  # of a zip's list of members

_END, _END_BYTES = b"PK\5\6", 22  # of a zip, without its comment
_BEFORE = (b"", b"PK00", b"PK\7\x08")  # what may stand before the first member: marks of a zip made to be split
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"

Wanted = Callable[[str], bool]
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    ValueError, OverflowError, IndexError, MemoryError,
)  # fmt: skip


def _is_old_tar(begins: bytes) -> bool:
    """Whether this is the header of a tar from before `ustar`, which has no other mark than a sum of its bytes."""
    try:
        tarfile.TarInfo.frombuf(begins, "latin1", "strict")
    except (tarfile.HeaderError, ValueError, struct.error):
        return False
    return True


class Archive:
    """A folder, a .tar (.gz, .xz, .bz2) or a .zip, which is read in place: nothing is unpacked to the disk.

    DataError for links, devices, sparse members, absolute names, `..`, names that are not UTF-8, and more or larger members than
    the bounds allow.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.title = path, shown(path)
        if not path.exists():
            raise DataError(f"{self.title} does not exist: give the folder or archive that holds the data.")
        self.kind = "folder" if path.is_dir() else self._kind()

    def names(self) -> list[str]:
        """The names of all files, in the order of the archive. This reads a compressed tar once."""
        names: list[str] = []

        def note(name: str) -> bool:
            names.append(name)
            return False  # only listed: no content is kept

        for _ in self.items(note):
            pass
        return names

    def read(self, name: str) -> bytes | bytearray:
        """Read the content of one file. DataError if there is no file of that name."""
        found = dict(self.items(lambda member: member == name))  # to the end, see `Tape.finish`
        if name in found:
            return found[name]
        near = did_you_mean(name, self.names())
        raise DataError(f"{self.title} has no {shown(name)}.{shown(near)} Fetch it again.")

    def items(self, wanted: Wanted | None = None, limit: int | None = None) -> Iterator[tuple[str, bytes | bytearray]]:
        """Yield (name, content) of every file in the order of the archive, or only of those whose names `wanted` accepts.

        limit: bytes of the largest content, MEMBER_BYTES unless given.
        """
        read = {"folder": self._folder, "zip": self._zip, "tar": self._tar}[self.kind]
        self._limit = MEMBER_BYTES if limit is None else limit
        self.total = TOTAL_BYTES
        if self.kind != "folder":
            self.total = min(TOTAL_BYTES, max(ANY_RATIO, RATIO * self.path.stat().st_size))
        total = count = letters = 0

        def counted(name: str) -> bool:
            nonlocal count, letters
            count, letters = count + 1, letters + len(name)
            if count > MEMBERS or letters > NAMES:
                raise self._too_large(f"more than {MEMBERS} files" if count > MEMBERS else "names without end")
            return wanted is None or wanted(name)

        try:
            for name, content in read(counted):
                total += len(content)
                if total > self.total:
                    raise self._too_large(f"more than {self.total} bytes")
                yield name, content
        except _DAMAGE as error:
            what = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise DataError(
                f"{self.title} cannot be read, is damaged or truncated ({shown(what)}): fetch it again."
            ) from None

    def _kind(self) -> str:
        """Whether a file is a zip or a tar, by its first bytes. DataError for any other file."""
        begins = self._begins(tarfile.BLOCKSIZE)
        if begins.startswith(b"PK"):
            return "zip"
        if begins.startswith((_GZIP, _BZIP2, _XZ)) or begins[257:262] == b"ustar" or _is_old_tar(begins):
            return "tar"
        found = f"begins with '{shown(begins[:20].decode('latin1'))}'" if begins else "is empty"
        raise DataError(
            f"{self.title} is neither a folder nor a .zip or .tar (.gz, .bz2, .xz) archive: it {found}. Give the folder or archive "
            "that holds the data."
        )

    def _begins(self, count: int) -> bytes:
        with open_file(self.path) as file:
            return file.read(count)

    def _folder(self, wanted: Wanted) -> Iterator[tuple[str, bytearray]]:
        root = os.path.realpath(self.path)
        for path in self._walk():
            name = path.relative_to(self.path).as_posix()
            linked = path.is_dir()  # _walk gives folders only where they are links
            if not linked and not (path.is_file() and wanted(name)):
                continue  # also broken links, and pipes, which would block
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise DataError(
                    f"{shown(path)} links outside {self.title} and was not read: replace it by the file or folder itself."
                )
            if not linked:
                with open_file(path) as file:
                    yield name, self._content(file, name, os.fstat(file.fileno()).st_size)

    def _walk(self) -> list[Path]:
        """Find all files, sorted, and the links to folders, which are not followed."""
        found: list[Path] = []
        for at, folders, files in os.walk(self.path):
            found += [Path(at) / name for name in files]
            found += [path for path in (Path(at) / name for name in folders) if path.is_symlink()]
            if len(found) > MEMBERS:
                raise self._too_large(f"more than {MEMBERS} files")
        return sorted(found)

    def _zip(self, wanted: Wanted) -> Iterator[tuple[str, bytearray]]:
        with open_file(self.path) as file, zipfile.ZipFile(_Disk(file, self)) as archive:
            self._check_ends(file, archive)
            for entry in archive.infolist():
                name = self._inside(entry.filename)
                kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive is not of a Unix
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self._refused(name)
                if not entry.is_dir() and wanted(name):
                    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise DataError(
                            f"{self.title} holds {shown(name)}, packed with method {entry.compress_type}, where none or deflate "
                            "was expected: it was not read. Unpack it and give the folder."
                        )
                    with archive.open(entry) as content:
                        yield name, self._content(content, name, entry.file_size)

    def _check_ends(self, file: IO[bytes], archive: zipfile.ZipFile) -> None:
        """That nothing stands around a zip, such as another one: `zipfile` reads the last one and passes over all else."""
        before = min((entry.header_offset for entry in archive.infolist()), default=archive.start_dir)
        if not (0 <= before <= 4 and self._begins(before) in _BEFORE):
            raise self._joined(f"{counted(before, 'byte')} before its first member")
        file.seek(-_END_BYTES - len(archive.comment), os.SEEK_END)
        end = file.read(_END_BYTES)
        if not end.startswith(_END) or end[-2:] != struct.pack("<H", len(archive.comment)):
            raise self._joined("something behind its end that is no comment")

    def _joined(self, what: str) -> DataError:
        return DataError(
            f"{self.title} holds {what}, where nothing was expected: it was not read. Fetch it again, or if archives were joined "
            "to it, unpack each and give the folder."
        )

    def _tar(self, wanted: Wanted) -> Iterator[tuple[str, bytearray]]:
        with open_file(self.path) as file, self._unpacked(file) as plain:
            tape = Tape(plain, self._too_large, self.total)
            archive = tarfile.open(fileobj=tape, mode="r:", tarinfo=tape.entry_type())  # type: ignore[call-overload]
            while (entry := archive.next()) is not None:
                archive.members.clear()  # tarfile would keep every header in memory
                name = self._inside(entry.name)
                if not (entry.isfile() or entry.isdir()) or entry.issparse():
                    raise self._refused(name)
                if entry.isfile() and wanted(name) and (content := archive.extractfile(entry)):
                    yield name, self._content(content, name, entry.size, tape)
                else:
                    self._bound(name, entry.size, MEMBER_BYTES)  # what is passed over is still unpacked
                tape.header()
            tape.finish()

    def _unpacked(self, file: BufferedReader) -> IO[bytes]:
        begins = self._begins(6)
        if begins.startswith(_GZIP):
            return gzip.open(file)  # type: ignore[return-value]
        if begins.startswith((_BZIP2, _XZ)):
            return BufferedReader(Packed(file, self.title, xz=begins == _XZ))
        return file

    def _content(self, file: IO[bytes], name: str, size: int, tape: Tape | None = None) -> bytearray:
        """Read exactly `size` bytes. Memory grows as they come, because a header may claim much more than there is."""
        self._bound(name, size, self._limit)
        content = bytearray()
        while len(content) < size:
            if tape:
                tape.header()
            piece = file.read(min(PIECE, size - len(content)))
            if not piece:
                raise EOFError(f"{shown(name)} ends after {len(content)} of {counted(size, 'byte')}")
            content += piece
        return content

    def _bound(self, name: str, size: int, limit: int) -> None:
        if not 0 <= size <= limit:
            raise self._too_large(f"{shown(name)} of {size} bytes, more than {limit}")

    def _too_large(self, what: str) -> DataError:
        return DataError(f"{self.title} holds {what}: it was not read. Fetch it again from where it was published.")

    def _refused(self, name: str) -> DataError:
        return DataError(
            f"{self.title} holds {shown(name)}, a link, a device or a sparse file: it was not read. "
            "Give an archive of plain files."
        )

    def _inside(self, name: str) -> str:
        if len(name) > NAME:
            raise DataError(f"{self.title} holds a name of {len(name)} letters, more than {NAME}: it was not read.")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise DataError(f"{self.title} holds '{shown(name)}', which points outside: it was not read.")
        if len(path.parts) > PARTS:
            raise DataError(
                f"{self.title} holds a name of {len(path.parts)} folders, more than {PARTS}: it was not read."
            )
        if not is_text(name):
            raise DataError(
                f"{self.title} holds '{shown(name)}', a name that is not UTF-8: rename it and pack it again."
            )
        return path.as_posix()


class _Disk:
    """The file of a zip. Its list of members is read as a whole, so its size is bounded here; contents are read in pieces."""

    def __init__(self, file: IO[bytes], archive: Archive) -> None:
        self._file, self._archive = file, archive
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(min(size, DIRECTORY_BYTES + 1) if size >= 0 else DIRECTORY_BYTES + 1)
        if len(found) > DIRECTORY_BYTES:
            raise self._archive._too_large(f"a list of members of more than {DIRECTORY_BYTES} bytes")
        if found.count(b"PK\1\2") > MEMBERS:  # so each of the list begins
            raise self._archive._too_large(f"more than {MEMBERS} files")
        return found
