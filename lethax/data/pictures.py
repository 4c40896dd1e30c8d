"""Pictures: bounded decoding on all cores straight into a store's array.

Threads are enough: Pillow releases the interpreter lock while it decodes and resizes.
"""

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from lethax.data.tree import Blob
from lethax.errors import DataError
from lethax.text import shown

Resize = Literal["crop", "stretch"]
T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, float], None]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF")  # of several pictures in a file, the first
MAX_PIXELS = 100_000_000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_TURNS: dict[Any, Image.Transpose] = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip

_BATCH = 32  # pictures per task: one picture alone costs less than handing it to a thread


class PictureError(Exception):
    """A picture that cannot be decoded, or must not be."""


class BrokenPictures(DataError):
    """Pictures that do not decode. found: the reasons by name."""

    def __init__(self, found: dict[str, str]) -> None:
        name, why = next(iter(found.items()))
        more = f", and {len(found) - 1} more are" if len(found) > 1 else ""
        super().__init__(
            f"picture {shown(name)} is broken ({shown(why)}){more}; copy or download again what is broken."
        )
        self.found = found


def statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation to normalise by: ImageNet's for colour, a half each for gray."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))


def decode(blob: Blob, image: int, channels: int = 3, resize: Resize = "crop") -> np.ndarray:
    """A picture as [image, image, channels] uint8; PictureError for anything broken or over MAX_PIXELS."""
    try:
        with _open(blob) as picture:
            _draft(picture, 2 * image)
            upright = _flatten(_upright(picture), channels)
            pixels = np.asarray(_resized(upright, image, resize))
    except PictureError:
        raise
    except Exception as error:  # hostile files make Pillow's parsers raise nearly anything
        raise PictureError(_reason(error)) from error
    return pixels.reshape(image, image, channels)


def _open(blob: Blob) -> Image.Image:
    picture = Image.open(blob if isinstance(blob, Path) else io.BytesIO(blob), formats=FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise PictureError(f"{picture.width} x {picture.height} pixels, over {MAX_PIXELS // 10**6} megapixels")
    if picture.mode == "F":
        raise PictureError("floating-point pixels")
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its orientation tag says. The tag alone is read: damage elsewhere in the metadata matters to nobody here."""
    picture.load()
    try:
        turn = _TURNS.get(picture.getexif().get(0x0112))
    except Exception:  # parsers of metadata raise nearly anything, and the pixels are whole
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _draft(picture: Image.Image, side: int) -> None:
    """Let the JPEG decoder halve a large picture as long as its shorter side keeps `side` pixels."""
    short = min(picture.size)
    if picture.format == "JPEG" and short > side:
        picture.draft(None, (picture.width * side // short, picture.height * side // short))


def _flatten(picture: Image.Image, channels: int) -> Image.Image:
    """Gray or RGB; what is transparent becomes white."""
    mode = "L" if channels == 1 else "RGB"
    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip them
        picture = Image.fromarray((np.clip(np.asarray(picture), 0, 65535) >> 8).astype(np.uint8))
    if picture.mode != mode and picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == mode else picture.convert(mode)


def _resized(picture: Image.Image, image: int, resize: Resize) -> Image.Image:
    if picture.size == (image, image):
        return picture
    width, height = picture.size
    if resize == "stretch":
        box = (0.0, 0.0, float(width), float(height))
    else:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return picture.resize((image, image), Image.Resampling.BICUBIC, box, reducing_gap=3.0)


def _reason(error: Exception) -> str:
    """What goes into the manifest: no path and no address of an object."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, WebP, BMP, PPM, GIF or TIFF picture"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def resize_array(pixels: np.ndarray, image: int) -> np.ndarray:
    """Decoded pictures [n, H, W, 3] as [n, image, image, 3]; the same array where nothing is to be done."""
    if pixels.shape[1:3] == (image, image):
        return pixels
    return np.stack([np.asarray(_resized(Image.fromarray(one), image, "stretch")) for one in pixels])


def fill(
    out: np.ndarray,
    jobs: Iterable[tuple[int, str, Blob]],
    progress: Progress,
    label: str,
    resize: Resize = "crop",
) -> None:
    """Decode pictures (row, name, content) into rows of `out`; BrokenPictures, after all others, names those that do not decode."""
    total, image, _, channels = out.shape

    def work(batch: list[tuple[int, str, Blob]]) -> dict[str, str]:
        broken = {}
        for row, name, blob in batch:
            try:
                out[row] = decode(blob, image, channels, resize)
            except PictureError as error:
                broken[name] = str(error)
        return broken

    found = {name: why for broken in _parallel(work, jobs, total, progress, label) for name, why in broken.items()}
    if found:
        raise BrokenPictures(found)


def _parallel(
    work: Callable[[list[T]], R], jobs: Iterable[T], total: int, progress: Progress, label: str
) -> Iterator[R]:
    """The results of `work` over batches of `jobs`, in order, with only a few batches held at a time."""
    jobs, cores = iter(jobs), os.cpu_count() or 1
    waiting: deque[Future[R]] = deque()
    done = 0
    with _quiet(), ThreadPoolExecutor(cores) as pool:
        try:
            while batch := list(islice(jobs, _BATCH)):
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 3 * cores:
                    yield waiting.popleft().result()
                    done += _BATCH
                    progress(label, min(done / total, 1.0))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    progress(label, 1.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of odd metadata and of sizes that are checked here anyway; entered once around all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
