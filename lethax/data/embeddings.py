"""Import of features from elsewhere into a store: LEO's published pickles, .safetensors, .npz, or a folder of .npy files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lethax.data.archives import MEMBER_BYTES
from lethax.data.pickles import load_pickle
from lethax.data.safe import sha256
from lethax.data.store import SPLITS, StoreWriter
from lethax.errors import DataError

Split = tuple[np.ndarray, np.ndarray]  # features [n, d], the class of each [n]

FORMS = (
    "{train,val,test}_embeddings.pkl as published with LEO, one .safetensors with SPLIT/features and SPLIT/labels, one .npz with "
    "features, labels and split, or {train,val,test}_{features,labels}.npy"
)


def prepare_features(
    source: Path, root: Path | None, progress: Callable[[str, float], None], *, name: str = "features"
) -> list[str]:
    """Write the store NAME; DataError says what was found and expected."""
    progress(f"reading {source.name}", 0.0)
    splits = read_features(source)
    for split, (features, labels) in splits.items():
        _check(f"{source}, {split}", features, labels)
    widths = {features.shape[1] for features, _ in splits.values()}
    if "train" not in splits or len(widths) != 1:
        raise DataError(
            f"{source} has {', '.join(splits)} with {sorted(widths)} entries a vector; expected train and one width."
        )
    write_features(name, splits, root, _origin(source))
    progress(f"wrote {name}", 1.0)
    return [name]


def write_features(name: str, splits: Mapping[str, Split], root: Path | None, origin: dict[str, Any]) -> None:
    """The store; classes in the order in which they first appear."""
    with StoreWriter(root, name, mean=(), std=(), source=origin) as writer:
        for split, (features, labels) in splits.items():
            _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
            rank = np.argsort(np.argsort(first))[numbers]
            order = np.argsort(rank, kind="stable")
            counts = np.bincount(rank)
            names = labels[np.sort(first)]
            classes = [(str(c), "", int(n)) for c, n in zip(names, counts, strict=True)]
            writer.split(split, (features.shape[1],), classes)[:] = features[order]


def read_features(source: Path) -> dict[str, Split]:
    """Features and labels by split, in any of the known forms; DataError where it is none of them."""
    if not source.exists():
        raise DataError(f"{source} does not exist; expected {FORMS}.")
    if source.suffix == ".safetensors":
        return _safetensors(source)
    if source.suffix == ".npz":
        return _npz(source)
    if source.is_dir() and (source / "train_embeddings.pkl").is_file():
        paths = {split: source / f"{split}_embeddings.pkl" for split in SPLITS}
        return {split: _leo(path) for split, path in paths.items() if path.is_file()}
    if source.is_dir() and (source / "train_features.npy").is_file():
        found = [split for split in SPLITS if (source / f"{split}_features.npy").is_file()]
        return {s: (_npy(source / f"{s}_features.npy"), _npy(source / f"{s}_labels.npy")) for s in found}
    raise DataError(f"{source} holds no features that are known; expected {FORMS}.")


def _check(where: str, features: np.ndarray, labels: np.ndarray) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not features.size or features.dtype.kind != "f":
        raise DataError(
            f"{where} has features {features.dtype}{list(features.shape)} and labels {list(labels.shape)}; "
            "expected floats [n, d] and labels [n]."
        )
    if not np.isfinite(features).all():
        row = int(np.argwhere(~np.isfinite(features).all(axis=1))[0, 0])
        raise DataError(f"{where}: vector {row} has an entry that is NaN or Inf; make the features again.")


def _origin(source: Path) -> dict[str, Any]:
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return {"kind": "features", "files": {path.name: sha256(path) for path in files if path.is_file()}}


def _leo(path: Path) -> Split:
    """{"embeddings": [n, d], "keys": n of "…-CLASS-CLASS_IMAGE"}; other entries are not looked at."""
    _bounded(path)
    content = load_pickle(path, str(path), encoding="latin1")
    try:
        features, keys = np.asarray(content["embeddings"]), [_text(key) for key in content["keys"]]
    except (KeyError, TypeError, IndexError):
        raise DataError(f"{path} has no embeddings and keys; expected the pickles published with LEO.") from None
    labels, seen = [], set()
    for key in keys:
        parts = key.split("-")
        if len(parts) != 3 or parts[2].partition("_")[0] != parts[1] or parts[2] in seen:
            raise DataError(f"{path} has the key '{key}'; expected SOURCE-CLASS-CLASS_IMAGE, every image once.")
        seen.add(parts[2])
        labels.append(parts[1])
    return features, np.array(labels)


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _safetensors(path: Path) -> dict[str, Split]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            classes = json.loads((file.metadata() or {}).get("classes", "{}"))
            found = {}
            for split in SPLITS:
                if f"{split}/features" in names:
                    labels = file.get_tensor(f"{split}/labels")
                    if split in classes:
                        labels = np.array(classes[split])[labels]
                    found[split] = file.get_tensor(f"{split}/features"), labels
    except (SafetensorError, OSError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected SPLIT/features and SPLIT/labels.") from None
    return found


def _npz(path: Path) -> dict[str, Split]:
    _bounded(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            features, labels, split = file["features"], file["labels"], file["split"].astype(str)
            return {s: (features[split == s], labels[split == s]) for s in SPLITS if (split == s).any()}
    except Exception as error:  # a damaged archive can raise nearly anything
        raise DataError(f"{path} cannot be read ({error}); expected the arrays features, labels and split.") from None


def _npy(path: Path) -> np.ndarray:
    _bounded(path)
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected an array of numbers or strings.") from None


def _bounded(path: Path) -> None:
    if path.is_file() and path.stat().st_size > 4 * MEMBER_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes; features of at most {4 * MEMBER_BYTES} bytes are read."
        )
