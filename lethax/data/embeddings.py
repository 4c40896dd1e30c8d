"""Import features from elsewhere into a store: LEO's published pickles, .safetensors, .npz, or a folder of .npy files."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.archives import NAME
from lethax.data.arrays import CHUNK
from lethax.data.feature_files import ROWS, FeatureSplit, origin_of, read_features
from lethax.data.safe import is_text, sha256
from lethax.data.writer import StoreWriter
from lethax.errors import DataError
from lethax.text import shown

WIDTH = 1 << 20  # entries of a vector


def prepare_features(
    source: Path, root: Path | None, progress: Callable[[str, float], None], *, name: str = "features"
) -> list[str]:
    """Write the store `name`. DataError says what was found and what was expected."""
    progress(f"reading {source.name}", 0.0)
    splits = read_features(source)
    for split, found in splits.items():
        _check(f"{shown(source)}, {split}", found)
    widths = {found.features.shape[1] for found in splits.values()}
    if "train" not in splits or len(widths) != 1:
        raise DataError(
            f"{shown(source)} has {', '.join(splits) or 'no split'} with {sorted(widths)} entries a vector; "
            "expected train and one width."
        )
    _check_disjoint(source, splits)
    write_features(name, splits, root, _origin(source))
    progress(f"wrote {name}", 1.0)
    return [name]


def write_features(name: str, splits: Mapping[str, FeatureSplit], root: Path | None, origin: dict[str, Any]) -> None:
    """Write a store of features. Its classes have the order in which they first appear."""
    with StoreWriter(root, name, mean=(), std=(), source=origin) as writer:
        for split, (features, numbers, names, _) in splits.items():
            used, first, numbers = np.unique(numbers, return_index=True, return_inverse=True)
            rank = np.argsort(np.argsort(first))[numbers]
            order = np.argsort(rank, kind="stable")
            classes = [(names[used[i]], "", int(n)) for i, n in zip(np.argsort(first), np.bincount(rank), strict=True)]
            out = writer.split(split, (features.shape[1],), classes)
            for rows in _pieces(features):
                out[rows] = features[order[rows]]


def _pieces(features: np.ndarray) -> Iterable[slice]:
    """Yield the vectors in pieces of about CHUNK bytes, so that they are never copied as a whole."""
    step = max(1, CHUNK // max(1, features[:1].nbytes))
    return (slice(begin, begin + step) for begin in range(0, len(features), step))


def _check(where: str, split: FeatureSplit) -> None:
    """Check that features are finite floats [n, d], also as float32, and that names can be written and shown."""
    features = split.features
    fits = features.ndim == 2 and features.dtype.kind == "f" and len(features) <= ROWS and features.shape[1] <= WIDTH
    if not fits or not features.size:
        raise DataError(
            f"{where} has features {features.dtype}{list(features.shape)} and labels {list(split.numbers.shape)}; "
            f"expected floats [n, d] and labels [n], n at most {ROWS}, d at most {WIDTH}."
        )
    for rows in _pieces(features):
        with np.errstate(over="ignore"):
            finite = np.isfinite(features[rows].astype(np.float32)).all(axis=1)
        if not finite.all():
            row = rows.start + int(np.argmin(finite))
            stored = np.isfinite(features[row]).all()
            what = "too large for float32: scale the features" if stored else "NaN or Inf; make the features again"
            raise DataError(f"{where}: vector {row} has an entry that is {what}.")
    for name in split.names:
        if not name or len(name) > NAME or not is_text(name):
            raise DataError(f"{where} has the class name '{shown(name, 80)}'; expected 1 to {NAME} letters of UTF-8.")


def _check_disjoint(source: Path, splits: Mapping[str, FeatureSplit]) -> None:
    """Check that no two splits share a class. Labels that are mere numbers say nothing about other splits."""
    uses = Counter(name for split in splits.values() if not split.local for name in set(split.names))
    twice = sorted(name for name, count in uses.items() if count > 1)
    if twice:
        found = [split for split, part in splits.items() if twice[0] in part.names]
        raise DataError(
            f"{shown(source)} has the class '{shown(twice[0], 80)}' in {' and '.join(found)}"
            f"{f', and {len(twice) - 1} more' if len(twice) > 1 else ''}: few-shot splits must not share classes, as the test "
            "would be of classes that were trained on. Give every class to one split."
        )


def _origin(source: Path) -> dict[str, Any]:
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    made = origin_of(source)
    return {
        "kind": "features", "files": {shown(path.name): sha256(path) for path in files if path.is_file()},
        **({"origin": made.record()} if made else {}),
    }  # fmt: skip
