"""Read `dataset_spec.json`, which lies beside the records of a source: its classes, by number, and how many pictures each has."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from lethax.data.safe import read_small
from lethax.data.split_files import JSON_LETTERS
from lethax.errors import DataError
from lethax.text import shown

SPEC = "dataset_spec.json"
CLASSES = 100_000
_FORMS = {"DatasetSpecification", "BiLevelDatasetSpecification", "HierarchicalDatasetSpecification"}


class Specified(NamedTuple):
    """A class of records: its number, which is also the name of its file, and its pictures."""

    number: int
    images: int


def read_spec(path: Path) -> dict[str, Specified]:
    """The classes of a specification, by name. DataError if it is not of a known form.

    The split and the hierarchy in it are not read, because those that are published come with the package.
    """
    try:
        content = json.loads(read_small(path, JSON_LETTERS))
        return _classes(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(path)} is no specification of a data set ({shown(error)}): copy or download it again."
        ) from None


def _classes(content: Any) -> dict[str, Specified]:
    form = content.get("__class__") if isinstance(content, dict) else None
    if not isinstance(form, str) or form not in _FORMS:
        raise ValueError(f"its __class__ is {shown(form, 60)}, expected one of {', '.join(sorted(_FORMS))}")
    names, images = content.get("class_names"), content.get("images_per_class")
    if not isinstance(names, dict) or not isinstance(images, dict) or len(names) > CLASSES:
        raise ValueError("it has no class_names or no images_per_class")
    if form == "HierarchicalDatasetSpecification":  # by the name of the node, in each split
        by_name = {node: count for part in images.values() if isinstance(part, dict) for node, count in part.items()}
        images = {number: by_name.get(str(name)) for number, name in names.items()}
    found: dict[str, Specified] = {}
    for number, name in names.items():
        count = images.get(number)
        if isinstance(count, dict):  # of each pool
            count = sum(count.values()) if all(type(one) is int for one in count.values()) else None
        if not number.isdecimal() or len(number) > 9 or type(count) is not int or not 0 <= count < 1 << 40:
            raise ValueError(f"class {shown(number, 40)} has {shown(count, 40)} images")
        if not isinstance(name, str) or name in found:
            raise ValueError(f"the name {shown(name, 60)} is that of two classes, or none")
        found[name] = Specified(int(number), count)
    return found
