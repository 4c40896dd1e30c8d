"""Reading files from elsewhere: pickles that can only hold data, archives that cannot write, bounded sizes."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from lethax.errors import DataError, did_you_mean

MEMBER_BYTES = 1 << 30
TOTAL_BYTES = 16 << 30
MEMBERS = 2_000_000

Wanted = Callable[[str], bool]
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    ValueError, OverflowError, IndexError, MemoryError,
)  # fmt: skip


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_pickle(blob: bytes | IO[bytes], name: str, encoding: str = "bytes") -> Any:
    """Unpickle plain data; DataError names the file and what it asked for, and nothing of it has run."""
    try:
        return _DataOnly(io.BytesIO(blob) if isinstance(blob, bytes) else blob, encoding=encoding).load()
    except DataError as error:
        raise DataError(f"{name} {error}: it was not read. Fetch it again from where it was published.") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{name} is damaged ({type(error).__name__}: {error}): fetch it again.") from None


class _Dtype:
    """Stands for numpy.dtype: a pickle may set a real one's inner fields, and thus what its memory is taken for."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        text = _text(code)
        if not re.fullmatch(r"[biufc]\d{1,2}|[SU]\d{1,6}", text):
            raise DataError(f"holds an array of type {text!r}, where numbers or strings were expected")
        self.real = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order: Any = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise DataError(f"holds an array of byte order {order!r}, which does not exist")
        self.real = self.real.newbyteorder(order)


class _Array(np.ndarray):
    """Stands for numpy.ndarray while it is filled; its elements are never objects."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | str):
            raise DataError("holds an array of objects, where numbers or strings were expected")
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        checked: Any = (1, tuple(shape), dtype.real, bool(fortran), content)
        super().__setstate__(checked)


def _reconstruct(kind: Any, *_: Any) -> np.ndarray:
    if kind is not _Array:
        raise DataError("holds an array of an unknown kind, where numbers or strings were expected")
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | str):
        raise DataError("holds an object in an array's clothes, where numbers or strings were expected")
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype.real, 1)[0]


def _encode(text: str, encoding: Any = "latin1") -> bytes:
    if _text(encoding) not in ("latin1", "latin-1"):
        raise DataError(f"encodes text as {_text(encoding)!r}, where latin1 was expected")
    return text.encode("latin1")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


# All that a pickle of NumPy arrays, dicts, lists, strings and bytes needs; each is replaced by what only makes data.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _DataOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise DataError(f"asks for {module}.{name}, which no data file needs")
        return _ADMITTED[module, name]


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
