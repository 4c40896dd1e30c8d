"""Stores: one folder a data set, with an array per split sorted by class, of images or of features, and a manifest.

    ROOT/NAME/{train,val,test}.npy, manifest.json

A store is written to a temporary folder and renamed, so there is the old one or the new one, never a mixture.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lethax import __version__
from lethax.data.safe import sha256
from lethax.errors import DataError, did_you_mean
from lethax.names import CONTROL, REGRESSION

FORMAT = 1
SPLITS = ("train", "val", "test")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ClassSplit:
    """One split: class i is images[starts[i]:starts[i + 1]]. images: uint8 [n, H, W, C], or features, float32 [n, d]."""

    images: np.ndarray
    starts: np.ndarray
    classes: tuple[str, ...]
    superclasses: tuple[str, ...]  # "" where there is none


@dataclass(frozen=True)
class Store:
    """A prepared data set. mean, std: per channel, of pixels scaled to [0, 1]; empty for features."""

    name: str
    folder: Path
    splits: dict[str, ClassSplit]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    manifest: dict[str, Any]

    @property
    def identity(self) -> str:
        """SHA-256 of all that training sees: mean, std, and every split's classes and content; not of where it came from."""
        parts = {split: [entry["shape"], entry["classes"], entry["sha256"]] for split, entry in self._entries()}
        content = json.dumps([list(self.mean), list(self.std), parts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _entries(self) -> list[tuple[str, dict[str, Any]]]:
        return [(split, self.manifest["splits"][split]) for split in self.splits]

    @property
    def features(self) -> int:
        """Entries of a feature vector; 0 where there are images."""
        images = next(iter(self.splits.values())).images
        return images.shape[1] if images.ndim == 2 else 0


def default_root() -> Path:
    """$LETHAX_DATA, or ~/.local/share/lethax."""
    return Path(os.environ.get("LETHAX_DATA") or Path.home() / ".local" / "share" / "lethax")


def list_stores(root: Path | None = None) -> list[str]:
    """Names of the prepared data sets."""
    root = root or default_root()
    return sorted(path.parent.name for path in root.glob("[a-z0-9]*/manifest.json"))


def open_store(name: str, root: Path | None = None) -> Store:
    """A prepared data set; DataError if it is missing, of another format, or its files do not fit the manifest."""
    root = root or default_root()
    folder = root / _checked(name)
    if not (folder / "manifest.json").is_file():
        known = list_stores(root)
        raise DataError(
            f"no data set '{name}' in {root}.{did_you_mean(name, known)} Prepared: {', '.join(known) or 'none'}. "
            "Run: lethax data prepare --help."
        )
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(
                f"{folder} has store format {manifest['format']}; this version reads {FORMAT}: prepare {name} again."
            )
        entries = manifest["splits"]
        splits = {split: _open_split(folder, split, entries[split]) for split in SPLITS if split in entries}
        mean, std = _statistics(manifest, splits)
    except DataError:
        raise
    except Exception as error:  # a manifest or array header from elsewhere can be wrong in nearly any way
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}): prepare {name} again.") from None
    return Store(name, folder, splits, mean, std, manifest)


def _dtype(entry: Sequence[int]) -> Any:
    """Of an array whose entries have this shape: images or features."""
    if len(entry) not in (1, 3):
        raise ValueError(f"entries of shape {list(entry)} are neither images nor features")
    return np.uint8 if len(entry) == 3 else np.float32


def _open_split(folder: Path, split: str, entry: dict[str, Any]) -> ClassSplit:
    path = folder / f"{split}.npy"  # never a name that the manifest gives
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.dtype != _dtype(images.shape[1:]) or list(images.shape) != entry["shape"]:
        raise ValueError(f"{path.name} is {images.dtype}{list(images.shape)}, the manifest says {entry['shape']}")
    classes = [(str(name), str(above), count) for name, above, count in entry["classes"]]
    if not all(type(count) is int and count >= 0 for _, _, count in classes):
        raise ValueError(f"the manifest's counts of {split} are no numbers of images")
    total = sum(count for _, _, count in classes)
    if total != len(images):  # as Python's integers, which do not wrap
        raise ValueError(f"{path.name} has {len(images)} images, the manifest's classes have {total}")
    if not images.flags.c_contiguous or not isinstance(entry["sha256"], str):
        raise ValueError(f"{path.name} has its numbers in another order, or no SHA-256")
    if path.stat().st_size != images.offset + images.nbytes:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, expected {images.offset + images.nbytes}")
    starts = np.cumsum([0, *(count for _, _, count in classes)], dtype=np.int64)
    return ClassSplit(images, starts, tuple(c[0] for c in classes), tuple(c[1] for c in classes))


