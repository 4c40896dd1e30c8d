"""Import a folder or an archive of class folders with pictures into a store."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.decode import Resize
from lethax.data.fits import WAY
from lethax.data.layout import Classes, Layout, Plan, alike, class_folders, superclass
from lethax.data.pictures import BrokenPictures, Progress, fill, statistics
from lethax.data.split_files import assign, label_files, read_split, read_text, some
from lethax.data.store import SPLITS, Store, StoreWriter
from lethax.data.tree import Tree
from lethax.errors import DataError
from lethax.text import counted


def check_disjoint(plan: Plan) -> None:
    """Raise DataError if a class is in two splits, or there is nothing to train on."""
    if not plan.get("train"):
        raise DataError("no class is left for the split 'train'; add class folders with pictures.")
    count = Counter(name for classes in plan.values() for name in classes)
    twice = sorted(name for name, n in count.items() if n > 1)
    if twice:
        raise DataError(f"{some(twice)} in more than one split; few-shot splits must not share classes.")


def write_plan(
    writer: StoreWriter,
    tree: Tree,
    plan: Plan,
    shape: tuple[int, int, int],
    progress: Progress,
    resize: Resize = "crop",
    above: Callable[[str], str] = superclass,
) -> None:
    """Decode all pictures of a plan into the splits of a store, in the plan's order of classes. `above` gives superclasses.

    When all others are decoded, BrokenPictures names those of all splits that cannot be.
    """
    broken: dict[str, str] = {}
    for split in (split for split in SPLITS if plan.get(split)):
        classes = plan[split]
        out = writer.split(split, shape, [(name, above(name), len(names)) for name, names in classes.items()])
        rows = {name: row for row, name in enumerate(name for names in classes.values() for name in names)}
        try:
            fill(
                out,
                ((rows[name], name, blob) for name, blob in tree.blobs(rows)),
                progress,
                f"{split} pictures",
                resize,
            )
        except BrokenPictures as error:
            broken |= error.found
    if broken:
        raise BrokenPictures(broken)


def _plan(tree: Tree, split: Path | None) -> tuple[Plan | None, str, Layout]:
    """Find (plan, rule that it follows, layout). The plan is None if the classes are to be split at random."""
    if split is not None and split.is_dir():
        texts = {part: read_text(split / f"{part}.csv") for part in SPLITS if (split / f"{part}.csv").is_file()}
        plan = label_files(tree, texts)
        used = {name for classes in plan.values() for names in classes.values() for name in names}
        left = {name: "no label file lists it" for name in tree.pictures if name not in used}
        return plan, f"label files {split.name}", Layout(plan, {}, left)
    layout = class_folders(tree, listed=split is not None)
    if split is not None:
        plan = assign(layout.flat, read_split(split), str(tree.source))
        listed = {name for part in plan.values() for name in part}
        left = {f"{name}/": "the split file does not list this class" for name in layout.flat if name not in listed}
        return plan, f"file {split.name}", layout._replace(left_out={**layout.left_out, **left})
    return layout.plan, "folders", layout


def _seeded(classes: Classes, seed: int, fractions: tuple[float, float, float], source: Path) -> Plan:
    """Split classes at random. Each split has at least `WAY` classes if there are enough for all."""
    if min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"the fractions {fractions} must be positive for train, not negative, and sum to one.")
    used = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    if len(classes) < len(used):
        raise DataError(
            f"{source} has {counted(len(classes), 'class folder')} with at least 2 pictures; each of {', '.join(used)} needs one; "
            "give a folder with one folder per class."
        )
    order = [sorted(classes)[i] for i in np.random.default_rng(seed).permutation(len(classes))]
    least = min(WAY, len(order) // len(used))
    sizes = {split: max(least, round(fractions[SPLITS.index(split)] * len(order))) for split in used}
    while sum(sizes.values()) > len(order):  # rounding up took too many
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    sizes["train"] += len(order) - sum(sizes.values())
    ends = np.cumsum([0, *sizes.values()])
    return {
        split: {name: classes[name] for name in sorted(order[ends[i] : ends[i + 1]])} for i, split in enumerate(used)
    }


def _without(plan: Plan, broken: Mapping[str, str], least: int) -> tuple[Plan, dict[str, str]]:
    """The plan without broken pictures, and without classes that then have fewer than `least`, which are named with the reason."""
    kept: Plan = {split: {} for split in plan}
    dropped: dict[str, str] = {}
    for split, classes in plan.items():
        for name, names in classes.items():
            whole = [picture for picture in names if picture not in broken]
            if len(whole) >= least:
                kept[split][name] = whole
            else:
                only = "all pictures of this class are broken"
                dropped[f"{name}/"] = "this class has one picture, and an episode needs two" if whole else only
    return kept, dropped


def prepare_folder(
    source: Path,
    root: Path | None,
    progress: Progress,
    *,
    name: str,
    image: int = 84,
    channels: int = 3,
    split: Path | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.64, 0.16, 0.20),
    resize: Resize = "crop",
) -> list[str]:
    """Write the store `name` from class folders. What is not read is listed with the reason (see `left_out`).

    A class is the folder that holds its pictures; where folders hold class folders, the class is "folder/class" and the folder
    its superclass. split: a JSON file {"train": [class, ...], ...}, a CSV file with columns class and split, or a folder of
    train.csv, val.csv and test.csv with columns filename and label. Without it split folders decide (train/val/test,
    base/val/novel and their like), or else `seed` and `fractions`, with five classes a split where there are enough.
    """
    if channels not in (1, 3) or image < 1:
        raise DataError(
            f"pictures of {image} pixels and {channels} channels were asked for; expected at least 1 pixel, and 1 or 3 channels."
        )
    tree = Tree(source)
    plan, rule, layout = _plan(tree, split)
    if plan is not None:
        check_disjoint(plan)
    mean, std = statistics(channels)
    broken: dict[str, str] = {}
    while True:  # until no picture is broken: most often once, and seldom more than twice
        kept, dropped = _without({"": layout.flat} if plan is None else plan, broken, 2 if plan is None else 1)
        if broken and not kept.get("" if plan is None else "train"):
            raise DataError(f"no picture of {source} for 'train' can be decoded; check the files.")
        if plan is None:
            kept, rule = _seeded(kept[""], seed, fractions, source), f"seed {seed}, fractions {fractions}"
        record: dict[str, Any] = {
            "kind": "folder", "folder": source.resolve().name, "split": rule, "image": image, "resize": resize,
            **_left({**_unread(tree, split), **layout.left_out, **dropped}, broken),
            "alike": alike([name for classes in kept.values() for name in classes]),
        }  # fmt: skip
        try:
            with StoreWriter(root, name, mean=mean, std=std, source=record) as writer:
                write_plan(writer, tree, kept, (image, image, channels), progress, resize)
            return [name]
        except BrokenPictures as error:
            broken |= error.found
            progress(f"once more without {counted(len(broken), 'broken picture')}", 0.0)


def _unread(tree: Tree, split: Path | None) -> dict[str, str]:
    """What the tree left out, without the split files that were read."""
    if split is None:
        return tree.left_out
    read = {os.path.realpath(path) for path in (split, *split.glob("*.csv"))}
    return {name: why for name, why in tree.left_out.items() if os.path.realpath(tree.source / name) not in read}


def _left(left_out: dict[str, str], broken: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {
        "skipped": [{"file": file, "reason": broken[file]} for file in sorted(broken)],
        "left_out": [{"name": entry, "reason": reason} for entry, reason in sorted(left_out.items())],
    }


def skipped(store: Store) -> list[tuple[str, str]]:
    """List (file, reason) of the pictures that the import left out because they are broken."""
    return [(entry["file"], entry["reason"]) for entry in store.manifest["source"].get("skipped", [])]


def left_out(store: Store) -> list[tuple[str, str]]:
    """List (name, reason) of all else that the import left out: other files, dead links, classes. Folders end in a slash."""
    return [(entry["name"], entry["reason"]) for entry in store.manifest["source"].get("left_out", [])]
