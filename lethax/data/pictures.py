"""Pictures of a folder or archive: their names, and bounded decoding on all cores straight into a store's array.

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
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lethax.data.archives import Archive
from lethax.errors import DataError

Blob = bytes | Path
Resize = Literal["crop", "stretch"]
T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, float], None]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"})
MAX_PIXELS = 100_000_000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# names under which the folders of splits are known
SYNONYMS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_BATCH = 32  # pictures per task: one picture alone costs less than handing it to a thread


class PictureError(Exception):
    """A picture that cannot be decoded, or must not be."""


def is_picture(name: str) -> bool:
    """Whether a file name is that of a visible picture."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not _hidden(name)


class Tree:
    """The pictures of a folder or an archive: names below the lone folders at its top, and contents."""

    def __init__(self, source: Path) -> None:
        if not source.exists():
            raise DataError(f"{source} does not exist; give the folder or archive that holds the pictures.")
        self.archive, self.source = Archive(source), source
        names = _inside(source) if source.is_dir() else _listed(self.archive)
        self.files = [name for name in names if not _hidden(name)]
        self.pictures = sorted(name for name in self.files if is_picture(name))

    def blobs(self, wanted: Iterable[str]) -> Iterator[tuple[str, Blob]]:
        """Contents of pictures: paths, which the decoding threads read, or bytes in an archive's own order."""
        if self.source.is_dir():
            yield from ((name, self.source / name) for name in wanted)
        else:
            yield from self.archive.items(frozenset(wanted).__contains__)

    def read(self, name: str) -> bytes:
        """The content of one file."""
        if self.source.is_dir():
            return (self.source / name).read_bytes()
        return self.archive.read(name)

    def find(self, basename: str) -> str | None:
        """The file of that name nearest to the top."""
        found = [name for name in self.files if PurePosixPath(name).name == basename]
        return min(found, key=lambda name: (name.count("/"), name), default=None)

    def below_top(self) -> dict[str, str]:
        """Names of pictures without the folders that hold all of them: {short name: name}."""
        parts = [PurePosixPath(name).parts for name in self.pictures]
        depth = 0
        # an archive wraps everything in a folder of its own; a class folder or a split is kept
        while parts and min(map(len, parts)) > depth + 2 and len({p[depth] for p in parts}) == 1:
            if parts[0][depth].lower() in SYNONYMS:
                break
            depth += 1
        return {"/".join(p[depth:]): name for p, name in zip(parts, self.pictures, strict=True)}


def _inside(folder: Path) -> list[str]:
    """Names of all files below a folder; DataError for a link that leads out of it."""
    root, names = folder.resolve(), []
    for at, folders, files in os.walk(folder):
        for entry in (Path(at) / name for name in folders + files):
            if entry.is_symlink() and not entry.resolve().is_relative_to(root):
                raise DataError(f"{entry} is a link out of {folder}; replace it by the file or folder itself.")
        # neither broken links nor pipes, which would block
        found = [Path(at) / name for name in files if (Path(at) / name).is_file()]
        names += [path.relative_to(folder).as_posix() for path in found]
    return names


def _listed(archive: Archive) -> list[str]:
    names: list[str] = []

    def note(name: str) -> bool:
        names.append(name)
        return False  # only listed: nothing is decompressed

    for _ in archive.items(note):
        pass
    return list(dict.fromkeys(names))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation to normalise by: ImageNet's for colour, a half each for gray."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))


def decode(blob: Blob, image: int, channels: int = 3, resize: Resize = "crop") -> np.ndarray:
    """A picture as [image, image, channels] uint8; PictureError for anything broken or over MAX_PIXELS."""
    try:
        with _open(blob) as picture:
            _draft(picture, 2 * image)
            upright = _flatten(ImageOps.exif_transpose(picture), channels)
            pixels = np.asarray(_resized(upright, image, resize))
    except PictureError:
        raise
    except Exception as error:  # hostile files make Pillow's parsers raise nearly anything
        raise PictureError(_reason(error)) from error
    return pixels.reshape(image, image, channels)


def check(blob: Blob) -> None:
    """Read a picture to its end at the least cost; PictureError as from `decode`."""
    try:
        with _open(blob) as picture:
            _draft(picture, 1)
            picture.load()
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(_reason(error)) from error


def _open(blob: Blob) -> Image.Image:
    picture = Image.open(io.BytesIO(blob) if isinstance(blob, bytes) else blob, formats=FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise PictureError(f"{picture.width} x {picture.height} pixels, over {MAX_PIXELS // 10**6} megapixels")
    if picture.mode == "F":
        raise PictureError("floating-point pixels")
    return picture


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
        return "not a JPEG, PNG, WebP, BMP or PPM picture"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def resize_array(pixels: np.ndarray, image: int) -> np.ndarray:
    """Decoded pictures [n, H, W, 3] as [n, image, image, 3]; the same array where nothing is to be done."""
    if pixels.shape[1:3] == (image, image):
        return pixels
    return np.stack([np.asarray(_resized(Image.fromarray(one), image, "crop")) for one in pixels])


def find_broken(jobs: Iterable[tuple[str, Blob]], total: int, progress: Progress, label: str) -> dict[str, str]:
    """The pictures that do not decode, with the reason; in parallel."""

    def work(batch: list[tuple[str, Blob]]) -> list[tuple[str, str]]:
        found = []
        for name, blob in batch:
            try:
                check(blob)
            except PictureError as error:
                found.append((name, str(error)))
        return found

    return dict(entry for found in _parallel(work, jobs, total, progress, label) for entry in found)


def fill(
    out: np.ndarray,
    jobs: Iterable[tuple[int, str, Blob]],
    progress: Progress,
    label: str,
    resize: Resize = "crop",
) -> None:
    """Decode pictures (row, name, content) into rows of `out`; DataError names the first broken one."""
    total, image, _, channels = out.shape

    def work(batch: list[tuple[int, str, Blob]]) -> None:
        for row, name, blob in batch:
            try:
                out[row] = decode(blob, image, channels, resize)
            except PictureError as error:
                raise DataError(f"picture {name} is broken ({error}); copy or download it again.") from error

    for _ in _parallel(work, jobs, total, progress, label):
        pass


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
