"""Import of a folder (or archive) of class folders with pictures into a store."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lethax.data.pictures import SYNONYMS, Progress, Resize, Tree, fill, find_broken, statistics
from lethax.data.store import Store, StoreWriter
from lethax.errors import DataError

SPLITS = ("train", "val", "test")

Classes = dict[str, list[str]]  # class: names of its pictures
Plan = dict[str, Classes]  # split: classes


def class_folders(tree: Tree) -> tuple[Plan | None, Classes, list[str]]:
    """(plan of nested train/val/test folders or None, flat class folders, pictures in no class folder)."""
    files = [(short.split("/"), name) for short, name in tree.below_top().items()]
    tops = {parts[0].lower() for parts, _ in files if len(parts) > 2}
    nested = "train" in tops and bool(tops & {"test", "val", "valid", "validation"})
    plan: Plan = {}
    flat: Classes = {}
    loose: list[str] = []
    for parts, name in files:
        split = SYNONYMS.get(parts[0].lower()) if nested and len(parts) > 2 else None
        if split:
            plan.setdefault(split, {}).setdefault(parts[1], []).append(name)
        elif nested or len(parts) < 2:  # beside the split or class folders
            loose.append(name)
        else:
            flat.setdefault(parts[0], []).append(name)
    return plan if nested else None, flat, loose


def label_files(tree: Tree, texts: Mapping[str, str]) -> Plan:
    """The plan of per-split CSV texts with the columns filename and label."""
    by_path = tree.below_top()
    by_name: dict[str, list[str]] = {}
    for name in tree.pictures:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    plan: Plan = {}
    missing: list[str] = []
    taken: set[str] = set()
    for split, text in texts.items():
        for filename, label in read_columns(text, f"{split}.csv", ("filename", "label")):
            exact = by_path.get(filename) or by_path.get(f"{label}/{filename}")
            alike = [exact] if exact else by_name.get(PurePosixPath(filename).name, [])
            if not alike:
                missing.append(filename)
                continue
            found = alike[0]
            if len(alike) > 1 or found in taken:
                what = f"the name of {len(alike)} pictures" if len(alike) > 1 else "listed before"
                raise DataError(f"{filename} of {split}.csv is {what}; list each picture once, with its folder.")
            taken.add(found)
            plan.setdefault(split, {}).setdefault(label, []).append(found)
    if missing:
        raise DataError(
            f"{len(missing)} pictures of the CSV files are missing, the first being {missing[0]}; "
            f"put them below {tree.source}."
        )
    return plan


def read_columns(text: str, name: str, columns: tuple[str, str]) -> list[tuple[str, str]]:
    """Two columns of a CSV text; a spreadsheet's byte-order mark is dropped."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    if not set(columns) <= set(reader.fieldnames or ()):
        raise DataError(f"{name} has the columns {reader.fieldnames}; it needs {columns[0]} and {columns[1]}")
    return [(row[columns[0]] or "", row[columns[1]] or "") for row in reader]


def assign(classes: Classes, wanted: Mapping[str, Iterable[str]], source: str) -> Plan:
    """The plan that gives each split its listed classes; DataError names what is missing."""
    plan = {split: {name: classes.get(name, []) for name in names} for split, names in wanted.items()}
    missing = [name for split in plan.values() for name, names in split.items() if not names]
    if missing:
        raise DataError(
            f"{source} has no pictures of {len(missing)} listed classes ({_some(missing)}); add their folders."
        )
    return plan


def check_disjoint(plan: Plan) -> None:
    """DataError if a class is in two splits, or there is nothing to train on."""
    if not plan.get("train"):
        raise DataError("no class is left for the split 'train'; add class folders with pictures.")
    count = Counter(name for classes in plan.values() for name in classes)
    twice = sorted(name for name, n in count.items() if n > 1)
    if twice:
        raise DataError(f"{_some(twice)} in more than one split; few-shot splits must not share classes.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def write_plan(
    writer: StoreWriter,
    tree: Tree,
    plan: Plan,
    shape: tuple[int, int, int],
    progress: Progress,
    resize: Resize = "crop",
    superclass: Callable[[str], str] = lambda name: "",
) -> None:
    """Decode all pictures of a plan into the splits of a store, classes in the plan's order."""
    for split in (split for split in SPLITS if plan.get(split)):
        classes = plan[split]
        out = writer.split(split, shape, [(name, superclass(name), len(names)) for name, names in classes.items()])
        rows = {name: row for row, name in enumerate(name for names in classes.values() for name in names)}
        fill(out, ((rows[name], name, blob) for name, blob in tree.blobs(rows)), progress, f"{split} pictures", resize)


