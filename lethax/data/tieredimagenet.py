"""Import tieredImageNet from its published pickles or from class folders."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.arrays import texts, whole_numbers
from lethax.data.folder import check_disjoint, write_plan
from lethax.data.layout import Plan, class_folders
from lethax.data.miniimagenet import published_split, read_pickle
from lethax.data.pictures import IMAGENET_MEAN, IMAGENET_STD, Progress, fill
from lethax.data.split_files import assign
from lethax.data.store import SPLITS
from lethax.data.tree import Tree
from lethax.data.writer import StoreWriter
from lethax.errors import DataError
from lethax.text import counted

CLASSES = {"train": 351, "val": 97, "test": 160}
_PICTURES, _LABELS = "{}_images_png.pkl", "{}_labels.pkl"

Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]  # split: group wnid: {"name", "classes"}


def prepare_tieredimagenet(
    source: Path,
    root: Path | None,
    progress: Progress,
    *,
    image: int = 84,
    classes: Mapping[str, int] = CLASSES,
    split: Groups | None = None,
) -> list[str]:
    """Write the store `tieredimagenet`; the superclass of a class is its group. Pictures are squashed, see `prepare_miniimagenet`.

    classes: the number of classes that is checked. split: the groups of each split; without it the published ones.
    """
    tree = Tree(source)
    pickles = {part: (tree.find(_PICTURES.format(part)), tree.find(_LABELS.format(part))) for part in SPLITS}
    from_pickles = any(found for pair in pickles.values() for found in pair)
    record = {"kind": "tieredimagenet", "layout": "pickles" if from_pickles else "folders", "image": image}
    writer = StoreWriter(root, "tieredimagenet", mean=IMAGENET_MEAN, std=IMAGENET_STD, source=record)
    if from_pickles:
        missing = [
            pattern.format(part)
            for part in SPLITS
            for pattern, found in zip((_PICTURES, _LABELS), pickles[part], strict=True)
            if found is None
        ]
        if missing:
            raise DataError(f"{source} has no {', '.join(missing)}; all six pickles are needed.")
        with writer:
            for part, (pictures, labels) in pickles.items():
                _from_pickle(writer, tree, part, str(pictures), str(labels), classes[part], image, progress)
        return ["tieredimagenet"]
    groups = published_split("tieredimagenet") if split is None else split
    plan = _from_folders(tree, groups)
    check_disjoint(plan)
    for part in SPLITS:
        _check_count(part, len(plan.get(part, {})), classes[part])
    names = {wnid: group["name"] for part in groups.values() for group in part.values() for wnid in group["classes"]}
    with writer:
        write_plan(writer, tree, plan, (image, image, 3), progress, "stretch", lambda wnid: names.get(wnid, ""))
    return ["tieredimagenet"]


def _check_count(part: str, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(
            f"split {part} has {counted(found, 'class')}, expected {expected}; download the data set again."
        )


def _from_folders(tree: Tree, groups: Groups) -> Plan:
    nested, flat, _ = class_folders(tree)
    if nested is not None:
        return nested
    if not flat:
        raise DataError(
            f"{tree.source} has neither {_PICTURES.format('train')} nor class folders; give the folder of the "
            "published pickles or of the pictures."
        )
    wanted = {
        part: [wnid for group in of_part.values() for wnid in group["classes"]] for part, of_part in groups.items()
    }
    return assign(flat, wanted, str(tree.source))


def _from_pickle(
    writer: StoreWriter,
    tree: Tree,
    part: str,
    pictures: str,
    labels: str,
    classes: int,
    image: int,
    progress: Progress,
) -> None:
    """Import one split. Its compressed pictures are in memory, but never all of its pixels."""
    table, specific = _labels(read_pickle(tree, labels), labels)
    _check_count(part, len(table), classes)
    progress(f"reading {part}", 0.0)
    encoded = read_pickle(tree, pictures)
    if not isinstance(encoded, list | tuple | np.ndarray) or len(encoded) != len(specific):
        raise DataError(
            f"{pictures} does not hold the {counted(len(specific), 'picture')} of {labels}; download both again."
        )
    order = np.argsort(specific, kind="stable")
    out = writer.split(part, (image, image, 3), table)

    def jobs() -> Iterator[tuple[int, str, bytes]]:
        for row, place in enumerate(order.tolist()):
            yield row, f"{place} of {pictures}", _png(encoded[place], place, pictures)

    fill(out, jobs(), progress, f"{part} pictures", "stretch")


def _png(content: Any, place: int, name: str) -> bytes:
    if isinstance(content, np.ndarray) and content.dtype == np.uint8:
        return content.tobytes()
    if isinstance(content, bytes):
        return content
    raise DataError(f"entry {place} of {name} is no PNG file in a uint8 array; download the pickles again.")


def _labels(content: Any, name: str) -> tuple[list[tuple[str, str, int]], np.ndarray]:
    """Read (name, group and number of pictures of each class, class of each picture)."""
    keys = ("label_specific", "label_general", "label_specific_str", "label_general_str")
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise DataError(f"{name} lacks one of {', '.join(keys)}; download the pickles again.")
    try:
        specific, general = whole_numbers(content[keys[0]]), whole_numbers(content[keys[1]])
        specific_names, general_names = texts(content[keys[2]]), texts(content[keys[3]])
    except ValueError as error:
        raise DataError(f"{name} has {error} where labels are expected; download the pickles again.") from None
    for values, names in ((specific, specific_names), (general, general_names)):
        if len(values) != len(specific) or not len(values) or values.min() < 0 or values.max() >= len(names):
            raise DataError(
                f"the labels of {name} do not number its {counted(len(names), 'name')}; download the pickles again."
            )
    numbers, first, counts = np.unique(specific, return_index=True, return_counts=True)
    shared = {n for n, uses in Counter(specific_names).items() if uses > 1}
    table = []
    for number, place, count in zip(numbers.tolist(), first.tolist(), counts.tolist(), strict=True):
        title = specific_names[number]
        # ImageNet has two cranes and two maillots
        title = f"{title} #{number}" if title in shared else title
        table.append((title, general_names[int(general[place])], count))
    return table, specific
