"""Miniatures of the ten sources of Meta-Dataset, written by hand in the published forms."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from lethax.data.metadataset.facts import SourceFacts

SPLITS = ("train", "val", "test")
# Of each source: the published classes of the miniature, with the kind of names that the source has.
CLASSES: dict[str, dict[str, list[str | int]]] = {
    "ilsvrc_2012": {"train": ["n01", "n02", "n03"], "val": ["n04"], "test": ["n05"]},
    "omniglot": {"train": ["Angle-character01", "Angle-character02"], "val": ["Bow-character01"], "test": ["Dot-character01"]},
    "aircraft": {"train": ["F-16A/B", "BAE 146"], "val": ["A318"], "test": ["DC-6"]},
    "cu_birds": {"train": [3, 1], "val": [2], "test": [4]},
    "dtd": {"train": ["woven", "braided"], "val": ["polka-dotted"], "test": ["lined"]},
    "quickdraw": {"train": ["hedgehog", "police car"], "val": ["swan"], "test": ["castle"]},
    "fungi": {"train": [7, 2], "val": [3], "test": [12]},
    "vgg_flower": {"train": ["002.canna lily", "001.colt's foot"], "val": ["004.rose"], "test": ["003.sweet pea"]},
    "traffic_sign": {"train": [], "val": [], "test": ["00.Speed limit (20km/h)", "01.Stop"]},
    "mscoco": {"train": [], "val": ["fork", "cup"], "test": ["bicycle"]},
}  # fmt: skip
EACH = 3  # pictures of a class
CHILDREN = {"train": {"n10": ["n11", "n03"], "n11": ["n01", "n02"]}}


def published(source: str) -> SourceFacts:
    classes = CLASSES[source]
    every = [name for names in classes.values() for name in names]
    alphabets = {str(name): str(name).partition("-")[0] for name in every} if source == "omniglot" else {}
    graph, twice = (CHILDREN, {"n02": [9]}) if source == "ilsvrc_2012" else ({}, {})
    return SourceFacts(EACH * len(every), classes, alphabets, graph, twice)


def named(source: str) -> dict[str, list[str]]:
    """The names of the classes of a miniature; of those that are published by number, the source itself has the names."""
    form = {"cu_birds": "{:03d}.Some_Bird", "fungi": "{:04d}.Some mushroom"}.get(source, "{}")
    return {split: [form.format(name) for name in names] for split, names in CLASSES[source].items()}


def colour(number: int, place: int) -> tuple[int, int, int]:
    """What a picture is filled with: it says its class, counted over all splits, and its place in the class."""
    return 20 + 30 * number, 40 * place, 200


def picture(number: int, place: int, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    blob = io.BytesIO()
    Image.new("RGB", size, colour(number, place)).save(blob, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return blob.getvalue()


def save(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write(source: str, top: Path) -> Path:
    """The files of a source, below `top`."""
    names = [name for part in named(source).values() for name in part]
    {
        "ilsvrc_2012": _folders("{name}/{name}_{place}.JPEG", "JPEG"),
        "cu_birds": _folders("CUB_200_2011/images/{name}/Bird_{place:04d}.jpg", "JPEG"),
        "dtd": _folders("dtd/images/{name}/{name}_{place:04d}.jpg", "JPEG"),
        "traffic_sign": _folders("GTSRB/Final_Training/Images/{number:05d}/00000_{place:05d}.ppm", "PPM"),
        "omniglot": _omniglot, "aircraft": _aircraft, "quickdraw": _quickdraw, "fungi": _fungi, "vgg_flower": _vgg_flower,
        "mscoco": _mscoco,
    }[source](top, names)  # fmt: skip
    return top


def _folders(pattern: str, kind: str):  # noqa: ANN202
    def made(top: Path, names: list[str]) -> None:
        for number, name in enumerate(names):
            for place in range(EACH):
                save(top / pattern.format(name=name, number=number, place=place), picture(number, place, kind))

    return made


def _omniglot(top: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        part = "images_evaluation" if name.startswith("Dot") else "images_background"
        for place in range(EACH):
            pixels = np.full((105, 105), 255, np.uint8)
            pixels[:, : 10 * (number + 1)] = 0  # ink
            blob = io.BytesIO()
            Image.fromarray(pixels).convert("1").save(blob, "PNG")
            save(top / part / name.replace("-", "/") / f"{number:04d}_{place:02d}.png", blob.getvalue())


def _aircraft(top: Path, names: list[str]) -> None:
    data = top / "fgvc-aircraft-2013b" / "data"
    lists = {"images_box": [], "images_variant_trainval": [], "images_variant_test": []}  # type: dict[str, list[str]]
    for number, name in enumerate(names):
        for place in range(EACH):
            image = f"{number}00{place}"
            pixels = np.full((12, 10, 3), 255, np.uint8)  # around the box
            pixels[2:9, 1:8] = colour(number, place)
            blob = io.BytesIO()
            Image.fromarray(pixels).save(blob, "PNG")  # a lossless picture under the published name
            save(data / "images" / f"{image}.jpg", blob.getvalue())
            lists["images_box"].append(f"{image} 1 2 8 9")
            lists["images_variant_test" if place == 2 else "images_variant_trainval"].append(f"{image} {name}")
    for listing, lines in lists.items():
        save(data / f"{listing}.txt", "\n".join(lines) + "\n")


def _quickdraw(top: Path, names: list[str]) -> None:
    top.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        np.save(
            top / f"{name}.npy", np.stack([np.full(784, colour(number, place)[1], np.uint8) for place in range(EACH)])
        )


def _fungi(top: Path, names: list[str]) -> None:
    """A category for each class and some nobody asks for; the last picture of a class is of the validation part."""
    categories = [{"id": int(name[:4]), "name": name[5:]} for name in names] + [{"id": 99, "name": "unknown"}]
    for part, places in (("train", [0, 1]), ("val", [2])):
        images, labels = [], []
        for number, name in enumerate(names):
            for place in places:
                file = f"images/{number}_{name[5:]}/{place}.JPG"
                save(top / file, picture(number, place, "JPEG"))
                images.append({"id": len(images), "file_name": file, "width": 8})
                labels.append({"id": len(labels), "image_id": len(images) - 1, "category_id": int(name[:4])})
        content = {
            "annotations": labels,
            "images": images,
            "categories": categories,
            "info": {"year": 2018, "x": [1, 2.5e3]},
        }
        save(top / f"{part}.json", json.dumps(content))


def _vgg_flower(top: Path, names: list[str]) -> None:
    labels = [int(name[:3]) for name in names for _ in range(EACH)]
    for image, (number, place) in enumerate(np.ndindex(len(names), EACH), 1):
        save(top / "jpg" / f"image_{image:05d}.jpg", picture(number, place, "JPEG"))
    scipy.io.savemat(top / "imagelabels.mat", {"labels": np.array([labels], np.uint8)}, do_compression=True)


def _mscoco(top: Path, names: list[str]) -> None:
    """One picture that holds one box of every class, for each place; categories come last, as they do in the published file."""
    boxes, images = [], []
    for place in range(EACH):
        pixels = np.full((30, 20 * len(names), 3), 255, np.uint8)
        for number in range(len(names)):
            pixels[5:20, 20 * number + 3 : 20 * number + 18] = colour(number, place)
            box = [20.0 * number + 5, 7.0, 10.0, 10.0]  # of which a fifth more is still within the colour
            boxes.append(
                {"segmentation": [[1.5] * 20], "image_id": 50 + place, "bbox": box, "category_id": 10 + number}
            )
        blob = io.BytesIO()
        Image.fromarray(pixels).save(blob, "PNG")
        save(top / "train2017" / f"{place:012d}.jpg", blob.getvalue())
        images.append({"file_name": f"{place:012d}.jpg", "id": 50 + place})
    categories = [{"id": 10 + number, "name": name} for number, name in enumerate(names)]
    content = {"info": {}, "licenses": [], "images": images, "annotations": boxes, "categories": categories}
    save(top / "annotations" / "instances_train2017.json", json.dumps(content))


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def piece(number: int, content: bytes) -> bytes:
    """A field with a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(content: bytes, label: int, first: str = "image") -> bytes:
    """A tf.Example; map entries come in any order."""
    entries = {
        "image": piece(1, piece(1, b"image") + piece(2, piece(1, piece(1, content)))),
        "label": piece(1, piece(1, b"label") + piece(2, piece(3, piece(1, varint(label % (1 << 64)))))),
    }
    return piece(1, b"".join(entries[key] for key in sorted(entries, key=lambda key: key != first)))


def checksum(content: bytes) -> bytes:
    """A masked CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + checksum(length) + payload + checksum(payload)


def write_records(source: str, top: Path) -> Path:
    """The records of a source and their specification, in a folder of its name below `top`."""
    names = named(source)
    every = [name for split in SPLITS for name in names[split]]
    for number in range(len(every)):
        payloads = [example(picture(number, place), number, ("image", "label")[place % 2]) for place in range(EACH)]
        save(top / source / f"{number}.tfrecords", b"".join(map(record, payloads)))
    spec = {
        "name": source, "class_names": {str(i): name for i, name in enumerate(every)},
        "images_per_class": {str(i): EACH for i in range(len(every))}, "path": "/elsewhere", "file_pattern": "{}.tfrecords",
        "__class__": "BiLevelDatasetSpecification" if source == "omniglot" else "DatasetSpecification",
    }  # fmt: skip
    if source == "ilsvrc_2012":
        counts = {split.upper(): {"n99": 7, **dict.fromkeys(part, EACH)} for split, part in names.items()}
        spec |= {"__class__": "HierarchicalDatasetSpecification", "images_per_class": counts}
    save(top / source / "dataset_spec.json", json.dumps(spec))
    return top
