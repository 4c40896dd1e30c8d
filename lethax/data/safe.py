"""Reading files from elsewhere: pickles that can only hold data, archives that cannot write, bounded sizes."""

import hashlib
import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lethax.errors import DataError

MEMBER_BYTES = 1 << 30
TOTAL_BYTES = 16 << 30
MEMBERS = 2_000_000
# What a pickle of NumPy arrays, dicts, lists, strings and bytes needs, and nothing that acts.
_ADMITTED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _DataOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise DataError(f"asks for {module}.{name}, which no data file needs")
        return super().find_class(module, name)


def load_pickle(blob: bytes, name: str, encoding: str = "bytes") -> Any:
    """Unpickle plain data; DataError names the file and what it asked for, and nothing of it has run."""
    try:
        return _DataOnly(io.BytesIO(blob), encoding=encoding).load()
    except DataError as error:
        raise DataError(f"{name} {error}: it was not read. Fetch it again from where it was published.") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{name} is damaged ({type(error).__name__}: {error}): fetch it again.") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Archive:
    """A folder, a .tar (.gz, .xz, .bz2) or a .zip, read in place: nothing is ever unpacked to the disk.

    DataError for links, absolute names, `..`, and more or larger members than the bounds allow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise DataError(f"{path} does not exist.")
        self.kind = "folder" if path.is_dir() else "zip" if zipfile.is_zipfile(path) else "tar"

    def items(self, wanted: Any = None) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every file in archive order; of those alone whose name `wanted` accepts, where given."""
        read = {"folder": self._folder, "zip": self._zip, "tar": self._tar}[self.kind]
        total = 0
        try:
            for count, (name, content) in enumerate(read(wanted or (lambda _: True))):
                total += len(content)
                if total > TOTAL_BYTES or count >= MEMBERS:
                    raise DataError(f"{self.path} holds more than {TOTAL_BYTES >> 30} GiB or {MEMBERS} files: it was not read.")
                yield name, content
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, RuntimeError) as error:
            raise DataError(f"{self.path} is damaged or truncated ({error}): fetch it again.") from None

    def _folder(self, wanted: Any) -> Iterator[tuple[str, bytes]]:
        root = self.path.resolve()
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if not path.is_file() or not wanted(name):
                continue
            if not path.resolve().is_relative_to(root):
                raise DataError(f"{path} links outside {self.path}: it was not read.")
            self._bound(name, path.stat().st_size)
            yield name, path.read_bytes()

    def _zip(self, wanted: Any) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                name = self._inside(entry.filename)
                if wanted(name):
                    self._bound(name, entry.file_size)
                    with archive.open(entry) as file:
                        yield name, self._read(file, name)

    def _tar(self, wanted: Any) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(self.path) as archive:
            for entry in archive:
                name = self._inside(entry.name)
                if entry.issym() or entry.islnk() or entry.isdev():
                    raise DataError(f"{self.path} holds {name}, a link or device: it was not read.")
                file = archive.extractfile(entry) if entry.isfile() and wanted(name) else None
                if file:
                    self._bound(name, entry.size)
                    yield name, self._read(file, name)

    def _read(self, file: Any, name: str) -> bytes:
        content: bytes = file.read(MEMBER_BYTES + 1)  # what a header says of a size is not trusted
        self._bound(name, len(content))
        return content

    def _bound(self, name: str, size: int) -> None:
        if size > MEMBER_BYTES:
            raise DataError(f"{self.path} holds {name} of {size} bytes, more than {MEMBER_BYTES}: it was not read.")

    def _inside(self, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise DataError(f"{self.path} holds {name!r}, which points outside: it was not read.")
        return path.as_posix()
