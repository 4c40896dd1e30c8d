"""What is published of the ten sources: their classes in the order of the benchmark, and how the classes hang together.

Source: Triantafillou et al. 2020, and the class lists and specifications of the repository google-research/meta-dataset.
"""

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from lethax.data.store import SPLITS
from lethax.errors import DataError
from lethax.text import counted, shown

ILSVRC_IMAGES = 1_280_764
Entry = str | int


class SourceFacts(NamedTuple):
    """What is published of one source.

    images: how many there are. classes: of each split, in order, by name, or by the number that the name begins with.
    alphabets: the superclass of each class of Omniglot. children: for ILSVRC, of each split, those of each inner node of WordNet.
    duplicates: for ILSVRC, by class, the numbers of pictures that are left out, because other sources have them too.
    """

    images: int
    classes: dict[str, list[Entry]]
    alphabets: dict[str, str]
    children: dict[str, dict[str, list[str]]]
    duplicates: dict[str, list[int]]

    def named(self, found: dict[str, Any], place: str) -> dict[str, list[str]]:
        """The names of the published classes among those `found`, by split. DataError if one is missing."""
        by_number = {int(number): name for name in found if (number := name.partition(".")[0]).isdecimal()}
        names: dict[str, list[str]] = {}
        missing: list[Entry] = []
        for split in SPLITS:
            for entry in self.classes.get(split, []):
                name = by_number.get(entry) if isinstance(entry, int) else entry
                if name is None or name not in found:
                    missing.append(entry)
                else:
                    names.setdefault(split, []).append(name)
        if missing:
            raise DataError(
                f"{place} lacks {counted(len(missing), 'class')} of the published split, the first being "
                f"{shown(missing[0], 60)}: give the complete source."
            )
        return names

    def groups(self, split: str, classes: list[str]) -> dict[str, list[int]]:
        """The classes below each inner node, as places in `classes`; empty where the source has no graph."""
        children, place = self.children.get(split, {}), {name: i for i, name in enumerate(classes)}

        @cache
        def below(node: str) -> frozenset[int]:
            if node not in children:
                return frozenset([place[node]])
            return frozenset().union(*(below(child) for child in children[node]))

        return {node: sorted(below(node)) for node in sorted(children)}


def published(source: str) -> SourceFacts:
    """What is published of a source. CIFAR-100 is none of the ten: all of its classes are for tests."""
    if source == "ilsvrc_2012":
        content = _read("metadataset_ilsvrc_2012")
        children = {
            split: {node: below.split() for node, below in graph.items()}
            for split, graph in content["children"].items()
        }
        leaves = {
            split: sorted({child for below in graph.values() for child in below} - graph.keys())
            for split, graph in children.items()
        }
        return SourceFacts(ILSVRC_IMAGES, leaves, {}, children, content["duplicates"])
    if source == "cifar100":
        names = sorted(name for held in _read("cifar100_superclasses").values() for name in held)
        return SourceFacts(10_000, {"test": list[Entry](names)}, {}, {}, {})
    entry = _read("metadataset")[source]
    if source != "omniglot":
        return SourceFacts(entry["images"], entry["classes"], {}, {}, {})
    classes: dict[str, list[Entry]] = {}
    alphabets: dict[str, str] = {}
    for split, counts in entry["classes"].items():
        for alphabet, count in counts.items():
            names = [f"{alphabet}-character{number:02d}" for number in range(1, count + 1)]
            classes.setdefault(split, []).extend(names)
            alphabets.update(dict.fromkeys(names, alphabet))
    return SourceFacts(entry["images"], classes, alphabets, {}, {})


@cache
def _read(name: str) -> dict[str, Any]:
    text = resources.files("lethax.data").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