def _statistics(manifest: dict[str, Any], splits: dict[str, ClassSplit]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = tuple(map(float, manifest["mean"])), tuple(map(float, manifest["std"]))
    entries = {split.images.shape[1:] for split in splits.values()}
    if {len(entry) for entry in entries} == {1} and len(entries) == 1 and not mean and not std:
        return mean, std
    if {entry[-1] for entry in entries if len(entry) == 3} != {len(mean)} or len(std) != len(mean):
        raise ValueError(f"{len(mean)} means and {len(std)} deviations do not fit the channels of its splits")
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError("mean or std is no usable number")
    return mean, std


def verify_store(name: str, root: Path | None = None) -> None:
    """Recompute every checksum; DataError names the first file that differs."""
    store = open_store(name, root)
    for split in store.splits:
        path = store.folder / f"{split}.npy"
        found, expected = sha256(path), str(store.manifest["splits"][split].get("sha256"))
        if found != expected:
            raise DataError(
                f"{path} is damaged: its SHA-256 is {found[:12]}…, expected {expected[:12]}…; prepare {name} again."
            )


def _checked(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise DataError(f"'{name}' is no name for a data set: use lower-case letters, digits, - and _.")
    return name


class StoreWriter:
    """Context manager that builds a store; `split` gives the array to fill.

    An exception leaves an earlier store as it was. A full disk is a DataError.
    """

    def __init__(
        self, root: Path | None, name: str, *, mean: Sequence[float], std: Sequence[float], source: dict[str, Any]
    ) -> None:
        if name in (*REGRESSION, *CONTROL):
            raise DataError(f"'{name}' is the name of tasks that lethax makes itself: choose another with --store.")
        self._target = (root or default_root()) / _checked(name)
        self._manifest: dict[str, Any] = {
            "format": FORMAT, "name": name, "lethax": __version__, "mean": list(mean), "std": list(std),
            "source": source, "splits": {},
        }  # fmt: skip
        self._arrays: dict[str, np.memmap] = {}

    def __enter__(self) -> "StoreWriter":
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self._target)
            self._folder = Path(tempfile.mkdtemp(dir=self._target.parent, prefix=f".{self._target.name}."))
            self._lock = os.open(self._folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks: nothing is ever swept there
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise DataError(f"{self._target.parent} cannot be written: {error.strerror}.") from None
        return self

    def split(self, split: str, shape: tuple[int, ...], classes: Sequence[tuple[str, str, int]]) -> np.ndarray:
        """A writable array in class order, uint8 [n, H, W, C] or float32 [n, d]; classes are (name, superclass, count)."""
        total = sum(count for _, _, count in classes)
        if split not in SPLITS or split in self._arrays:
            raise DataError(
                f"split '{split}' of {self._target.name} is {'given twice' if split in SPLITS else 'none'}."
            )
        if total <= 0 or min(count for _, _, count in classes) < 0:
            raise DataError(f"split '{split}' of {self._target.name} has no images.")
        path = self._folder / f"{split}.npy"
        try:
            array = np.lib.format.open_memmap(path, mode="w+", dtype=_dtype(shape), shape=(total, *shape))
            _reserve(path)
        except OSError as error:
            raise self._unwritable(error) from None
        self._arrays[split] = array
        self._manifest["splits"][split] = {
            "file": path.name, "shape": [total, *map(int, shape)],
            "classes": [[name, above, int(count)] for name, above, count in classes],
        }  # fmt: skip
        return array

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except OSError as problem:
            raise self._unwritable(problem) from None
        finally:
            self._arrays.clear()
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise self._unwritable(error) from None

    def _finish(self) -> None:
        if not self._arrays:
            raise DataError(f"no split of {self._target.name} has images: nothing was written.")
        for split, array in self._arrays.items():
            array.flush()
            path = self._folder / f"{split}.npy"
            self._manifest["splits"][split]["sha256"] = sha256(path)
            _sync(path)
        manifest = self._folder / "manifest.json"
        manifest.write_text(json.dumps(self._manifest, indent=1), encoding="utf-8")
        _sync(manifest)
        self._folder.chmod(0o755)
        self._replace()
        _sync(self._target.parent)

    def _replace(self) -> None:
        aside = self._folder.with_name(self._folder.name + ".old")
        try:
            if self._target.exists():
                os.replace(self._target, aside)
            os.replace(self._folder, self._target)
        except BaseException:  # an interrupt between the two renames also puts the earlier store back
            if aside.exists() and not self._target.exists():
                os.replace(aside, self._target)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self._target} cannot be written: {error.strerror or error}; free some space or choose another --root."
        )


def _sweep(target: Path) -> None:
    """Delete what killed imports of this name left beside it; the folder of one that still runs is locked."""
    for path in target.parent.glob(f".{target.name}.*"):
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.suffix == ".old" and not target.exists():  # killed between the two renames
                os.replace(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(handle)


def _reserve(path: Path) -> None:
    """Allocate the file now: a disk that fills up under a memory map would kill the process without a word."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise


def _sync(path: Path) -> None:
    """Force a file or folder to the disk; file systems that cannot sync a folder are let be."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)
