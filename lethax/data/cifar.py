"""CIFAR-100's published python pickles, as the two data sets that are splits of it: CIFAR-FS and FC100.

Both merge the train and test parts: 600 images a class. Splits: Bertinetto et al. 2019; Oreshkin et al. 2018.
"""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.safe import Archive, load_pickle
from lethax.data.store import StoreWriter
from lethax.errors import DataError

Progress = Callable[[str, float], None]
MEAN, STD = (0.5071, 0.4847, 0.4408), (0.2675, 0.2565, 0.2761)
PARTS = ("train", "test", "meta")


def published_split(name: str) -> dict[str, Any]:
    """A class list that ships with the package."""
    text = resources.files("lethax.data").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def prepare_cifar100(
    source: Path, root: Path | None, progress: Progress, *, per_class: tuple[int, int] = (500, 100)
) -> list[str]:
    """Write the stores cifar_fs and fc100 from cifar-100-python.tar.gz, or a folder that holds its files.

    `per_class`: images of a class in the train and test parts. DataError names the file and what is missing.
    """
    parts = _read(source, progress)
    images, labels = _images(parts, source, per_class)
    names, above = _names(parts, source)
    order = np.argsort(labels, kind="stable")
    first = dict(zip(names, np.searchsorted(labels[order], np.arange(100)), strict=True))
    count = sum(per_class)
    coarse = _superclass_of(parts, names, above)
    for step, store in enumerate(("cifar_fs", "fc100")):
        with StoreWriter(root, store, mean=MEAN, std=STD, source={"description": "CIFAR-100 python pickles"}) as writer:
            for split, classes in published_split(store).items():
                array = writer.split(split, (32, 32, 3), [(c, coarse[c], count) for c in classes])
                for i, name in enumerate(classes):
                    array[i * count : (i + 1) * count] = images[order[first[name] : first[name] + count]]
        progress(store, 0.6 + 0.2 * (step + 1))
    return ["cifar_fs", "fc100"]


def _read(source: Path, progress: Progress) -> dict[str, dict[bytes, Any]]:
    parts: dict[str, dict[bytes, Any]] = {}
    for name, content in Archive(source).items(lambda n: n.rpartition("/")[2] in PARTS):
        part = name.rpartition("/")[2]
        loaded = load_pickle(content, f"{source}: {name}")
        if not isinstance(loaded, dict):
            raise DataError(
                f"{source}: {name} holds a {type(loaded).__name__}, expected CIFAR-100's dict: fetch it again."
            )
        parts[part] = loaded
        progress(name, 0.2 * len(parts))
    missing = [part for part in PARTS if part not in parts]
    if missing:
        raise DataError(
            f"{source} lacks {', '.join(missing)}: expected cifar-100-python.tar.gz or a folder with {', '.join(PARTS)}."
        )
    return parts


def _images(parts: dict[str, Any], source: Path, per_class: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for part, count in zip(("train", "test"), per_class, strict=True):
        data, fine = parts[part].get(b"data"), parts[part].get(b"fine_labels")
        if not isinstance(data, np.ndarray) or data.shape != (100 * count, 3072) or data.dtype != np.uint8:
            found = f"{data.dtype}{list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
            raise DataError(f"{source}: {part} has data {found}, expected uint8{[100 * count, 3072]}: fetch it again.")
        counts = np.bincount(np.asarray(fine if isinstance(fine, list) else [], np.int64).clip(0, 100), minlength=100)
        if len(counts) != 100 or (counts != count).any():
            raise DataError(f"{source}: {part} has not {count} fine_labels of each of 100 classes: fetch it again.")
        images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.asarray(fine))
    return np.concatenate(images), np.concatenate(labels)


def _names(parts: dict[str, Any], source: Path) -> tuple[list[str], list[str]]:
    try:
        names = [n.decode() for n in parts["meta"][b"fine_label_names"]]
        above = [n.decode() for n in parts["meta"][b"coarse_label_names"]]
    except (KeyError, AttributeError, TypeError, UnicodeDecodeError):
        raise DataError(f"{source}: meta lacks fine_label_names or coarse_label_names: fetch it again.") from None
    expected = {name for classes in published_split("cifar_fs").values() for name in classes}
    if set(names) != expected or len(names) != 100:
        raise DataError(
            f"{source}: meta names other classes than CIFAR-100's 100, e.g. {sorted(set(names) ^ expected)[:1]}."
        )
    return names, above


def _superclass_of(parts: dict[str, Any], names: list[str], above: list[str]) -> dict[str, str]:
    coarse = parts["train"].get(b"coarse_labels") or []
    pairs = dict(zip(parts["train"][b"fine_labels"], coarse, strict=False))
    return {name: above[pairs[i]] if i in pairs and pairs[i] < len(above) else "" for i, name in enumerate(names)}
