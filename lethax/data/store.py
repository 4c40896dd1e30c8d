"""Stores: a folder for each data set, with a manifest and, for each split, an array of images or features sorted by class.

    ROOT/NAME/manifest.json, {train,val,test}-SHA256.npy

At every instant there is the old store or the new one, never a mixture: see `publish`.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.known import KNOWN, remedy
from lethax.data.naming import well_named
from lethax.data.origin import Origin, read_origin
from lethax.data.publish import MANIFEST, part_name
from lethax.data.safe import read_small, sha256
from lethax.errors import DataError, RecipeError, did_you_mean
from lethax.names import DATA_NAME, MADE
from lethax.text import counted, shown

FORMAT = 2  # 1 is read too: its parts have no hash in their names, its manifest has no checksum
MANIFEST_BYTES = 64 << 20
LEAST_STD = 1e-6  # of pixels in [0, 1]: what is far below would not be a number in float32 any more
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassSplit:
    """One split: images uint8 [n, H, W, C], or features float32 [n, d]. Class i is images[starts[i]:starts[i + 1]]."""

    images: np.ndarray
    starts: np.ndarray
    classes: tuple[str, ...]
    superclasses: tuple[str, ...]  # "" where there is none


@dataclass(frozen=True)
class Store:
    """A prepared data set. `mean` and `std` are those of each channel, of pixels scaled to [0, 1]; features have none."""

    name: str
    folder: Path
    splits: dict[str, ClassSplit]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    manifest: dict[str, Any]

    @property
    def identity(self) -> str:
        """The SHA-256 of all that training sees: mean, std, and the classes and content of every split, but not the origin."""
        parts = {
            s: [entry["shape"], entry["classes"], entry["sha256"], *filter(None, [entry.get("relations")])]
            for s, entry in self.entries().items()
        }
        content = json.dumps([list(self.mean), list(self.std), parts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def entries(self) -> dict[str, dict[str, Any]]:
        """The entries of the manifest on every split: shape, classes, sha256, and relations of classes where there are any."""
        return {split: self.manifest["splits"][split] for split in self.splits}

    @property
    def features(self) -> int:
        """The number of entries of a feature vector; 0 for images."""
        images = next(iter(self.splits.values())).images
        return images.shape[1] if images.ndim == 2 else 0

    @property
    def origin(self) -> Origin | None:
        """The pretrained backbone that made the features; None for images, and for features of anything else."""
        return read_origin(self.manifest["source"].get("origin"), f"the data set {self.name}")


def default_root() -> Path:
    """The folder of prepared data sets: $LETHAX_DATA, or ~/.local/share/lethax."""
    return Path(os.environ.get("LETHAX_DATA") or Path.home() / ".local" / "share" / "lethax")


def list_stores(root: Path | None = None) -> list[str]:
    """The names of the prepared data sets."""
    root = root or default_root()
    return sorted(path.parent.name for path in root.glob("[a-z0-9]*/manifest.json"))


def open_store(name: str, root: Path | None = None) -> Store:
    """Open a prepared data set. Its arrays are mapped from the disk, and read when they are used.

    Arguments:
        name: the name of the data set, as `lethax data list` prints it.
        root: the folder of the prepared data sets; $LETHAX_DATA, or ~/.local/share/lethax, unless given.

    Returns:
        A `Store`: `splits` by name ("train", "val", "test"), each a `ClassSplit`, and the `mean` and `std` of each channel.

    Raises:
        DataError: if the data set is missing, has another format, or its files do not fit its manifest. The contents are not
            checked here: `lethax data verify` does that.

    Example:
        >>> from pathlib import Path
        >>> import lethax
        >>> from lethax.data.writer import StoreWriter
        >>> with StoreWriter(Path("stores"), "pets", mean=(0.5,), std=(0.5,), source={}) as writer:
        ...     writer.split("train", (16, 16, 1), [("cat", "", 3), ("dog", "", 2)])[:] = 127
        >>> store = lethax.open_store("pets", Path("stores"))
        >>> store.splits["train"].classes, store.splits["train"].images.shape
        (('cat', 'dog'), (5, 16, 16, 1))
    """
    root = root or default_root()
    folder = root / well_named(name)
    text = _manifest(folder)
    while text is not None:
        try:
            return _open(name, folder, text)
        except FileNotFoundError as error:
            now = _manifest(folder)
            if now == text:
                raise DataError(f"{folder} is damaged ({error}): prepare {name} again.") from None
            text = now  # prepared again just now: the parts are those of the new manifest
    raise _missing(name, root)


def find_store(name: str, root: Path | None = None) -> Store | None:
    """Open the data set, or return None if there is none of that name. DataError if it is damaged."""
    folder = (root or default_root()) / name
    return open_store(name, root) if re.fullmatch(DATA_NAME, name) and _manifest(folder) is not None else None


def _missing(name: str, root: Path) -> DataError:
    if name in MADE:
        return DataError(
            f"'{name}' are tasks that lethax makes itself: nothing of them is prepared, so leave this out."
        )
    there = list_stores(root)
    nearest = "" if name in KNOWN else did_you_mean(name, (*there, *KNOWN, *MADE))
    return DataError(
        f"there is no data set '{shown(name, 80)}' in {root}.{nearest} Prepared: {', '.join(there) or 'none'}. {remedy(name)}"
    )


def _manifest(folder: Path) -> str | None:
    """The text of the manifest; None if there is no manifest."""
    if not (folder / MANIFEST).exists():
        return None
    return read_small(folder / MANIFEST, MANIFEST_BYTES).decode("utf-8", errors="replace")


def _open(name: str, folder: Path, text: str) -> Store:
    try:
        manifest = _parsed(text)
        if type(manifest["format"]) is not int or manifest["format"] not in (1, FORMAT):
            raise DataError(
                f"{folder} has store format {shown(manifest['format'], 80)}; this version reads {FORMAT}: prepare {name} again."
            )
        if manifest["format"] != 1 and manifest["sha256"] != checksum(manifest):
            raise ValueError(f"{MANIFEST} was changed after it was written")
        if not isinstance(manifest["source"], dict):
            raise ValueError(f"{MANIFEST} does not say where the data are from")
        entries = manifest["splits"]
        parts = {
            split: part_name(manifest["format"], split, entries[split]["sha256"])
            for split in SPLITS
            if split in entries
        }
        splits = {split: _open_split(folder / part, split, entries[split]) for split, part in parts.items()}
        mean, std = _statistics(manifest, splits)
    except (DataError, FileNotFoundError):
        raise
    except ValueError as error:
        raise DataError(f"{folder} is damaged ({shown(error, 300)}): prepare {name} again.") from None
    except Exception:  # a manifest from elsewhere can be wrong in nearly any way
        raise DataError(
            f"{folder} is damaged ({MANIFEST} has not the entries that were expected): prepare {name} again."
        ) from None
    return Store(name, folder, splits, mean, std, manifest)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{MANIFEST} is not JSON") from None


def checksum(manifest: dict[str, Any]) -> str:
    """The SHA-256 of a manifest's content, without the checksum itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def dtype_of(entry: Sequence[int]) -> Any:
    """The type of an array whose entries have this shape: uint8 for images, float32 for features."""
    if len(entry) not in (1, 3):
        raise ValueError(f"entries of shape {list(entry)} are neither images nor features")
    return np.uint8 if len(entry) == 3 else np.float32


