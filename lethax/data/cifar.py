"""Import CIFAR-100's published Python pickles as CIFAR-FS and FC100, two data sets that split its classes.

Both merge the train and test parts: 600 images a class. Splits: Bertinetto et al. 2019; Oreshkin et al. 2018.
"""

import hashlib
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from lethax.data.archives import Archive
from lethax.data.pickles import load_pickle
from lethax.data.writer import StoreWriter
from lethax.errors import DataError
from lethax.text import counted

Progress = Callable[[str, float], None]
Parts = dict[str, dict[bytes, Any]]  # the pickles' dicts, by file name
MEAN, STD = (0.5071, 0.4847, 0.4408), (0.2675, 0.2565, 0.2761)
PART_BYTES = 1 << 28  # of a file, and of its values; the largest has 156 MB
PARTS = ("train", "test", "meta")
COUNTS = (500, 100)  # images of a class in train and test
MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}  # fmt: skip
TOP = "cifar-100-python"
STORES = ("cifar_fs", "fc100")


def published_split(name: str) -> dict[str, Any]:
    """Read a list of classes that comes with the package."""
    text = resources.files("lethax.data").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class Cifar100(NamedTuple):
    """CIFAR-100's pickles. names [100] and superclasses [100] by label; images uint8 [n, 32, 32, 3] of the train and the test part.

    rows: of each part, those of the images of each class [100, images of a class]. sums: the SHA-256 of each file.
    """

    names: list[str]
    superclasses: list[str]
    images: list[np.ndarray]
    rows: list[np.ndarray]
    sums: dict[str, str]


def read_cifar100(source: Path, progress: Progress, per_class: tuple[int, int] = COUNTS) -> Cifar100:
    """Read cifar-100-python.tar.gz, or a folder that holds it or its files; see `prepare_cifar100`."""
    parts, sums = _read(_place(source), progress, MD5 if per_class == COUNTS else {})
    names, above = _names(parts, source)
    images = [_pixels(parts, part, 100 * n, source) for part, n in zip(PARTS, per_class, strict=False)]
    rows = [_rows(parts, part, n, source) for part, n in zip(PARTS, per_class, strict=False)]
    return Cifar100(names, [above[i] for i in _superclasses(parts, rows[0], source)], images, rows, sums)


def prepare_cifar100(
    source: Path, root: Path | None, progress: Progress, *, per_class: tuple[int, int] = COUNTS
) -> list[str]:
    """Write the stores cifar_fs and fc100 from cifar-100-python.tar.gz, or from a folder that holds it or its files.

    `per_class`: images of a class in the train and test parts; the published counts also have the published MD5s. DataError
    names the file and what is missing.
    """
    found = read_cifar100(source, progress, per_class)
    index = {name: i for i, name in enumerate(found.names)}
    record = {"description": "CIFAR-100's python pickles, train and test parts merged", "files": found.sums}
    for step, store in enumerate(STORES):
        with StoreWriter(root, store, mean=MEAN, std=STD, source={**record, "split": f"{store}.json"}) as writer:
            for split, classes in published_split(store).items():
                listed = [(c, found.superclasses[index[c]], sum(per_class)) for c in classes]
                array, end = writer.split(split, (32, 32, 3), listed), 0
                for c in classes:
                    for part, places in zip(found.images, found.rows, strict=True):
                        begin, end = end, end + len(places[index[c]])
                        array[begin:end] = part[places[index[c]]]
        progress(f"writing {store}", 0.6 + 0.4 * (step + 1) / len(STORES))
    return list(STORES)


def _place(source: Path) -> Path:
    """The archive or folder of the data, which a given folder may hold."""
    inside = [source / TOP, source / f"{TOP}.tar.gz"] if source.is_dir() else []
    return next((path for path in inside if path.exists()), source)


