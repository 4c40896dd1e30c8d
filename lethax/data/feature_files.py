"""Read features in the forms that are in use, each as a table with the class of every row."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lethax.data.formats import read_npy, read_npz, read_safetensors
from lethax.data.origin import Origin, read_origin
from lethax.data.pickles import load_pickle
from lethax.data.store import SPLITS
from lethax.errors import DataError
from lethax.text import counted, shown

ROWS, CLASSES = 1 << 22, 100_000  # of a split
LABEL_BYTES = 1 << 28  # of an array of labels
LIST_BYTES = 1 << 29  # of a pickle's values beside its arrays, and of features that stand as lists

FORMS = (
    "{train,val,test}_embeddings.pkl as published with LEO, one .safetensors with SPLIT/features and SPLIT/labels, one .npz with "
    "features, labels and split, or {train,val,test}_{features,labels}.npy"
)


class FeatureSplit(NamedTuple):
    """One split of features [n, d]: the number of each one's class [n], and the names of the classes by number.

    local: the labels are mere numbers, which say nothing of other splits.
    """

    features: np.ndarray
    numbers: np.ndarray
    names: Sequence[str]
    local: bool = False


def split_of(where: str, features: np.ndarray, labels: np.ndarray, local: bool = False) -> FeatureSplit:
    """Make a split from labels that are names or whole numbers. DataError if they are neither, too many or of another length."""
    if (
        labels.dtype.kind not in "iuSU"
        or labels.ndim != 1
        or len(labels) != len(features)
        or labels.nbytes > LABEL_BYTES
    ):
        raise DataError(
            f"{where} has features {features.dtype}{list(features.shape)} and labels {labels.dtype}{list(labels.shape)}; expected "
            f"floats [n, d] and n labels, each a name or a whole number, of at most {LABEL_BYTES} bytes."
        )
    values, numbers = np.unique(labels, return_inverse=True)
    if len(values) > CLASSES:
        raise DataError(f"{where} has {len(values)} classes; expected at most {CLASSES}.")
    return FeatureSplit(
        features, numbers, [_name(value) for value in values.tolist()], local and labels.dtype.kind in "iu"
    )


def _name(value: str | bytes | int) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def read_features(source: Path) -> dict[str, FeatureSplit]:
    """Read features and classes by split, in any of the known forms. DataError for any other form."""
    if not source.exists():
        raise DataError(f"{shown(source)} does not exist; expected {FORMS}.")
    if source.suffix == ".safetensors":
        return _safetensors(source)
    if source.suffix == ".npz":
        return _npz(source)
    if source.is_dir() and (source / "train_embeddings.pkl").is_file():
        paths = {split: source / f"{split}_embeddings.pkl" for split in SPLITS}
        return {split: _leo(path) for split, path in paths.items() if path.is_file()}
    if source.is_dir() and (source / "train_features.npy").is_file():
        found = [split for split in SPLITS if (source / f"{split}_features.npy").is_file()]
        return {s: _npy(source, s) for s in found}
    raise DataError(f"{shown(source)} holds no features that are known; expected {FORMS}.")


def origin_of(source: Path) -> Origin | None:
    """The pretrained backbone that a .safetensors file of features names; None for features of anything else."""
    text = read_safetensors(source)[1].get("origin") if source.suffix == ".safetensors" else None
    try:
        return read_origin(json.loads(text) if isinstance(text, str) else text, shown(source))
    except (ValueError, RecursionError):
        raise DataError(f"{shown(source)} has an origin that is no JSON: make the features again.") from None


def _leo(path: Path) -> FeatureSplit:
    """{"embeddings": [n, d], "keys": n of "…-CLASS-CLASS_IMAGE"}; other entries are not looked at."""
    content = load_pickle(path, str(path), encoding="latin1", values=LIST_BYTES)
    if not isinstance(content, dict) or not {"embeddings", "keys"} <= set(content):
        raise DataError(f"{shown(path)} has no embeddings and keys; expected the pickles published with LEO.")
    features, keys = _matrix(path, content["embeddings"]), content["keys"]
    if not isinstance(keys, list | tuple | np.ndarray) or len(keys) != len(features) or len(keys) > ROWS:
        raise DataError(
            f"{shown(path)} has {counted(len(features), 'embedding')} and another number of keys; expected as many, at most {ROWS}."
        )
    numbers, known, seen = np.empty(len(keys), np.int64), dict[str, int](), set()
    for row, given in enumerate(keys):
        key = _name(given) if isinstance(given, str | bytes) else ""
        parts = key.split("-")
        if len(parts) != 3 or parts[2].partition("_")[0] != parts[1] or parts[2] in seen:
            raise DataError(
                f"{shown(path)} has the key '{shown(key, 80)}'; expected SOURCE-CLASS-CLASS_IMAGE, every image once."
            )
        seen.add(parts[2])
        numbers[row] = known.setdefault(parts[1], len(known))
    return FeatureSplit(features, numbers, list(known))


def _matrix(path: Path, value: Any) -> np.ndarray:
    """Make an array [n, d] of an array or of a list of rows, which are arrays or lists of numbers."""
    if isinstance(value, np.ndarray) and value.ndim == 2:
        return value
    rows = value if isinstance(value, list | tuple) else []
    lengths = {
        len(row) if isinstance(row, list | tuple) or isinstance(row, np.ndarray) and row.ndim == 1 else -1
        for row in rows
    }
    width = max(lengths, default=0)
    if len(lengths) != 1 or width < 1 or 4 * width * len(rows) > LIST_BYTES:
        raise DataError(
            f"{shown(path)} has embeddings that are no table; expected an array [n, d], or n lists of d numbers, "
            f"of at most {LIST_BYTES} bytes."
        )
    out = np.empty((len(rows), width), np.float32)
    with np.errstate(over="ignore"):  # see `_check`
        for number, row in enumerate(rows):
            fits = row.dtype.kind in "fiu" if isinstance(row, np.ndarray) else all(type(n) in (int, float) for n in row)
            if not fits:
                raise DataError(f"{shown(path)}: vector {number} holds something else than numbers.")
            out[number] = row if isinstance(row, np.ndarray) else [float(n) for n in row]
    return out


def _safetensors(path: Path) -> dict[str, FeatureSplit]:
    arrays, metadata = read_safetensors(path)
    classes = _classes(path, metadata.get("classes", "{}"))
    found = {}
    for split in SPLITS:
        features, labels = arrays.get(f"{split}/features"), arrays.get(f"{split}/labels")
        if features is None:
            continue
        if labels is None:
            raise DataError(f"{shown(path)} has {split}/features and no {split}/labels of whole numbers.")
        part = split_of(f"{shown(path)}, {split}", features, labels, local=split not in classes)
        found[split] = _named(path, split, labels, part, classes[split]) if split in classes else part
    return found


def _named(path: Path, split: str, labels: np.ndarray, part: FeatureSplit, names: list[str]) -> FeatureSplit:
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= len(names):
        raise DataError(
            f"{shown(path)} has labels of {split} from {low} to {high}, and names for {counted(len(names), 'class')}."
        )
    return FeatureSplit(part.features, labels.astype(np.int64), names)


def _classes(path: Path, text: Any) -> dict[str, list[str]]:
    """The names of classes by split, as the metadata give them."""
    try:
        found: Any = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    lists = isinstance(found, dict) and all(isinstance(names, list) for names in found.values())
    if not lists or not all(isinstance(name, str) for names in found.values() for name in names):
        raise DataError(
            f'{shown(path)} has classes that are no lists of names; expected {{"train": ["class", ...], ...}}.'
        )
    twice = [split for split, names in found.items() if len(set(names)) < len(names) or len(names) > CLASSES]
    if twice:
        raise DataError(f"{shown(path)} names a class of {shown(twice[0], 40)} twice, or more than {CLASSES} classes.")
    return dict(found)


def _npz(path: Path) -> dict[str, FeatureSplit]:
    features, labels, split = read_npz(path, ("features", "labels", "split"))
    if split.dtype.kind not in "SU" or split.shape != features.shape[:1] or split.nbytes > LABEL_BYTES:
        raise DataError(
            f"{shown(path)} has a split {split.dtype}{list(split.shape)}; expected train, val or test for each vector."
        )
    where = {s: split == (s.encode() if split.dtype.kind == "S" else s) for s in SPLITS}
    if labels.shape != split.shape:
        raise DataError(f"{shown(path)} has labels {labels.dtype}{list(labels.shape)}; expected one for each vector.")
    return {s: split_of(f"{shown(path)}, {s}", features[rows], labels[rows]) for s, rows in where.items() if rows.any()}


def _npy(folder: Path, split: str) -> FeatureSplit:
    features, labels = (read_npy(folder / f"{split}_{what}.npy") for what in ("features", "labels"))
    return split_of(f"{shown(folder)}, {split}", features, labels, local=True)
