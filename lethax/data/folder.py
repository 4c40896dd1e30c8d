"""Import a folder or an archive of class folders with pictures into a store."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.copies import REPORT, Copies, Found, Rule, counts, find_copies, table
from lethax.data.decode import Resize
from lethax.data.fits import WAY
from lethax.data.layout import Classes, Layout, Plan, alike, class_folders, superclass
from lethax.data.pictures import BrokenPictures, Progress, fill, statistics
from lethax.data.split_files import assign, label_files, read_split, read_text, some
from lethax.data.store import SPLITS, Store
from lethax.data.tree import Tree
from lethax.data.twins import BITS
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, RecipeError
from lethax.text import counted, shown

_AT_RANDOM = "seed "  # how the rule of a random split begins in the manifest


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
) -> dict[str, np.ndarray]:
    """Decode all pictures of a plan into the splits of a store, in the plan's order of classes. `above` gives superclasses.

    Returns the array of each split. When all others are decoded, BrokenPictures names those of all splits that cannot be.
    """
    broken: dict[str, str] = {}
    arrays: dict[str, np.ndarray] = {}
    for split in (split for split in SPLITS if plan.get(split)):
        classes = plan[split]
        out = arrays[split] = writer.split(
            split, shape, [(name, above(name), len(names)) for name, names in classes.items()]
        )
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
    return arrays


def _plan(tree: Tree, split: Path | None) -> tuple[Plan | None, str, Layout]:
    """Find (plan, rule that it follows, layout). The plan is None if the classes are to be split at random."""
    if split is not None and split.is_dir():
        texts = {part: read_text(split / f"{part}.csv") for part in SPLITS if (split / f"{part}.csv").is_file()}
        plan = label_files(tree, texts)
        used = {name for classes in plan.values() for names in classes.values() for name in names}
        left = {name: "no label file lists it" for name in tree.pictures if name not in used}
        return plan, f"label files {split.name}", Layout(plan, {}, left)
    layout = class_folders(tree, split is not None, "or say with --split FILE which classes are of which split")
    if split is not None:
        plan = assign(layout.flat, read_split(split), str(tree.source))
        listed = {name for part in plan.values() for name in part}
        left = {f"{name}/": "the split file does not list this class" for name in layout.flat if name not in listed}
        return plan, f"file {split.name}", layout._replace(left_out={**layout.left_out, **left})
    return layout.plan, "folders", layout


def _seeded(classes: Classes, seed: int, fractions: tuple[float, float, float], source: Path, least: int = 2) -> Plan:
    """Split classes at random. Each split has at least `WAY` classes if there are enough for all."""
    if min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"the fractions {fractions} must be positive for train, not negative, and sum to one.")
    used = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    if len(classes) < len(used):
        raise DataError(
            f"{source} has {counted(len(classes), 'class folder')} with at least {least} pictures; each of "
            f"{', '.join(used)} needs one; "
            f"give a folder with one folder per class{_lower(least)}."
        )
    order = [sorted(classes)[i] for i in np.random.default_rng(seed).permutation(len(classes))]
    fewest = min(WAY, len(order) // len(used))
    sizes = {split: max(fewest, round(fractions[SPLITS.index(split)] * len(order))) for split in used}
    while sum(sizes.values()) > len(order):  # rounding up took too many
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    sizes["train"] += len(order) - sum(sizes.values())
    ends = np.cumsum([0, *sizes.values()])
    return {
        split: {name: classes[name] for name in sorted(order[ends[i] : ends[i + 1]])} for i, split in enumerate(used)
    }


def _without(plan: Plan, broken: Collection[str], copies: Collection[str], least: int) -> tuple[Plan, dict[str, str]]:
    """The plan without some pictures, and without classes that then have fewer than `least`, which are named with the reason."""
    kept: Plan = {split: {} for split in plan}
    dropped: dict[str, str] = {}
    for split, classes in plan.items():
        for name, names in classes.items():
            whole = [picture for picture in names if picture not in broken]
            left = [picture for picture in whole if picture not in copies]
            if len(left) >= least:
                kept[split][name] = left
            elif not whole:
                dropped[f"{name}/"] = "all pictures of this class are broken"
            else:
                but = "" if left == whole else " that are no duplicates"
                dropped[f"{name}/"] = (
                    f"this class has {counted(len(left), 'picture')}{but}, and it takes {least} or more"
                )
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
    seed: int | None = None,
    fractions: tuple[float, float, float] = (0.64, 0.16, 0.20),
    resize: Resize = "crop",
    least: int | None = None,
    duplicates: Rule = "report",
    near: int = BITS,
) -> list[str]:
    """Write the store `name` from class folders. What is not read is listed with the reason (see `left_out`).

    A class is the folder that holds its pictures; where folders hold class folders, the class is "folder/class" and the folder
    its superclass. split: a JSON file {"train": [class, ...], ...}, a CSV file with columns class and split, or a folder of
    train.csv, val.csv and test.csv with columns filename and label. Without it split folders decide (train/val/test,
    base/val/novel and their like), or else `seed` (0 unless given) and `fractions`, with five classes a split where there are
    enough; RecipeError for a seed of a split that does not follow from it.
    least: smaller classes are left out; unless given, those of one picture in a random split, and none in other splits.
    duplicates: what is done with pictures that are there more than once, or nearly so (see `twins`): listed in a file of the
    store, left out, or a DataError. near: bits in which their hashes may differ.
    """
    if channels not in (1, 3) or image < 1:
        raise DataError(
            f"pictures of {image} pixels and {channels} channels were asked for; expected at least 1 pixel, and 1 or 3 channels."
        )
    tree = Tree(source)
    plan, rule, layout = _plan(tree, split)
    if plan is not None:
        check_disjoint(plan)
        if seed is not None:
            raise RecipeError(
                f"--seed is {seed}, but the split is that of the {rule}, not a random one: leave --seed out."
            )
    seed = seed or 0
    mean, std = statistics(channels)
    whole, least = {"": layout.flat} if plan is None else plan, least or (2 if plan is None else 1)
    broken: dict[str, str] = {}
    copies = Found([], True, {})
    while True:  # until no picture is broken or superfluous: most often once, and seldom more than twice
        kept, dropped = _without(whole, broken, copies.superfluous, least)
        if dropped and not kept.get("" if plan is None else "train"):
            raise DataError(_nothing(source, broken, dropped, least))
        if plan is None:
            kept, rule = _seeded(kept[""], seed, fractions, source, least), f"{_AT_RANDOM}{seed}, fractions {fractions}"
        record: dict[str, Any] = {
            "kind": "folder", "folder": source.resolve().name, "split": rule, "image": image, "resize": resize,
            **_left({**_unread(tree, split), **layout.left_out, **dropped, **copies.superfluous}, broken),
            "alike": alike([name for classes in kept.values() for name in classes]),
        }  # fmt: skip
        try:
            with StoreWriter(root, name, mean=mean, std=std, source=record) as writer:
                arrays = write_plan(writer, tree, kept, (image, image, channels), progress, resize)
                progress("looking for duplicates", 0.0)
                found = find_copies(kept, arrays, near)
                if found.pairs and duplicates == "error" or found.superfluous and duplicates == "drop":
                    raise Copies(found)
                found = (copies | found).of(kept if plan is None else plan)  # an earlier draw had other splits
                record["duplicates"] = counts(found, duplicates, near)
                writer.report(REPORT, table(found.pairs))
            return [name]
        except BrokenPictures as error:
            broken |= error.found
            progress(f"once more without {counted(len(broken), 'broken picture')}", 0.0)
        except Copies as error:
            if duplicates == "error":
                raise
            copies |= error.found
            progress(f"once more without {counted(len(copies.superfluous), 'duplicate')}", 0.0)


def _nothing(source: Path, broken: Mapping[str, str], dropped: Mapping[str, str], least: int) -> str:
    """Why no class is left to train on."""
    if broken:
        return f"no picture of {shown(source)} for 'train' can be decoded; check the files."
    why = "; ".join(f"{shown(name, 60)}: {why}" for name, why in list(dropped.items())[:3])
    return f"no class of {shown(source)} is left for the split 'train' ({why}); add pictures{_lower(least)}."


def _lower(least: int) -> str:
    """Advice where classes are too small: --least can be lowered to 2."""
    return ", or lower --least" if least > 2 else ""


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


def at_random(store: Store) -> bool:
    """Whether the classes of an import were split at random, so that other classes are split in another way."""
    return str(store.manifest["source"].get("split")).startswith(_AT_RANDOM)


def skipped(store: Store) -> list[tuple[str, str]]:
    """List (file, reason) of the pictures that the import left out because they are broken."""
    return [(entry["file"], entry["reason"]) for entry in store.manifest["source"].get("skipped", [])]


def left_out(store: Store) -> list[tuple[str, str]]:
    """List (name, reason) of all else that the import left out: other files, dead links, classes. Folders end in a slash."""
    return [(entry["name"], entry["reason"]) for entry in store.manifest["source"].get("left_out", [])]