def _read(source: Path, progress: Progress, md5: dict[str, str]) -> tuple[Parts, dict[str, str]]:
    """Read the dicts of the three pickles, and the SHA-256 of each file."""

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.name in PARTS and path.parent.name in ("", TOP)

    parts: Parts = {}
    sums: dict[str, str] = {}
    for name, content in Archive(source).items(wanted, PART_BYTES):
        part = PurePosixPath(name).name
        loaded = load_pickle(content, f"{source}: {name}", values=PART_BYTES)
        if not isinstance(loaded, dict):
            raise DataError(
                f"{source}: {name} holds a {type(loaded).__name__}, expected CIFAR-100's dict: fetch it again."
            )
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5.get(part, found):
            raise DataError(f"{source}: {name} is damaged: its MD5 is {found}, expected {md5[part]}: fetch it again.")
        parts[part], sums[part] = loaded, hashlib.sha256(content).hexdigest()
        progress(f"reading {part}", 0.2 * len(parts))
    missing = [part for part in PARTS if part not in parts]
    if missing:
        raise DataError(
            f"{source} lacks {', '.join(missing)}: expected {TOP}.tar.gz or a folder with {', '.join(PARTS)}."
        )
    return parts, sums


def _pixels(parts: Parts, part: str, total: int, source: Path) -> np.ndarray:
    """The images of a part, [n, 32, 32, 3]."""
    data = parts[part].get(b"data")
    if not isinstance(data, np.ndarray) or data.shape != (total, 3072) or data.dtype != np.uint8:
        found = f"{data.dtype}{list(data.shape)}" if isinstance(data, np.ndarray) else _kind(data)
        raise DataError(f"{source}: {part} has data {found}, expected uint8{[total, 3072]}: fetch it again.")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _rows(parts: Parts, part: str, count: int, source: Path) -> np.ndarray:
    """The rows of each class in a part, [100, count], in the order of the file."""
    labels = _labels(parts, part, b"fine_labels", 100, 100 * count, source)
    found = np.bincount(labels, minlength=100)
    wrong = np.flatnonzero(found != count)
    if wrong.size:
        raise DataError(
            f"{source}: {part} has {counted(found[wrong[0]], 'image')} of class {wrong[0]}, "
            f"expected {count} of each: fetch it again."
        )
    return np.argsort(labels, kind="stable").reshape(100, count)


def _labels(parts: Parts, part: str, key: bytes, bound: int, total: int, source: Path) -> np.ndarray:
    """Check and return a list of `total` labels below `bound`."""
    labels, name = parts[part].get(key), key.decode()
    if not isinstance(labels, list) or len(labels) != total:
        found = f"{len(labels)} {name}" if isinstance(labels, list) else f"{_kind(labels)} as {name}"
        raise DataError(f"{source}: {part} has {found}, expected a list of {total}: fetch it again.")
    if not all(type(label) is int and 0 <= label < bound for label in labels):
        raise DataError(f"{source}: {part} has {name} that are not numbers below {bound}: fetch it again.")
    return np.asarray(labels, np.int64)


def _superclasses(parts: Parts, rows: np.ndarray, source: Path) -> np.ndarray:
    """The superclass of each class, [100], which has to be the same for all images of the class."""
    coarse = _labels(parts, "train", b"coarse_labels", 20, rows.size, source)[rows]
    mixed = np.flatnonzero((coarse != coarse[:, :1]).any(1))
    if mixed.size:
        raise DataError(f"{source}: train puts class {mixed[0]} in several superclasses, expected one: fetch it again.")
    return coarse[:, 0]


def _names(parts: Parts, source: Path) -> tuple[list[str], list[str]]:
    """The names of the classes and of the superclasses, by label."""
    try:
        names = [n.decode() for n in parts["meta"][b"fine_label_names"]]
        above = [n.decode() for n in parts["meta"][b"coarse_label_names"]]
    except (KeyError, AttributeError, TypeError, UnicodeDecodeError):
        raise DataError(f"{source}: meta lacks fine_label_names or coarse_label_names: fetch it again.") from None
    expected = {name for classes in published_split("cifar_fs").values() for name in classes}
    if set(names) != expected or len(names) != 100 or len(above) != 20:
        strange = sorted(set(names) ^ expected)[:1]
        raise DataError(
            f"{source}: meta names {counted(len(names), 'class')} and {counted(len(above), 'superclass')} (differing: {strange}), "
            "expected CIFAR-100's 100 and 20: fetch it again."
        )
    return names, above


def _kind(found: Any) -> str:
    return "nothing" if found is None else f"a {type(found).__name__}"
