"""Import Omniglot's published pictures (Lake et al. 2015) as 28 x 28 images of 0 and 255, in one of three splits.

Pictures are made smaller as the released MAML++ and L2F code does it: 1-bit pictures, of which Pillow takes the
nearest pixel. Paper is 255 and ink 0. Rotations are a matter of training and not of the store.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from lethax.data.archives import Archive
from lethax.data.cifar import published_split
from lethax.data.safe import sha256
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, did_you_mean
from lethax.text import counted

Progress = Callable[[str, float], None]
Split = Literal["vinyals", "lake", "mamlpp"]
Characters = dict[str, np.ndarray]  # "Alphabet/characterNN": uint8 [drawers, 28, 28, 1]
Plan = dict[str, list[str]]  # split: characters

STORES = {"vinyals": "omniglot", "lake": "omniglot_lake", "mamlpp": "omniglot_mamlpp"}
PARTS = ("images_background", "images_evaluation")
COUNTS = {"images_background": (30, 964), "images_evaluation": (20, 659)}  # (alphabets, characters)
DRAWERS = 20
MAMLPP = {"train": 1150, "val": 50, "test": 423}  # numbers of classes
LAKE_VAL = 5  # alphabets
SIDE, SMALL = 105, 28


def prepare_omniglot(source: Path, root: Path | None, progress: Progress, split: str = "vinyals") -> list[str]:
    """Write one store from a folder with images_background(.zip) and images_evaluation(.zip).

    split "vinyals": `omniglot`, the published lists of 1028, 172 and 423 characters.
    "lake": `omniglot_lake`, train = background and test = evaluation; val = the last 5 background alphabets.
    "mamlpp": `omniglot_mamlpp`, 1150, 50 and 423 characters at random: the counts of the released MAML++ code's
    random split, but drawn by a seed of our own, so not the same characters.
    """
    if split not in STORES:
        raise DataError(f"'{split}' is no split of Omniglot.{did_you_mean(split, STORES)} Use {', '.join(STORES)}.")
    parts: dict[str, Characters] = {}
    sums: dict[str, str] = {}
    places = {part: _place(source, part) for part in PARTS}  # both, before the work on one begins
    for part, place in places.items():
        parts[part], sums[place.name] = _read(place, part, progress, 0.45 * len(parts))
        _check(parts[part], part, place)
    plan, note = {"vinyals": _vinyals, "lake": _lake, "mamlpp": _mamlpp}[split](parts, source)
    record = {"description": f"Omniglot, {note}", "split": split, "files": sums}
    images = {name: pixels for part in parts.values() for name, pixels in part.items()}
    with StoreWriter(root, STORES[split], mean=(0.0,), std=(1.0,), source=record) as writer:
        for name, classes in plan.items():
            listed = [(c, c.partition("/")[0], len(images[c])) for c in classes]
            writer.split(name, (SMALL, SMALL, 1), listed)[:] = np.concatenate([images[c] for c in classes])
    progress(f"writing {STORES[split]}", 1.0)
    return [STORES[split]]


def _place(source: Path, part: str) -> Path:
    """The unpacked folder of a part, or its zip if there is no folder."""
    found = next((path for path in (source / part, source / f"{part}.zip") if path.exists()), None)
    if not source.exists():
        raise DataError(f"{source} does not exist: give the folder that holds {' and '.join(PARTS)}.")
    if found is None:
        raise DataError(f"{source} lacks {part}: expected {part}.zip or an unpacked folder {part} in it.")
    return found


def _read(place: Path, part: str, progress: Progress, start: float) -> tuple[Characters, str]:
    """Read the pictures of a part by character, both sorted, and a SHA-256 of the zip or of all pictures in order."""
    pictures: dict[str, dict[str, np.ndarray]] = {}
    total, count = COUNTS[part][1] * DRAWERS, 0
    digest = hashlib.sha256()
    for character, file, content in _pictures(place):
        drawn = pictures.setdefault(character, {})
        if file in drawn:
            raise DataError(f"{place} holds {character}/{file} twice, expected once: fetch it again.")
        drawn[file] = decode(content, f"{place}: {character}/{file}")
        digest.update(content)
        count += 1
        if count % 500 == 0:
            progress(f"reading {part}", start + 0.45 * min(count / total, 1.0))
    characters = {c: np.stack([drawn[file] for file in sorted(drawn)]) for c, drawn in sorted(pictures.items())}
    return characters, sha256(place) if place.is_file() else digest.hexdigest()


def _pictures(place: Path) -> Iterator[tuple[str, str, bytes | bytearray]]:
    """Yield ("Alphabet/characterNN", file name, content) of every picture."""
    for name, content in Archive(place).items(lambda n: n.endswith(".png") and not n.startswith("__MACOSX/")):
        parts = PurePosixPath(name).parts
        if len(parts) < 3 or not parts[-2].startswith("character"):
            raise DataError(f"{place} holds {name}, expected Alphabet/characterNN/XXXX_YY.png: fetch it again.")
        yield f"{parts[-3]}/{parts[-2]}", parts[-1], content


def decode(content: bytes | bytearray, name: str) -> np.ndarray:
    """Decode a 105 x 105 1-bit picture to uint8 [28, 28, 1]. The size is checked before any pixel is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            found = f"{picture.width} x {picture.height} of mode {picture.mode}"
            if picture.size == (SIDE, SIDE) and picture.mode == "1":
                small = picture.resize((SMALL, SMALL), Image.Resampling.NEAREST)
                return np.asarray(small, np.uint8)[:, :, None] * np.uint8(255)
    except Exception as error:  # hostile files make Pillow's parsers raise nearly anything
        reason = "no PNG picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"picture {name} is broken ({reason}): fetch it again.") from None
    raise DataError(f"picture {name} is {found}, expected {SIDE} x {SIDE} of mode 1: fetch it again.")


