"""Find the class and the split of a picture from its folders. A layout that can be meant in two ways is refused."""

import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from lethax.data.tree import Tree, split_of
from lethax.errors import DataError
from lethax.text import shown

Classes = dict[str, list[str]]  # class: names of its pictures
Plan = dict[str, Classes]  # split: classes
Folder = tuple[str, ...]

_OTHERWISE = "or give the folder whose folders are the classes"


class Layout(NamedTuple):
    """plan: the classes of split folders, or None where there are none. flat: the class folders of all pictures.

    A class is the folder that holds its pictures: "cat", or "Greek/alpha" where folders hold folders. left_out: reasons by picture.
    """

    plan: Plan | None
    flat: Classes
    left_out: dict[str, str]


def same(name: str) -> str:
    """Bring a name into one form (NFC), because letters such as those of "été" can be written in two ways that look alike."""
    return unicodedata.normalize("NFC", name)


def superclass(name: str) -> str:
    """ "Greek" of "Greek/alpha", and the empty string of "cat"."""
    return name.rpartition("/")[0]


def class_folders(tree: Tree, listed: bool = False, otherwise: str = _OTHERWISE) -> Layout:
    """Find split folders and class folders. DataError if they are ambiguous, unless classes are `listed` elsewhere.

    otherwise: what the error says last that can be done.
    """
    folders: dict[Folder, list[str]] = defaultdict(list)
    for short, name in tree.below_top().items():
        folders[tuple(short.split("/")[:-1])].append(name)
    left_out = {name: "it is in no class folder" for name in folders.pop((), [])}
    splits = _splits(folders, tree.source, listed, otherwise)
    by_split: dict[str, dict[Folder, list[str]]] = defaultdict(dict)
    for folder, names in folders.items():
        split = splits.get(folder[0], "") if splits else ""
        inner = folder[1:] if split else folder
        if splits and not (split and inner):
            left_out |= {
                name: "it is in no class folder" if split else "it is beside the split folders" for name in names
            }
        else:
            by_split[split][inner] = names
    if not listed:
        by_split = _one_depth(by_split, tree.source, otherwise)
    plan = {split: _named(inner, tree.source) for split, inner in by_split.items()}
    flat: Classes = defaultdict(list)
    for classes in plan.values():
        for name, pictures in classes.items():
            flat[name] += pictures
    return Layout(plan if splits else None, dict(flat), left_out)


def _splits(folders: dict[Folder, list[str]], source: Path, listed: bool, otherwise: str) -> dict[str, str]:
    """The split of each top folder; empty if the top folders are classes."""
    roles = {folder[0]: split for folder in folders if (split := split_of(folder[0]))}
    found, deep = set(roles.values()), {folder[0] for folder in folders if len(folder) > 1}
    if len(found) < 2 and not deep & set(roles):
        return {}  # a class may be called "test"
    text = ", ".join(shown(top, 40) for top in sorted(roles))
    problem = None
    if len(found) < 2 or "train" not in found:
        problem = "may be a split or classes: give folders for train, val and test, rename the class"
    elif len(found) < len(roles):
        problem = "name a split twice: keep one folder each for train, val and test"
    elif set(roles) - deep:
        problem = (
            f"are splits, but {shown(min(set(roles) - deep), 40)} has no class folders: move pictures to SPLIT/CLASS"
        )
    if problem and not listed:
        raise DataError(f"{source} has the folders {text}, which {problem}, {otherwise}.")
    return {} if problem else roles


def _one_depth(
    by_split: dict[str, dict[Folder, list[str]]], source: Path, otherwise: str
) -> dict[str, dict[Folder, list[str]]]:
    """Class folders without a last folder that all share, as `images` of tiny ImageNet; DataError unless equally deep."""
    every = sorted(
        {folder for inner in by_split.values() for folder in inner}, key=lambda folder: (len(folder), folder)
    )
    if not every:
        return by_split
    first, last = every[0], every[-1]
    if len(first) != len(last):
        raise DataError(
            f"{source} has pictures in '{_text(first)}' and, deeper, in '{_text(last)}': put all pictures of a class into one "
            f"folder, and all class folders at one depth, {otherwise}."
        )
    ends = {folder[-1] for folder in every}
    if len(first) > 1 and len({split_of(end) for end in ends} - {None}) > 1 and all(map(split_of, ends)):
        raise DataError(
            f"{source} has split folders in its classes ('{_text(first)}'): few-shot splits divide the classes, not the "
            "pictures of a class. Put all pictures of a class into one folder."
        )
    if len(first) > 1 and len(every) > 1 and len(ends) == 1:
        return {split: {folder[:-1]: names for folder, names in inner.items()} for split, inner in by_split.items()}
    return by_split


def _named(inner: dict[Folder, list[str]], source: Path) -> Classes:
    classes: Classes = {}
    for folder, names in sorted(inner.items()):
        name = same("/".join(folder))
        if name in classes:
            raise DataError(
                f"{source} has two folders called '{_text(folder)}', written with different code points: keep one of them."
            )
        classes[name] = names
    return classes


def _text(folder: Folder) -> str:
    return shown("/".join(folder), 80)


def alike(names: list[str]) -> list[list[str]]:
    """Find names that differ only in upper and lower case, such as `tiger` and `Tiger`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[name.casefold()].append(name)
    return [group for group in groups.values() if len(group) > 1]
