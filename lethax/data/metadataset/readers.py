"""How the pictures of a source are read, in any of three forms. Each reader says how many there are before it reads one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from lethax.data.decode import Box, aligned, cuts
from lethax.data.metadataset.example import read_example
from lethax.data.metadataset.spec import SPEC, Specified
from lethax.data.metadataset.tfrecord import LEAST_BYTES, records
from lethax.data.tree import Blob
from lethax.errors import DataError
from lethax.text import counted, shown

_AT_ONCE = 256  # pictures that are scaled together


class Chosen(NamedTuple):
    """The pictures of one class that are kept, as places [n] among all of it in rising order; they go to the rows from `row` on."""

    row: int
    name: str
    kept: np.ndarray


class SourceReader(Protocol):
    """counts: the pictures of each class. layout: the form, for the manifest. left_out: what is not read, each with a reason."""

    @property
    def layout(self) -> str: ...

    @property
    def counts(self) -> dict[str, int]: ...

    @property
    def left_out(self) -> dict[str, str]: ...

    def jobs(self, chosen: Sequence[Chosen]) -> Iterator[tuple[Any, ...]]:
        """Yield (rows, name, *what) for `pictures.fill_by`."""

    def read(self, image: int, *what: Any) -> np.ndarray:
        """The pictures of a job, uint8 [..., image, image, 3]."""


@dataclass(frozen=True)
class RecordReader:
    """The records of the benchmark: NUMBER.tfrecords for each class, as `dataset_spec.json` lists them."""

    folder: Path
    specified: dict[str, Specified]
    layout: str = "records"
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {name: one.images for name, one in self.specified.items()}

    def __post_init__(self) -> None:
        """DataError if a file is missing or too short for its records: a damaged specification must not take all memory."""
        for name, (number, images) in self.specified.items():
            path = self.folder / f"{number}.tfrecords"
            if not path.is_file():
                raise DataError(
                    f"{shown(path)} is missing, which has the pictures of {shown(name, 60)}: copy or download it again."
                )
            if (size := path.stat().st_size) < images * LEAST_BYTES:
                raise DataError(
                    f"{shown(path)} has {counted(size, 'byte')}, too few for the {counted(images, 'record')} that {SPEC} says: "
                    "copy or download both again."
                )

    def jobs(self, chosen: Sequence[Chosen]) -> Iterator[tuple[int, str, bytes]]:
        for first, name, kept in chosen:
            number, images = self.specified[name]
            path = self.folder / f"{number}.tfrecords"
            rows = dict(zip(kept.tolist(), range(first, first + len(kept)), strict=True))
            place = -1
            for place, payload in enumerate(records(path, rows)):
                if payload is None:
                    continue
                try:
                    content, label = read_example(payload)
                    if label != number:
                        raise ValueError(f"is labelled {label}, expected {number}")
                except ValueError as error:
                    raise DataError(
                        f"record {place} of {shown(path)} {error}: copy or download the file again."
                    ) from None
                yield rows[place], f"{path.name}, record {place}", content
            if place + 1 != images:
                raise DataError(
                    f"{shown(path)} has {counted(place + 1, 'record')}, but {SPEC} says {images}: copy or download it again."
                )

    def read(self, image: int, content: bytes) -> np.ndarray:
        return cuts(content, [None], image)[0]


class Cut(NamedTuple):
    """A picture: the name of its file, and the box that is cut out of it; None: the whole."""

    file: str
    box: Box | None = None


@dataclass(frozen=True)
class FileReader:
    """Files of pictures. `blobs` gives the contents of named files, in any order; `negative` turns black into white."""

    found: dict[str, list[Cut]]
    blobs: Callable[[Iterable[str]], Iterator[tuple[str, Blob]]]
    left_out: dict[str, str] = field(default_factory=dict)
    negative: bool = False
    layout: str = "files"

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(cuts) for name, cuts in self.found.items()}

    def jobs(self, chosen: Sequence[Chosen]) -> Iterator[tuple[list[int], str, Blob, list[Box | None]]]:
        places: dict[str, list[tuple[int, Box | None]]] = {}
        for first, name, kept in chosen:
            for row, place in enumerate(kept.tolist(), first):
                file, box = self.found[name][place]
                places.setdefault(file, []).append((row, box))
        for file, blob in self.blobs(list(places)):
            if wanted := places.pop(file, None):  # an archive may hold a name twice
                yield [row for row, _ in wanted], file, blob, [box for _, box in wanted]
        if places:
            raise DataError(
                f"{counted(len(places), 'picture')} that the lists name cannot be found, the first being {shown(min(places))}: "
                "give the complete source."
            )

    def read(self, image: int, blob: Blob, boxes: list[Box | None]) -> np.ndarray:
        pixels = cuts(blob, boxes, image)
        return 255 - pixels if self.negative else pixels


@dataclass(frozen=True)
class ArrayReader:
    """Arrays uint8 [n, h, w, 1 or 3], which `opened` gives for each class; `counts` are their lengths."""

    opened: Mapping[str, Callable[[], np.ndarray]]
    counts: dict[str, int]
    left_out: dict[str, str] = field(default_factory=dict)
    layout: str = "files"

    def jobs(self, chosen: Sequence[Chosen]) -> Iterator[tuple[slice, str, np.ndarray]]:
        for first, name, kept in chosen:
            array = self.opened[name]()
            for begin in range(0, len(kept), _AT_ONCE):
                places = kept[begin : begin + _AT_ONCE]
                yield slice(first + begin, first + begin + len(places)), name, array[places]

    def read(self, image: int, pixels: np.ndarray) -> np.ndarray:
        return np.broadcast_to(aligned(pixels, image), (len(pixels), image, image, 3))