def _check(characters: Characters, part: str, place: Path) -> None:
    alphabets = {c.partition("/")[0] for c in characters}
    if (len(alphabets), len(characters)) != COUNTS[part]:
        expected = "{} alphabets with {} characters".format(*COUNTS[part])
        raise DataError(
            f"{place} has {counted(len(alphabets), 'alphabet')} with {counted(len(characters), 'character')}, "
            f"expected {expected}: fetch it again."
        )
    for name, images in characters.items():
        if len(images) != DRAWERS:
            raise DataError(
                f"{place} has {counted(len(images), 'picture')} of {name}, expected {DRAWERS}: fetch it again."
            )


def _vinyals(parts: dict[str, Characters], source: Path) -> tuple[Plan, str]:
    """The split of Vinyals et al. Number n of its lists is characterNN of the alphabet; both begin at 1."""
    lists: dict[str, dict[str, list[int]]] = published_split("omniglot_vinyals")
    plan = {
        split: [f"{alphabet}/character{number:02d}" for alphabet in alphabets for number in alphabets[alphabet]]
        for split, alphabets in lists.items()
    }
    known = {name for part in parts.values() for name in part}
    missing = [name for classes in plan.values() for name in classes if name not in known]
    if missing:
        raise DataError(
            f"{source} lacks {counted(len(missing), 'character')} of the published split, the first being {missing[0]}: "
            "fetch it again."
        )
    return plan, "the published split of the matching networks' authors"


def _lake(parts: dict[str, Characters], source: Path) -> tuple[Plan, str]:
    """The split of Lake et al. No validation split was published, so some alphabets of the background set are taken for it."""
    background, evaluation = (list(parts[part]) for part in PARTS)
    held = sorted({c.partition("/")[0] for c in background})[-LAKE_VAL:]
    val = [c for c in background if c.partition("/")[0] in held]
    plan = {"train": [c for c in background if c not in val], "val": val, "test": evaluation}
    return plan, f"background and evaluation sets; val is the last {LAKE_VAL} background alphabets: {', '.join(held)}"


def _mamlpp(parts: dict[str, Characters], source: Path) -> tuple[Plan, str]:
    names = sorted(name for part in parts.values() for name in part)
    if len(names) != sum(MAMLPP.values()):
        raise DataError(
            f"{source} has {counted(len(names), 'character')}, expected {sum(MAMLPP.values())}: fetch it again."
        )
    order = np.random.RandomState(0).permutation(len(names))
    plan: Plan = {}
    begin = 0
    for split, count in MAMLPP.items():
        plan[split] = [names[i] for i in sorted(order[begin : begin + count])]
        begin += count
    return plan, "the released MAML++ code's counts, drawn by NumPy's RandomState(0) over the sorted characters"
