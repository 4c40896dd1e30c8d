"""Stores: one folder a data set, with a uint8 array per split sorted by class, and a manifest with checksums.

    ROOT/NAME/{train,val,test}.npy, manifest.json

A store is written to a temporary folder and renamed, so there is the old one or the new one, never a mixture.
"""

import hashlib
import json
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
from lethax.errors import DataError, did_you_mean

FORMAT = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassSplit:
    """One split: class i is images[starts[i]:starts[i + 1]]. images: uint8 [n, H, W, C], memory-mapped."""

    images: np.ndarray
    starts: np.ndarray
    classes: tuple[str, ...]
    superclasses: tuple[str, ...]  # "" where there is none


@dataclass(frozen=True)
class Store:
    """A prepared data set. mean, std: per channel, of pixels scaled to [0, 1]."""

    name: str
    folder: Path
    splits: dict[str, ClassSplit]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    manifest: dict[str, Any]


def default_root() -> Path:
    """$LETHAX_DATA, or ~/.local/share/lethax."""
    return Path(os.environ.get("LETHAX_DATA") or Path.home() / ".local" / "share" / "lethax")


def list_stores(root: Path | None = None) -> list[str]:
    """Names of the prepared data sets."""
    root = root or default_root()
    return sorted(path.parent.name for path in root.glob("[a-z0-9]*/manifest.json"))


def open_store(name: str, root: Path | None = None) -> Store:
    """A prepared data set; DataError if it is missing, of another format, or its files' sizes are not the manifest's."""
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
            raise DataError(f"{folder} has store format {manifest['format']}; this version reads {FORMAT}: prepare it again.")
        splits = {split: _open_split(folder, split, manifest["splits"][split]) for split in SPLITS if split in manifest["splits"]}
        mean, std = tuple(map(float, manifest["mean"])), tuple(map(float, manifest["std"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}): prepare {name} again.") from None
    return Store(name, folder, splits, mean, std, manifest)


def _open_split(folder: Path, split: str, entry: dict[str, Any]) -> ClassSplit:
    images = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
    classes = [(str(name), str(above), int(count)) for name, above, count in entry["classes"]]
    starts = np.cumsum([0, *(count for _, _, count in classes)], dtype=np.int64)
    if images.dtype != np.uint8 or list(images.shape) != entry["shape"] or starts[-1] != len(images):
        raise ValueError(f"{split}.npy is {images.dtype}{list(images.shape)}, the manifest says uint8{entry['shape']}")
    return ClassSplit(images, starts, tuple(c[0] for c in classes), tuple(c[1] for c in classes))


def verify_store(name: str, root: Path | None = None) -> None:
    """Recompute every checksum; DataError names the first file that differs."""
    store = open_store(name, root)
    for split in store.splits:
        path = store.folder / f"{split}.npy"
        found, expected = _sha256(path), store.manifest["splits"][split]["sha256"]
        if found != expected:
            raise DataError(f"{path} is damaged: its SHA-256 is {found[:12]}…, expected {expected[:12]}…; prepare {name} again.")


def _checked(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise DataError(f"'{name}' is no name for a data set: use lower-case letters, digits, - and _.")
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StoreWriter:
    """Context manager that builds a store; `split` gives the array to fill. An exception leaves an earlier store as it was."""

    def __init__(
        self, root: Path | None, name: str, *, mean: Sequence[float], std: Sequence[float], source: dict[str, Any]
    ) -> None:
        self._target = (root or default_root()) / _checked(name)
        self._manifest: dict[str, Any] = {
            "format": FORMAT, "name": name, "lethax": __version__, "mean": list(mean), "std": list(std),
            "source": source, "splits": {},
        }  # fmt: skip
        self._arrays: dict[str, np.memmap] = {}

    def __enter__(self) -> "StoreWriter":
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(dir=self._target.parent, prefix=f".{self._target.name}."))
        except OSError as error:
            raise DataError(f"{self._target.parent} cannot be written: {error.strerror}.") from None
        return self

    def split(self, split: str, shape: tuple[int, int, int], classes: Sequence[tuple[str, str, int]]) -> np.ndarray:
        """A writable uint8 array [n, H, W, C] for the images in class order; classes are (name, superclass, count)."""
        total = sum(count for _, _, count in classes)
        if split not in SPLITS or not total:
            raise DataError(f"split '{split}' of {self._target.name} has no images.")
        path = self._folder / f"{split}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(total, *shape))
        self._arrays[split] = array
        self._manifest["splits"][split] = {"shape": [total, *shape], "classes": [list(c) for c in classes]}
        return array

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except OSError as problem:
            raise DataError(f"{self._target} cannot be written: {problem.strerror}; free some space or choose --root.") from None
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            raise DataError(f"{self._target} cannot be written: {error.strerror}; free some space or choose --root.") from None

    def _finish(self) -> None:
        for split, array in self._arrays.items():
            array.flush()
            self._manifest["splits"][split]["sha256"] = _sha256(self._folder / f"{split}.npy")
        with (self._folder / "manifest.json").open("w", encoding="utf-8") as file:
            json.dump(self._manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        self._folder.chmod(0o755)
        aside = self._folder.with_name(self._folder.name + ".old")
        if self._target.exists():
            os.replace(self._target, aside)
        try:
            os.replace(self._folder, self._target)
        except OSError:
            if aside.exists():
                os.replace(aside, self._target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
