"""Import mini-ImageNet from any of the three layouts that are in use."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.arrays import whole_numbers
from lethax.data.decode import resize_array
from lethax.data.folder import check_disjoint, write_plan
from lethax.data.layout import Plan, class_folders
from lethax.data.pickles import load_pickle
from lethax.data.pictures import IMAGENET_MEAN, IMAGENET_STD, Progress
from lethax.data.split_files import assign, label_files
from lethax.data.store import SPLITS
from lethax.data.tree import Tree
from lethax.data.writer import StoreWriter
from lethax.errors import DataError
from lethax.text import counted, shown

CLASSES = {"train": 64, "val": 16, "test": 20}
PER_CLASS = 600
_CACHE = "mini-imagenet-cache-{}.pkl"


def prepare_miniimagenet(
    source: Path,
    root: Path | None,
    progress: Progress,
    *,
    image: int = 84,
    classes: Mapping[str, int] = CLASSES,
    per_class: int = PER_CLASS,
    split: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Write the store `miniimagenet` from cached pickles, from pictures with CSV files, or from class folders.

    The whole picture is squashed to a square, as the released code of MAML++ and L2F does. Differs: always by cubic
    interpolation, where theirs is that of the Pillow at hand: the nearest pixel before version 7, cubic since.

    classes, per_class: the counts that are checked. split: the classes of each split for class folders that are
    not in train/val/test folders; without it the published ones.
    """
    tree = Tree(source)
    caches = {part: found for part in SPLITS if (found := tree.find(_CACHE.format(part)))}
    tables = {part: found for part in SPLITS if (found := tree.find(f"{part}.csv"))}
    if caches:
        _complete(caches, _CACHE, source)
        _from_caches(tree, caches, root, progress, image, classes, per_class)
        return ["miniimagenet"]
    if tables:
        _complete(tables, "{}.csv", source)
        texts = {part: tree.text(found) for part, found in tables.items()}
        plan, layout = label_files(tree, texts), "csv"
    else:
        plan, layout = _from_folders(tree, split), "folders"
    plan = {part: dict(sorted(plan.get(part, {}).items())) for part in SPLITS}
    check_disjoint(plan)
    for part in SPLITS:
        check_counts(part, {name: len(names) for name, names in plan[part].items()}, classes[part], per_class)
    with _writer(root, layout, image) as writer:
        write_plan(writer, tree, plan, (image, image, 3), progress, "stretch")
    return ["miniimagenet"]


def _writer(root: Path | None, layout: str, image: int) -> StoreWriter:
    source: dict[str, Any] = {"kind": "miniimagenet", "layout": layout, "image": image}
    return StoreWriter(root, "miniimagenet", mean=IMAGENET_MEAN, std=IMAGENET_STD, source=source)


def _complete(found: Mapping[str, str], pattern: str, source: Path) -> None:
    missing = [pattern.format(part) for part in SPLITS if part not in found]
    if missing:
        raise DataError(f"{source} has {', '.join(found.values())} but no {', '.join(missing)}; add what is missing.")


def check_counts(split: str, counts: Mapping[str, int], classes: int, per_class: int) -> None:
    """Raise DataError unless the split has that many classes of that many pictures each."""
    if len(counts) != classes:
        raise DataError(
            f"split {split} has {counted(len(counts), 'class')}, expected {classes}; download the data set again."
        )
    wrong = [f"{name} has {count}" for name, count in counts.items() if count != per_class]
    if wrong:
        more = f" and {len(wrong) - 3} more" if wrong[3:] else ""
        raise DataError(
            f"not every class of split {split} has {per_class} pictures ({', '.join(wrong[:3])}{more}); "
            "download the data set again."
        )


def _from_folders(tree: Tree, split: Mapping[str, Sequence[str]] | None) -> Plan:
    nested, flat, _ = class_folders(tree)
    if nested is not None:
        return nested
    if not flat:
        raise DataError(
            f"{tree.source} has neither {_CACHE.format('train')} nor train.csv with pictures nor class folders; "
            "give the folder of one of these three layouts."
        )
    return assign(flat, published_split("miniimagenet") if split is None else split, str(tree.source))


def published_split(name: str) -> dict[str, Any]:
    """Read the split file that comes with the package."""
    text = resources.files("lethax.data").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def read_pickle(tree: Tree, name: str) -> Any:
    """Read a pickle of arrays, lists and strings."""
    return load_pickle(tree.blob(name), name, encoding="latin1")


def _from_caches(
    tree: Tree,
    caches: Mapping[str, str],
    root: Path | None,
    progress: Progress,
    image: int,
    classes: Mapping[str, int],
    per_class: int,
) -> None:
    seen: set[str] = set()
    with _writer(root, "pickles", image) as writer:
        for number, part in enumerate(SPLITS):
            progress(f"reading {part}", number / len(SPLITS))
            pixels, rows = _cache(read_pickle(tree, caches[part]), caches[part])
            check_counts(part, {name: len(places) for name, places in rows.items()}, classes[part], per_class)
            if seen & set(rows):
                raise DataError(f"class {min(seen & set(rows))} is in {part} and another split; download them again.")
            seen |= set(rows)
            out = writer.split(part, (image, image, 3), [(name, "", len(places)) for name, places in rows.items()])
            begin = 0
            for places in rows.values():  # class by class: the array is never copied as a whole
                out[begin : begin + len(places)] = resize_array(pixels[places], out.shape[1:])
                begin += len(places)
            del pixels
    progress("reading test", 1.0)


def _cache(content: Any, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read and check (image_data, rows of each class) of one cached pickle."""
    if not isinstance(content, dict) or not {"image_data", "class_dict"} <= set(content):
        raise DataError(f"{name} has no image_data and class_dict; download the cached pickles again.")
    pixels, classes = content["image_data"], content["class_dict"]
    fits = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[3] == 3
    if not fits or not isinstance(classes, dict):
        raise DataError(f"image_data of {name} is not a uint8 array [n, 84, 84, 3]; download the cached pickles again.")
    rows: dict[str, np.ndarray] = {}
    for given in sorted(classes, key=str):
        wnid = shown(given, 80)
        try:
            places = whole_numbers(classes[given])
        except ValueError as error:
            raise DataError(f"class {wnid} of {name} lists {error}; download the cached pickles again.") from None
        if places.min(initial=0) < 0 or places.max(initial=0) >= len(pixels) or len(np.unique(places)) < len(places):
            raise DataError(
                f"class {wnid} of {name} lists rows beyond its {counted(len(pixels), 'picture')}, or one twice; download it again."
            )
        rows[wnid] = places
    return pixels, rows
