"""Pictures that are in no data set: a folder of labelled ones to adapt to, and others to predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lethax.data.decode import Resize
from lethax.data.layout import class_folders
from lethax.data.pictures import BrokenPictures, Progress, fill
from lethax.data.tree import Tree
from lethax.errors import DataError
from lethax.text import counted, shown


class Pictures(NamedTuple):
    """Decoded pictures: uint8 [n, height, width, channels], their names, and a reason for everything that was left out."""

    images: np.ndarray
    names: list[str]
    left_out: dict[str, str]


class Labelled(NamedTuple):
    """Pictures with a class each: `labels` [n] are positions in `classes`. Classes may have different numbers of pictures."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: dict[str, str]

    def counts(self) -> list[int]:
        """The number of pictures of every class."""
        return np.bincount(self.labels, minlength=len(self.classes)).tolist()


def pictures(source: Path, example: Sequence[int], progress: Progress, resize: Resize = "crop") -> Pictures:
    """Read all pictures below a folder or in an archive. What cannot be read is left out. DataError if none is left."""
    tree = Tree(source, whole=False)
    images, names, broken = _decoded(tree, tree.pictures, example, progress, resize)
    left_out = {**tree.left_out, **broken}
    if not names:
        first = "".join(f" ({shown(name, 80)}: {shown(why, 80)})" for name, why in sorted(left_out.items())[:1])
        raise DataError(f"{shown(source)} holds no picture that can be read{first}; give a folder with pictures in it.")
    return Pictures(images, names, left_out)


def labelled(source: Path, example: Sequence[int], progress: Progress, resize: Resize = "crop") -> Labelled:
    """Read class folders. Broken pictures are left out. DataError for fewer than two classes, or a class without pictures."""
    tree = Tree(source)
    layout = class_folders(tree)
    if layout.plan is not None:
        splits = ", ".join(sorted(layout.plan))
        raise DataError(
            f"{shown(source)} holds folders of splits ({splits}); give the folder whose folders are the classes."
        )
    wanted = {name: label for label, found in enumerate(layout.flat.values()) for name in found}
    if len(layout.flat) < 2:
        found = counted(len(layout.flat), "class folder")
        raise DataError(f"{shown(source)} has {found} with pictures; it takes two or more, one folder for each class.")
    images, names, broken = _decoded(tree, list(wanted), example, progress, resize)
    labels = np.array([wanted[name] for name in names], np.int32)
    classes = tuple(layout.flat)
    for label, name in enumerate(classes):
        if not np.any(labels == label):
            raise DataError(
                f"class {shown(name)} of {shown(source)} has no picture that can be read: replace its files."
            )
    return Labelled(images, labels, classes, {**tree.left_out, **layout.left_out, **broken})


def _decoded(
    tree: Tree, names: list[str], example: Sequence[int], progress: Progress, resize: Resize
) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Decode pictures of a tree: (images, the names of those that can be read, reasons of the others)."""
    out = np.zeros((len(names), *example), np.uint8)
    rows = {name: row for row, name in enumerate(names)}
    broken: dict[str, str] = {}
    try:
        fill(out, ((rows[name], name, blob) for name, blob in tree.blobs(names)), progress, "pictures", resize)
    except BrokenPictures as error:
        broken = {name: f"it is broken: {why}" for name, why in error.found.items()}
    kept = [name for name in names if name not in broken]
    return out[[rows[name] for name in kept]], kept, broken
