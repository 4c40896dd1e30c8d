"""Read files that say which class or picture belongs to which split."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from lethax.data.archives import MEMBERS
from lethax.data.layout import Classes, Plan, same
from lethax.data.safe import read_small
from lethax.data.tree import TEXT_BYTES, Tree, split_of
from lethax.errors import DataError, did_you_mean
from lethax.text import counted, shown

SPLITS = ("train", "val", "test")
JSON_LETTERS = 1 << 24  # empty lists take thirty times the memory of their text


def label_files(tree: Tree, texts: Mapping[str, str]) -> Plan:
    """Make a plan from CSV texts, one for each split, with the columns filename and label."""
    by_path = {same(short): name for short, name in tree.below_top().items()}
    by_name: dict[str, list[str]] = {}
    for name in tree.pictures:
        by_name.setdefault(same(PurePosixPath(name).name), []).append(name)
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
                raise DataError(f"{shown(filename)} of {split}.csv is {what}; list each picture once, with its folder.")
            taken.add(found)
            plan.setdefault(split, {}).setdefault(label, []).append(found)
    if missing:
        raise DataError(
            f"the CSV files list {counted(len(missing), 'picture')} that cannot be found, the first being {shown(missing[0])}; "
            f"put them below {tree.source}."
        )
    return plan


def read_columns(text: str, name: str, columns: tuple[str, str]) -> list[tuple[str, str]]:
    """Read two columns of a CSV text, in NFC. The byte-order mark of spreadsheets is dropped."""
    try:
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
        found = reader.fieldnames or ()
        if not set(columns) <= set(found):
            has = shown(", ".join(map(str, found)))
            raise DataError(f"{name} has the columns {has}; it needs {columns[0]} and {columns[1]}.")
        rows = [(same(row[columns[0]] or ""), same(row[columns[1]] or "")) for row in islice(reader, MEMBERS + 1)]
    except csv.Error as error:  # such as a field of over 131 072 characters
        raise DataError(
            f"{name} is no CSV file ({error}); it needs the columns {columns[0]} and {columns[1]}."
        ) from None
    if len(rows) > MEMBERS:
        raise DataError(f"{name} has more than {MEMBERS} lines: it was not read.")
    return rows


def assign(classes: Classes, wanted: Mapping[str, Iterable[str]], source: str) -> Plan:
    """Make a plan that gives each split its listed classes. DataError names what is missing."""
    plan = {split: {same(name): classes.get(same(name), []) for name in names} for split, names in wanted.items()}
    missing = [name for split in plan.values() for name, names in split.items() if not names]
    if missing:
        raise DataError(
            f"{source} has no pictures of {counted(len(missing), 'listed class')} ({some(missing)});"
            f"{did_you_mean(missing[0], classes)} add their folders."
        )
    return plan


def some(names: list[str]) -> str:
    """Name the first five of a list, and say how many more there are."""
    return ", ".join(shown(name, 60) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def read_text(path: Path) -> str:
    """Read a text in UTF-8. DataError if it is not one."""
    try:
        return read_small(path, TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text; give a JSON or CSV file.") from None


def read_split(path: Path) -> dict[str, list[str]]:
    """Read {split: classes} from a JSON file, or from a CSV file with the columns class and split."""
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        found: dict[str, list[str]] = {}
        for name, part in read_columns(text, path.name, ("class", "split")):
            found.setdefault(part.strip(), []).append(name)
    else:
        try:
            if len(text) > JSON_LETTERS:
                raise ValueError(f"it has {len(text)} letters, more than {JSON_LETTERS}")
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f'{path} is not JSON ({shown(error)}); write {{"train": ["class", ...], ...}}') from None
    shaped = isinstance(found, dict) and all(isinstance(names, list) for names in found.values())
    if not shaped or not all(isinstance(name, str) for names in found.values() for name in names):
        raise DataError(f'{path} does not list classes by split; write {{"train": ["class", ...], ...}}')
    splits = {split: split_of(split) for split in found}
    if None in splits.values():
        raise DataError(f"{path} has the splits {some(list(found))}; they must be train, val and test.")
    if len(set(splits.values())) < len(found):
        raise DataError(f"{path} lists a split under two names ({some(list(found))}); keep train, val and test.")
    return {str(splits[split]): list(dict.fromkeys(map(same, names))) for split, names in found.items()}