def _open_split(path: Path, split: str, entry: dict[str, Any]) -> ClassSplit:
    if not path.is_file():  # nor is it a pipe, which would block
        raise FileNotFoundError(f"there is no file {path.name}")
    images = _mapped(path)
    if images.dtype != dtype_of(images.shape[1:]) or list(images.shape) != entry["shape"]:
        raise ValueError(f"{path.name} is {images.dtype}{list(images.shape)}, the manifest says {entry['shape']}")
    if not all(len(one) == 3 for one in entry["classes"]):
        raise ValueError(f"the manifest's classes of {split} are not a name, a superclass and a count each")
    classes = [(str(name), str(above), count) for name, above, count in entry["classes"]]
    if not all(type(count) is int and count >= 0 for _, _, count in classes):
        raise ValueError(f"the manifest's counts of {split} are no numbers of images")
    total = sum(count for _, _, count in classes)
    if not total:
        raise ValueError(f"split {split} is empty")
    if total != len(images):  # as Python's integers, which do not wrap
        raise ValueError(f"{path.name} has {counted(len(images), 'image')}, the manifest's classes have {total}")
    if not images.flags.c_contiguous:
        raise ValueError(f"{path.name} has its numbers in another order")
    if path.stat().st_size != images.offset + images.nbytes:
        raise ValueError(
            f"{path.name} has {counted(path.stat().st_size, 'byte')}, expected {images.offset + images.nbytes}"
        )
    starts = np.cumsum([0, *(count for _, _, count in classes)], dtype=np.int64)
    return ClassSplit(images, starts, tuple(c[0] for c in classes), tuple(c[1] for c in classes))


def _mapped(path: Path) -> np.memmap:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None
    except Exception:  # so can the header of an array
        raise ValueError(f"{path.name} is cut short or is no array") from None


def _statistics(manifest: dict[str, Any], splits: dict[str, ClassSplit]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    given = [manifest["mean"], manifest["std"]]
    if not all(isinstance(one, list) and all(isinstance(value, int | float) for value in one) for one in given):
        raise ValueError("mean or std is no list of numbers")
    mean, std = (tuple(map(float, one)) for one in given)
    entries = {split.images.shape[1:] for split in splits.values()}
    if {len(entry) for entry in entries} == {1} and len(entries) == 1 and not mean and not std:
        return mean, std
    if {entry[-1] for entry in entries if len(entry) == 3} != {len(mean)} or len(std) != len(mean):
        raise ValueError(
            f"{counted(len(mean), 'mean')} and {counted(len(std), 'deviation')} do not fit the channels of its splits"
        )
    if not all(map(math.isfinite, mean + std)) or min(std) < LEAST_STD:
        raise ValueError("mean or std is no usable number")
    return mean, std


def verify_store(name: str, root: Path | None = None) -> Store:
    """Recompute every checksum. DataError names the first file that differs. A manifest of format 1 has no checksum."""
    while True:
        store = open_store(name, root)
        try:
            _verify(store)
            return store
        except DataError:
            if open_store(name, root).manifest == store.manifest:
                raise  # else it was prepared again meanwhile


def _verify(store: Store) -> None:
    for split, entry in store.entries().items():
        path = store.folder / part_name(store.manifest["format"], split, entry["sha256"])
        found, expected = sha256(path), entry["sha256"]
        if found != expected:
            raise DataError(
                f"{path} is damaged: its SHA-256 is {found[:12]}…, expected {expected[:12]}…; prepare {store.name} again."
            )


def check_kind(name: str, root: Path | None, *, features: bool) -> None:
    """Raise RecipeError if features would replace a data set of pictures, or pictures one of features."""
    with suppress(DataError):  # a damaged one may be made again
        there = find_store(name, root)
        if there is None or bool(there.features) == features:
            return
        old, new = ("pictures", "features") if features else ("features", "pictures")
        raise RecipeError(f"data set '{name}' holds {old}, which {new} would replace: choose another --store.")
