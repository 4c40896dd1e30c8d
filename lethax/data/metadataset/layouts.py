"""The published files of each source, as people hold them who never made records: which pictures are of which class.

Each function takes a folder, or an archive where it says so, and the published classes, and gives a reader.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lethax.data.cifar import COUNTS, read_cifar100
from lethax.data.formats import read_npy
from lethax.data.metadataset.annotations import annotations
from lethax.data.metadataset.facts import SourceFacts
from lethax.data.metadataset.matlab import read_mat
from lethax.data.metadataset.readers import ArrayReader, Cut, FileReader, SourceReader
from lethax.data.tree import Blob, Tree
from lethax.errors import DataError
from lethax.text import shown

MARGIN = 0.1  # of the sides of COCO's boxes, on both sides of them


def _of_folders(
    tree: Tree, class_of: Callable[[PurePosixPath], str | None], left_out: dict[str, str] | None = None
) -> FileReader:
    """The reader of pictures whose names say their class."""
    found: dict[str, list[Cut]] = defaultdict(list)
    for file in tree.pictures:
        name = class_of(PurePosixPath(file))
        if name is not None:
            found[name].append(Cut(file))
    return FileReader(dict(found), tree.blobs, left_out or {})


def _below_images(path: PurePosixPath) -> str | None:
    """The class of images/CLASS/picture; other folders may have pictures of the same classes, such as masks."""
    return path.parent.name if path.parent.parent.name in ("images", "") else None


def omniglot(source: Path, known: SourceFacts) -> SourceReader:
    """images_background and images_evaluation, folders or zips: ALPHABET/characterNN/*.png. Ink becomes white on black."""
    trees: dict[str, Tree] = {}
    for part in ("images_background", "images_evaluation"):
        place = next((path for path in (source / part, source / f"{part}.zip") if path.exists()), None)
        if place is None:
            raise DataError(
                f"{shown(source)} lacks {part}: expected {part}.zip or an unpacked folder {part} in it, or the records."
            )
        trees[part] = Tree(place)
    found: dict[str, list[Cut]] = defaultdict(list)
    for part, tree in trees.items():
        for file in tree.pictures:
            parts = PurePosixPath(file).parts
            if len(parts) >= 3 and re.fullmatch(r"character\d\d", parts[-2]):
                found[f"{parts[-3]}-{parts[-2]}"].append(Cut(f"{part}:{file}"))

    def blobs(wanted: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        by_part: dict[str, list[str]] = defaultdict(list)
        for name in wanted:
            part, _, file = name.partition(":")
            by_part[part].append(file)
        for part, files in by_part.items():
            yield from ((f"{part}:{file}", blob) for file, blob in trees[part].blobs(files))

    return FileReader(dict(found), blobs, negative=True)


def aircraft(source: Path, known: SourceFacts) -> SourceReader:
    """fgvc-aircraft-2013b: images_variant_{trainval,test}.txt and images_box.txt beside images/*.jpg; also as an archive.

    Each picture is cut to its box, with which the line of the photographer goes.
    """
    tree = Tree(source)
    files = {PurePosixPath(file).stem: file for file in tree.pictures}
    boxes = {name: _numbers(box, 4, "images_box.txt") for name, box in _lines(tree, "images_box.txt")}
    found: dict[str, list[Cut]] = defaultdict(list)
    for part in ("trainval", "test"):
        for name, variant in _lines(tree, listing := f"images_variant_{part}.txt"):
            if name not in files or name not in boxes:
                lacks = "picture" if name not in files else "box"
                raise DataError(
                    f"{shown(source)} has no {lacks} of {shown(name, 60)}, which {listing} names: get the whole."
                )
            left, top, right, bottom = boxes[name]
            found[variant].append(Cut(files[name], (left, top, right, bottom)))
    return FileReader(dict(found), tree.blobs)


def cu_birds(source: Path, known: SourceFacts) -> SourceReader:
    """CUB_200_2011: images/NNN.Name/*.jpg; also as an archive."""
    return _of_folders(Tree(source), _below_images)


def dtd(source: Path, known: SourceFacts) -> SourceReader:
    """dtd: images/CLASS/*.jpg; also as an archive."""
    return _of_folders(Tree(source), _below_images)


def quickdraw(source: Path, known: SourceFacts) -> SourceReader:
    """CLASS.npy of all classes, uint8 [n, 784], in one folder; `full_numpy_bitmap_CLASS.npy` is also taken."""
    if not source.is_dir():
        raise DataError(f"{shown(source)} is no folder: give the folder that holds the 345 .npy files.")
    paths = {path.stem.removeprefix("full_numpy_bitmap_"): path for path in sorted(source.glob("*.npy"))}
    named = known.named(dict.fromkeys(paths), shown(source))  # before 345 files are opened
    opened = {name: partial(_drawings, paths[name]) for names in named.values() for name in names}
    return ArrayReader(opened, {name: len(array()) for name, array in opened.items()})


def _drawings(path: Path) -> np.ndarray:
    """The drawings of a class, uint8 [n, 28, 28, 1], white on black; they stay on the disk."""
    array = read_npy(path)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != 784:
        raise DataError(
            f"{shown(path)} holds {array.dtype}{list(array.shape)}, expected uint8[n, 784]: download it again."
        )
    return array.reshape(-1, 28, 28, 1)


def cifar100(source: Path, known: SourceFacts) -> SourceReader:
    """cifar-100-python.tar.gz, or a folder that holds it or its files: the pictures of its test part."""
    found = read_cifar100(source, lambda *_: None, COUNTS)
    rows = dict(zip(found.names, found.rows[1], strict=True))
    return ArrayReader(
        {name: partial(found.images[1].__getitem__, places) for name, places in rows.items()},
        {name: len(places) for name, places in rows.items()},
    )


def fungi(source: Path, known: SourceFacts) -> SourceReader:
    """train.json and val.json of the 2018 challenge beside images/…; also as an archive. Both parts are merged."""
    tree = Tree(source)
    files = _endings(tree.pictures)
    found: dict[str, list[Cut]] = defaultdict(list)
    for listing in ("train.json", "val.json"):
        images: dict[int, str] = {}
        labels: list[tuple[int, int]] = []
        names: dict[int, str] = {}
        for key, item in _annotations(tree, listing, ("images", "annotations", "categories")):
            match key, item:
                case "images", {"id": int() as number, "file_name": str() as file}:
                    images[number] = file
                case "annotations", {"image_id": int() as number, "category_id": int() as label}:
                    labels.append((number, label))
                case "categories", {"id": int() as label, "name": str() as name}:
                    names[label] = f"{label:04d}.{name}"
                case _:
                    raise DataError(f"{listing} has {shown(item, 80)} among its {key}: copy or download it again.")
        for number, label in labels:
            if number not in images or label not in names:
                raise DataError(f"{listing} gives image {number} the class {label}, but lists only one of them.")
            found[names[label]].append(Cut(_found(files, images[number], listing)))
    return FileReader(dict(found), tree.blobs)


def vgg_flower(source: Path, known: SourceFacts) -> SourceReader:
    """imagelabels.mat beside jpg/image_NNNNN.jpg, in one folder; labels begin at 1."""
    tree = Tree(source)
    listing = tree.find("imagelabels.mat")
    if listing is None:
        raise DataError(f"{shown(source)} has no imagelabels.mat: download it from the page of the pictures.")
    labels = read_mat(tree.small(listing), listing, "labels").ravel()
    names = {int(str(entry)[:3]): str(entry) for entries in known.classes.values() for entry in entries}
    files = {PurePosixPath(file).stem: file for file in tree.pictures}
    found: dict[str, list[Cut]] = defaultdict(list)
    for number, label in enumerate(labels.tolist(), 1):
        file = files.get(f"image_{number:05d}")
        if file is None or label not in names:
            what = f"no image_{number:05d}.jpg" if file is None else f"the label {shown(label, 20)} of picture {number}"
            raise DataError(f"{shown(source)} has {what}, expected {len(labels)} pictures of {len(names)} classes.")
        found[names[label]].append(Cut(file))
    return FileReader(dict(found), tree.blobs)


def traffic_sign(source: Path, known: SourceFacts) -> SourceReader:
    """GTSRB: Final_Training/Images/NNNNN/*.ppm, of classes from 0 on; also as an archive. The test pictures are not read."""
    names = {int(str(entry)[:2]): str(entry) for entries in known.classes.values() for entry in entries}

    def class_of(path: PurePosixPath) -> str | None:
        folder = path.parent.name
        return names.get(int(folder)) if re.fullmatch(r"\d{5}", folder) and path.suffix == ".ppm" else None

    return _of_folders(Tree(source), class_of)


def mscoco(source: Path, known: SourceFacts) -> SourceReader:
    """instances_train2017.json and train2017/*.jpg. Each annotated box is a picture, enlarged by a fifth about its centre."""
    tree = Tree(source)
    files = _endings(tree.pictures)
    images: dict[int, str] = {}
    names: dict[int, str] = {}
    boxes: dict[int, list[tuple[int, tuple[int, int, int, int]]]] = defaultdict(list)
    listing = "instances_train2017.json"
    for key, item in _annotations(tree, listing, ("images", "annotations", "categories")):
        match key, item:
            case "images", {"id": int() as number, "file_name": str() as file}:
                images[number] = _found(files, file, listing)
            case "annotations", {"image_id": int() as number, "category_id": int() as label, "bbox": list() as box}:
                boxes[label].append((number, enlarged(_numbers(box, 4, listing, float))))
            case "categories", {"id": int() as label, "name": str() as name}:
                names[label] = name
            case _:
                raise DataError(f"{listing} has {shown(item, 80)} among its {key}: copy or download it again.")
    found: dict[str, list[Cut]] = {}
    for label, cuts in boxes.items():
        if label not in names or any(number not in images for number, _ in cuts):
            raise DataError(f"{listing} has boxes of class {label} without its name, or without their images.")
        found[names[label]] = [Cut(images[number], box) for number, box in cuts]
    return FileReader(found, tree.blobs)


def enlarged(box: list[float]) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom) of COCO's box (x, y, w, h), with MARGIN more of its sides all around it."""
    x, y, w, h = box
    x, y, w, h = x - MARGIN * w, y - MARGIN * h, (1 + 2 * MARGIN) * w, (1 + 2 * MARGIN) * h
    return max(round(x - 0.5), 0), max(round(y - 0.5), 0), round(x + w - 0.5) + 1, round(y + h - 0.5) + 1


def ilsvrc_2012(source: Path, known: SourceFacts) -> SourceReader:
    """WNID/*.JPEG of the 1000 classes' training pictures. Pictures that other sources have too are left out."""
    left_out: dict[str, str] = {}
    twice = {wnid: set(numbers) for wnid, numbers in known.duplicates.items()}

    def class_of(path: PurePosixPath) -> str | None:
        wnid, number = path.parent.name, path.stem.rpartition("_")[2]
        if number.isdecimal() and int(number) in twice.get(wnid, ()):
            left_out[str(path)] = "another source of the benchmark has this picture too"
            return None
        return wnid

    return _of_folders(Tree(source), class_of, left_out)


LAYOUTS: dict[str, Callable[[Path, SourceFacts], SourceReader]] = {
    "ilsvrc_2012": ilsvrc_2012, "omniglot": omniglot, "aircraft": aircraft, "cu_birds": cu_birds, "dtd": dtd,
    "quickdraw": quickdraw, "fungi": fungi, "vgg_flower": vgg_flower, "traffic_sign": traffic_sign, "mscoco": mscoco,
    "cifar100": cifar100,
}  # fmt: skip


def _lines(tree: Tree, listing: str) -> Iterator[tuple[str, str]]:
    """(first word, the rest) of each line of a list."""
    name = tree.find(listing)
    if name is None:
        raise DataError(
            f"{shown(tree.source)} has no {listing}: give the folder or archive that holds the whole source."
        )
    for line in tree.text(name).splitlines():
        first, _, rest = line.strip().partition(" ")
        if first:
            yield first, rest.strip()


def _annotations(tree: Tree, listing: str, wanted: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = tree.find(listing)
    if name is None:
        raise DataError(f"{shown(tree.source)} has no {listing}: give the folder that holds it beside the pictures.")
    return annotations(tree.blob(name), listing, wanted)


def _numbers(values: Any, count: int, listing: str, kind: type = int) -> list[Any]:
    """The numbers of a box."""
    try:
        numbers = [kind(value) for value in (values.split() if isinstance(values, str) else values)]
        if len(numbers) != count or not np.all(np.abs(numbers) < 1 << 30):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{listing} has the box {shown(values, 60)}, expected {count} numbers.") from None
    return numbers


def _endings(files: list[str]) -> dict[str, str]:
    """Full names by the last part and by the last two, three, … parts, as a list may write them."""
    found: dict[str, str] = {}
    for file in files:
        parts = file.split("/")
        for begin in range(len(parts)):
            found.setdefault("/".join(parts[begin:]), file)
    return found


def _found(files: dict[str, str], name: str, listing: str) -> str:
    if name not in files:
        raise DataError(f"there is no picture {shown(name, 80)}, which {listing} names: give the complete source.")
    return files[name]