def _plan(
    tree: Tree, split: Path | None, seed: int, fractions: tuple[float, float, float]
) -> tuple[Plan, str, list[str]]:
    """(plan, the rule it follows, what it leaves out)."""
    if split is not None and split.is_dir():
        texts = {part: _text(split / f"{part}.csv") for part in SPLITS if (split / f"{part}.csv").is_file()}
        return label_files(tree, texts), f"label files {split.name}", []
    nested, flat, loose = class_folders(tree)
    if split is not None:
        classes = flat or {name: names for part in (nested or {}).values() for name, names in part.items()}
        plan = assign(classes, read_split(split), str(tree.source))
        listed = {name for part in plan.values() for name in part}
        return plan, f"file {split.name}", loose + sorted(name for name in classes if name not in listed)
    if nested is not None:
        return nested, "folders", loose
    return _seeded(flat, seed, fractions, tree.source), f"seed {seed}, fractions {fractions}", loose


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a JSON or CSV file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text; give a JSON or CSV file.") from error


def read_split(path: Path) -> dict[str, list[str]]:
    """{split: classes} of a JSON file or of a CSV file with the columns class and split."""
    text = _text(path)
    if path.suffix.lower() == ".csv":
        found: dict[str, list[str]] = {}
        for name, part in read_columns(text, path.name, ("class", "split")):
            found.setdefault(part.strip(), []).append(name)
    else:
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f'{path} is not JSON ({error}); write {{"train": ["class", ...], ...}}') from error
    shaped = isinstance(found, dict) and all(isinstance(names, list) for names in found.values())
    if not shaped or not all(isinstance(name, str) for names in found.values() for name in names):
        raise DataError(f'{path} does not list classes by split; write {{"train": ["class", ...], ...}}')
    if not set(found) <= set(SYNONYMS):
        raise DataError(f"{path} has the splits {', '.join(found)}; they must be train, val and test.")
    plan = {SYNONYMS[split]: list(dict.fromkeys(names)) for split, names in found.items()}
    if len(plan) < len(found):
        raise DataError(f"{path} lists a split under two names ({', '.join(found)}); keep train, val and test.")
    return plan


def _seeded(classes: Classes, seed: int, fractions: tuple[float, float, float], source: Path) -> Plan:
    if min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"the fractions {fractions} must be positive for train, not negative, and sum to one.")
    used = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    if len(classes) < len(used):
        raise DataError(
            f"{source} has {len(classes)} class folders with pictures, but {len(used)} splits need one each; "
            "give a folder with one folder per class."
        )
    order = [sorted(classes)[i] for i in np.random.default_rng(seed).permutation(len(classes))]
    sizes = {split: max(1, round(fractions[SPLITS.index(split)] * len(order))) for split in used}
    while sum(sizes.values()) > len(order):  # rounding up took one too many
        sizes[max(sizes, key=lambda split: sizes[split])] -= 1
    sizes["train"] += len(order) - sum(sizes.values())
    ends = np.cumsum([0, *sizes.values()])
    return {
        split: {name: classes[name] for name in sorted(order[ends[i] : ends[i + 1]])} for i, split in enumerate(used)
    }


def _without(plan: Plan, broken: Mapping[str, str]) -> tuple[Plan, list[str]]:
    """The plan without broken pictures, and the classes that have no other."""
    kept = {
        split: {name: [picture for picture in names if picture not in broken] for name, names in classes.items()}
        for split, classes in plan.items()
    }
    dropped = sorted(name for classes in kept.values() for name, names in classes.items() if not names)
    return {split: {n: names for n, names in classes.items() if names} for split, classes in kept.items()}, dropped


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
    """Write the store `name` from class folders; broken pictures are skipped and listed (see `skipped`).

    split: a JSON file {"train": [class, ...], ...}, a CSV file with columns class and split, or a folder of
    train.csv, val.csv and test.csv with columns filename and label. Without it nested train/val/test folders
    decide, or else `seed` and `fractions`.
    """
    if channels not in (1, 3) or image < 1:
        raise DataError(
            f"pictures of {image} pixels and {channels} channels were asked for; expected at least 1 pixel, and 1 or 3 channels."
        )
    tree = Tree(source)
    plan, rule, ignored = _plan(tree, split, seed, fractions)
    check_disjoint(plan)
    jobs = [picture for classes in plan.values() for names in classes.values() for picture in names]
    broken = find_broken(tree.blobs(jobs), len(jobs), progress, "checking pictures")
    if broken:
        progress(f"skipping {len(broken)} broken pictures", 1.0)
    kept, dropped = _without(plan, broken)
    if not kept.get("train"):
        raise DataError(f"none of the {len(jobs)} pictures of {source} can be decoded for 'train'; check the files.")
    record: dict[str, Any] = {
        "kind": "folder",
        "folder": source.resolve().name,
        "split": rule,
        "image": image,
        "resize": resize,
        "skipped": [{"file": file, "reason": broken[file]} for file in sorted(broken)],
        "dropped_classes": dropped,
        "ignored": ignored,
    }
    mean, std = statistics(channels)
    with StoreWriter(root, name, mean=mean, std=std, source=record) as writer:
        write_plan(writer, tree, kept, (image, image, channels), progress, resize)
    return [name]


def skipped(store: Store) -> list[tuple[str, str]]:
    """(file, reason) of the pictures that the import left out as broken."""
    return [(entry["file"], entry["reason"]) for entry in store.manifest["source"].get("skipped", [])]
