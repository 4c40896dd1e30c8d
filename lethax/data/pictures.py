"""Pictures: bounded decoding on all cores straight into a store's array.

Threads are enough: Pillow releases the interpreter lock while it decodes and resizes.
"""

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np

from lethax import hardware
from lethax.data.decode import PictureError, Resize, decode
from lethax.data.tree import Blob
from lethax.errors import DataError
from lethax.text import shown

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, float], None]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_BATCH = 32  # pictures per task: one picture alone costs less than handing it to a thread
_BATCH_BYTES = 1 << 24  # of their files, where these are in memory
_HELD_BYTES = 1 << 28  # of the files of all tasks that are under way


class BrokenPictures(DataError):
    """The error of pictures that cannot be decoded. `found` has the reasons by name."""

    def __init__(self, found: dict[str, str]) -> None:
        name, why = next(iter(found.items()))
        more = f", and {len(found) - 1} more are" if len(found) > 1 else ""
        super().__init__(
            f"picture {shown(name)} is broken ({shown(why)}){more}; copy or download again what is broken."
        )
        self.found = found


def statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the deviation that pixels are normalised by: ImageNet's for colour, one half each for gray."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))


def fill(
    out: np.ndarray,
    jobs: Iterable[tuple[int, str, Blob]],
    progress: Progress,
    label: str,
    resize: Resize = "crop",
) -> None:
    """Decode pictures (row, name, content) into rows of `out`. At the end, BrokenPictures names those that cannot be decoded."""
    _, image, _, channels = out.shape
    fill_by(lambda blob: decode(blob, image, channels, resize), out, jobs, progress, label)


def fill_by(
    read: Callable[..., np.ndarray], out: np.ndarray, jobs: Iterable[tuple[Any, ...]], progress: Progress, label: str
) -> None:
    """Write read(*what) of jobs (rows, name, *what) to these rows of `out`. `read` runs on all cores. Errors as in `fill`."""

    def work(batch: list[tuple[Any, ...]]) -> tuple[dict[str, str], int]:
        broken, filled = {}, 0
        for rows, name, *what in batch:
            try:
                found = read(*what)
                out[rows] = found
                filled += found.size
            except PictureError as error:
                broken[name] = str(error)
        return broken, filled

    broken: dict[str, str] = {}
    done = 0
    for found, size in _parallel(work, jobs):
        broken |= found
        done += size
        progress(label, done / out.size)
    progress(label, 1.0)
    if broken:
        raise BrokenPictures(broken)


def _parallel(work: Callable[[list[T]], R], jobs: Iterable[T]) -> Iterator[R]:
    """Yield the results of `work` on batches of `jobs`, in order. Only a few batches are held at a time."""
    cores = hardware.cores()
    waiting: deque[tuple[Future[R], int]] = deque()
    held = 0
    with _quiet(), ThreadPoolExecutor(cores) as pool:
        try:
            for batch, size in _batches(jobs):
                waiting.append((pool.submit(work, batch), size))
                del batch  # its files go with its task
                held += size
                while waiting and (len(waiting) > 3 * cores or held > _HELD_BYTES):
                    future, size = waiting.popleft()
                    yield future.result()
                    held -= size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(jobs: Iterable[T]) -> Iterator[tuple[list[T], int]]:
    """Yield lists of jobs, each for one task, with the bytes of the files that they hold."""
    batch: list[T] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += sum(len(part) for part in cast(tuple[object, ...], job) if isinstance(part, bytes | bytearray))
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns and logs odd metadata, and sizes that are checked here anyway; entered once around all threads."""
    log = logging.getLogger("PIL")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
