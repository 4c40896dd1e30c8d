"""Import a source of Meta-Dataset, from the records of the benchmark or from the files of the source itself.

Source: Triantafillou et al. 2020. Every source becomes one store of RGB pictures, which `variable_episodes` draws from.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.metadataset.facts import SourceFacts, published
from lethax.data.metadataset.layouts import LAYOUTS
from lethax.data.metadataset.readers import Chosen, RecordReader, SourceReader
from lethax.data.metadataset.spec import SPEC, read_spec
from lethax.data.pictures import Progress, fill_by
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, RecipeError
from lethax.names import METADATASET
from lethax.text import counted, shown

HALF = (0.5, 0.5, 0.5)  # mean and deviation: x = 2 (pixel / 255 − 1/2), between −1 and 1
LEAST = 510  # an episode has at most 500 support examples and ten queries of a class: more pictures change no episode's shape
PICKLED = "dataset_spec.pkl"
KEPT = {"quickdraw": 1000}  # of each class, unless another number is given: all 50 million would fill a terabyte


def prepare_metadataset(
    source: Path, root: Path | None, progress: Progress, *, of: str, image: int = 84, per_class: int | None = None
) -> list[str]:
    """Write the store `metadataset-SOURCE`, whose classes are the published ones in their order.

    Pictures are scaled as a whole, see `decode.aligned`. Differs: the benchmark writes what it cuts, inverts or draws as JPEG once
    more before it scales; here such pictures are scaled as they are.

    of: the name of the source. source: the folder of its records, a folder that holds this one by the name of the source, or the
    files of the source itself. per_class: of larger classes that many pictures are kept, at random by a fixed seed; the shapes of
    episodes are still drawn by the full numbers, which the manifest keeps.
    """
    if per_class is not None and per_class < LEAST:
        raise RecipeError(
            f"--per-class is {per_class}; episodes take up to {LEAST} pictures of a class, so it has to be at least that."
        )
    known, most = published(of), per_class or KEPT.get(of)
    reader = _reader(source, of, known)
    names = known.named(reader.counts, shown(source))
    record = {
        "kind": METADATASET, "source": of, "layout": reader.layout, "image": image, "per_class": most,
        "left_out": [{"name": name, "reason": why} for name, why in _left_out(reader, known, names, source).items()],
    }  # fmt: skip
    with StoreWriter(root, f"metadataset-{of}", mean=HALF, std=HALF, source=record) as writer:
        for split, classes in names.items():
            counts = [reader.counts[name] for name in classes]
            if min(counts) < 2:
                name, count = classes[int(np.argmin(counts))], min(counts)
                raise DataError(
                    f"{shown(source)} has {counted(count, 'picture')} of {shown(name, 60)}; an episode needs two."
                )
            chosen = _chosen(classes, counts, most)
            listed = [(one.name, known.alphabets.get(one.name, ""), len(one.kept)) for one in chosen]
            out = writer.split(split, (image, image, 3), listed, _relations(known, split, classes, counts, chosen))
            fill_by(partial(reader.read, image), out, reader.jobs(chosen), progress, f"{split} pictures")
    return [f"metadataset-{of}"]


def _reader(source: Path, of: str, known: SourceFacts) -> SourceReader:
    """The reader of what is there: records if there is their specification, or else the files of the source."""
    if not source.exists():
        raise DataError(f"{shown(source)} does not exist: give the folder or archive that holds {of}.")
    for folder in (source / of, source):
        if (folder / SPEC).is_file():
            return RecordReader(folder, read_spec(folder / SPEC))
        if (folder / PICKLED).is_file():
            raise DataError(
                f"{shown(folder)} has {PICKLED}, of an old version of the benchmark's software, which was not read, because a "
                f"pickle may run anything: put the published {SPEC} of this source beside its records."
            )
    return LAYOUTS[of](source, known)


def _chosen(classes: list[str], counts: list[int], most: int | None) -> list[Chosen]:
    chosen: list[Chosen] = []
    row = 0
    for number, (name, count) in enumerate(zip(classes, counts, strict=True)):
        kept = np.arange(count)
        if most is not None and count > most:
            kept = np.sort(np.random.default_rng([0, number]).choice(count, most, replace=False))
        chosen.append(Chosen(row, name, kept))
        row += len(kept)
    return chosen


def _relations(
    known: SourceFacts, split: str, classes: list[str], counts: list[int], chosen: list[Chosen]
) -> dict[str, Any]:
    """What the manifest says of the classes of a split beside their names: see `variable_episodes.pool`."""
    found: dict[str, Any] = {}
    if any(len(one.kept) < count for one, count in zip(chosen, counts, strict=True)):
        found["counts"] = counts
    if known.alphabets:
        found["within"] = "superclasses"
    if groups := known.groups(split, classes):
        found["groups"] = groups
    return found


def _left_out(reader: SourceReader, known: SourceFacts, names: dict[str, list[str]], source: Path) -> dict[str, str]:
    """What is not read, and a note if there are not as many pictures as were published."""
    found = dict(reader.left_out)
    taken = {name for classes in names.values() for name in classes}
    for name in reader.counts.keys() - taken:
        found[f"{name}/"] = "the published split has no such class"
    images = sum(reader.counts[name] for name in taken)
    if images != known.images:
        of = f"the {known.images:,} pictures that were published"
        lacks = f"it lacks {known.images - images:,} of {of}"
        found[source.resolve().name] = (
            lacks if images < known.images else f"it has {images:,} pictures in the place of {of}"
        )
    return found
