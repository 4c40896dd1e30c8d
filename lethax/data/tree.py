"""List what a folder or an archive of pictures holds: the pictures, and what is not read, each with a reason."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from lethax.data.archives import PARTS, Archive
from lethax.data.safe import read_small
from lethax.errors import DataError

Blob = bytes | bytearray | Path
PICTURE_BYTES = 1 << 28  # of the largest file of a picture in an archive
TEXT_BYTES = 1 << 26  # of a list of pictures

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip

# What the folders of splits are called, without the words around it: see `split_of`.
SYNONYMS = {
    "train": "train", "training": "train", "base": "train", "background": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "novel": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


def split_of(folder: str) -> str | None:
    """The split that a folder's name stands for: "train" for `Training`, `meta-train`, `train_set` or `images_background`."""
    words = folder.casefold().replace("-", " ").replace("_", " ").split()
    name = "".join(word for word in words if word not in ("meta", "set", "split", "images", "data"))
    return SYNONYMS.get(name) or SYNONYMS.get(name.removeprefix("meta").removesuffix("set"))


def is_picture(name: str) -> bool:
    """Whether a file name is that of a visible picture."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not _hidden(name)


class Tree:
    """The pictures of a folder or an archive: their contents, and their names without folders that hold everything.

    left_out: a reason for every other visible file, for links that lead nowhere, and for folders without pictures.
    whole: a link out of the folder is a DataError, because a class may be behind it; else it is left out.
    """

    def __init__(self, source: Path, *, whole: bool = True) -> None:
        if not source.exists():
            raise DataError(f"{source} does not exist; give the folder or archive that holds the pictures.")
        self.archive, self.source, self._whole = Archive(source), source, whole
        self.left_out: dict[str, str] = {}
        names, folders = self._inside() if source.is_dir() else (list(dict.fromkeys(self.archive.names())), [])
        self.files = [name for name in names if not _hidden(name)]
        self.pictures = sorted(name for name in self.files if is_picture(name))
        for name in sorted(set(self.files) - set(self.pictures)):
            ending = PurePosixPath(name).suffix
            self.left_out[name] = (
                f"the ending {ending} is not read" if ending else "it has no ending that says what it is"
            )
        used = _folders_of(self.pictures)
        for folder in folders:
            if folder not in used and _above(folder) in used:
                self.left_out.setdefault(f"{folder}/", "there are no pictures in it that are read")

    def _inside(self) -> tuple[list[str], list[str]]:
        """List (files, folders) below a folder."""
        root, files, folders = os.path.realpath(self.source), [], []
        for at, below, names in os.walk(self.source, onerror=self._unread):
            entries = [Path(at) / name for name in [*below, *names]]
            below.clear()  # of these only what is taken as a folder is walked
            for path in entries:
                short = path.relative_to(self.source).as_posix()
                if _hidden(short):
                    continue
                if short.count("/") >= PARTS:
                    self.left_out[short] = f"it is in more than {PARTS} folders within each other"
                    continue
                try:
                    reason = self._reason(path, root)
                except OSError as error:  # as where the whole path is longer than the system takes
                    reason = f"it cannot be read: {error.strerror}"
                if reason:
                    self.left_out[short] = reason
                elif path.is_file():
                    files.append(short)
                else:
                    folders.append(short)
                    below.append(path.name)
        return files, sorted(folders)

    def _reason(self, path: Path, root: str) -> str | None:
        """The reason why a path is not read; None for a file or a folder."""
        linked = path.is_symlink()
        if linked and path.exists() and not Path(os.path.realpath(path)).is_relative_to(root):
            if not self._whole:
                return "it is a link out of the folder"
            raise DataError(f"{path} is a link out of {self.source}; replace it by the file or folder itself.")
        if path.is_file():
            return None
        if not path.is_dir():  # also pipes, which would block
            return "it is a link to nothing" if linked else "it is not a file"
        return "it is a link to another folder" if linked else None

    def _unread(self, error: OSError) -> None:
        folder = Path(error.filename).relative_to(self.source).as_posix()
        if folder == ".":
            raise DataError(f"{self.source} cannot be read: {error.strerror}.")
        self.left_out[f"{folder}/"] = f"it cannot be read: {error.strerror}"

    def blobs(self, wanted: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        """Yield the contents of pictures: paths, which the decoding threads read, or bytes in the order of the archive."""
        if self.source.is_dir():
            yield from ((name, self.source / name) for name in wanted)
        else:
            yield from self.archive.items(frozenset(wanted).__contains__, PICTURE_BYTES)

    def blob(self, name: str) -> Blob:
        """One file: its path, or its content if it is in an archive."""
        return self.source / name if self.source.is_dir() else self.archive.read(name)

    def small(self, name: str) -> bytes | bytearray:
        """The content of one file that lists pictures. DataError if it has more than TEXT_BYTES."""
        blob = self.blob(name)
        return read_small(blob, TEXT_BYTES) if isinstance(blob, Path) else blob

    def text(self, name: str) -> str:
        """The text of one file, in which a sign stands for what is not UTF-8."""
        return self.small(name).decode("utf-8", "replace")

    def find(self, basename: str) -> str | None:
        """Find the file of that name that is nearest to the top."""
        found = [name for name in self.files if PurePosixPath(name).name == basename]
        return min(found, key=lambda name: (name.count("/"), name), default=None)

    def below_top(self) -> dict[str, str]:
        """Map the names of pictures without the folders that hold all of them to the full names."""
        parts = [PurePosixPath(name).parts for name in self.pictures]
        depth = 0
        # an archive wraps everything in a folder of its own; a class folder or a split is kept
        while parts and min(map(len, parts)) > depth + 2 and len({p[depth] for p in parts}) == 1:
            if split_of(parts[0][depth]):
                break
            depth += 1
        return {"/".join(p[depth:]): name for p, name in zip(parts, self.pictures, strict=True)}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _above(name: str) -> str:
    """The folder that holds a file or folder; "" at the top."""
    return name.rpartition("/")[0]


def _folders_of(names: list[str]) -> set[str]:
    """All folders above the names, including the top."""
    found = {""}
    for name in names:
        while (name := _above(name)) not in found:
            found.add(name)
    return found
