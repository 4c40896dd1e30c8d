"""Decode a picture of any known format to an array of a given size, within a bound of memory that all threads share."""

import io
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from lethax.data.tree import Blob
from lethax.files import open_plain

Resize = Literal["crop", "stretch"]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are the first that are outside

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF")  # of several pictures in a file, the first
MAX_PIXELS = 100_000_000
DECODE_BYTES = 5 << 28  # that all pictures take which are decoded at the same time
# Bytes a pixel: the picture and its turned and flattened copies, 4 each; and what the decoders of some formats keep beside it.
_BYTES = {"JPEG": 13, "PNG": 13, "BMP": 17, "GIF": 21, "PPM": 21, "WEBP": 25, "TIFF": 25}
_PROGRESSIVE = 8  # bytes a pixel of the whole file: all coefficients
_STRIP = 1 << 20  # pixels that are flattened in one go


_TURNS: dict[Any, Image.Transpose] = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class PictureError(Exception):
    """The error of a picture that cannot be decoded, or is refused."""


class PixelRoom:
    """Bytes of memory that threads share. A thread that needs more than are left waits until others are done."""

    def __init__(self, size: int) -> None:
        self.size = self._left = size
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


_room = PixelRoom(DECODE_BYTES)


def decode(blob: Blob, image: int, channels: int = 3, resize: Resize = "crop") -> np.ndarray:
    """Decode a picture to uint8 [image, image, channels]. PictureError if it is broken or has more than MAX_PIXELS."""
    with _read(blob, 2 * image) as picture:
        pixels = np.asarray(_resized(_flatten(_upright(picture), channels), image, resize))
    return pixels.reshape(image, image, channels)


def cuts(blob: Blob, boxes: Sequence[Box | None], image: int) -> np.ndarray:
    """Cut boxes (left, top, right, bottom) out of a picture and scale each by `aligned` to uint8 [boxes, image, image, 3].

    None is the whole picture; of a box what lies outside the picture is left out. The picture is taken as it is stored: its
    orientation tag is not read. PictureError if it is broken, or a box has no pixel.
    """
    with _read(blob, None) as picture:
        picture.load()
        pixels = np.asarray(_flatten(picture, 3))
        return np.stack([aligned(_cut(pixels, box), image) for box in boxes])


def _cut(pixels: np.ndarray, box: Box | None) -> np.ndarray:
    if box is None:
        return pixels
    left, top, right, bottom = (max(place, 0) for place in box)
    found = pixels[top:bottom, left:right]
    if not found.size:
        raise PictureError(f"the box {list(box)} has no pixel of its {pixels.shape[1]} x {pixels.shape[0]}")
    return found


def aligned(pixels: np.ndarray, image: int) -> np.ndarray:
    """Scale uint8 [..., h, w, c] to [..., image, image, c] by bilinear interpolation between pixels, with aligned corners.

        y_i = i (h − 1) / (image − 1)

    The corners of both grids are the same points, and nothing is averaged where pictures are made smaller, as in TensorFlow 1.
    Differs: the result is rounded to whole numbers.
    """
    (top, bottom, down), (left, right, across) = (_between(n, image) for n in pixels.shape[-3:-1])
    across, down = across[:, None], down[:, None, None]

    def row(places: np.ndarray) -> np.ndarray:
        lines = pixels[..., places, :, :]
        begin = lines[..., left, :].astype(np.float32)
        return begin + (lines[..., right, :] - begin) * across

    upper = row(top)
    mixed: np.ndarray = np.rint(upper + (row(bottom) - upper) * down).astype(np.uint8)
    return mixed


def _between(size: int, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels between which each new one lies, and how far it is from the first to the second."""
    at = np.arange(image, dtype=np.float32) * np.float32((size - 1) / (image - 1) if image > 1 else 0.0)
    first = np.minimum(at.astype(np.intp), size - 1)
    return first, np.minimum(first + 1, size - 1), at - first


@contextmanager
def _read(blob: Blob, draft: int | None) -> Iterator[Image.Image]:
    """Open a picture, whose header was checked, with the memory that decoding takes. PictureError for whatever goes wrong.

    draft: a JPEG may be decoded at a smaller size whose shorter side has at least that many pixels; None: at its own.
    """
    try:
        with _opened(blob) as file, Image.open(file, formats=FORMATS) as picture:
            _check(picture)
            whole = picture.width * picture.height
            if draft is not None:
                _draft(picture, draft)
            need = _need(picture, whole, file.seek(0, os.SEEK_END))
            if need > _room.size:
                raise PictureError(f"decoding it takes {need >> 20} MiB of memory, over {_room.size >> 20}")
            with _room.take(need):
                yield picture
    except PictureError:
        raise
    except Exception as error:  # hostile files make Pillow's parsers raise nearly anything
        raise PictureError(_reason(error)) from error


def _opened(blob: Blob) -> IO[bytes]:
    return open_plain(blob) if isinstance(blob, Path) else io.BytesIO(blob)


def _check(picture: Image.Image) -> None:
    """Check a picture by its header alone, before any memory is taken."""
    tile = getattr(picture, "tag_v2", {})  # of a TIFF: the size of a tile, which may be larger than the picture
    sides = [picture.size, (tile.get(322, 1), tile.get(323, 1))]
    for width, height in sides:
        if width * height > MAX_PIXELS:
            raise PictureError(_too_many(f"{width} x {height} pixels"))
    if picture.mode == "F":
        raise PictureError("floating-point pixels")


def _too_many(pixels: str) -> str:
    return f"{pixels}, over {MAX_PIXELS // 10**6} megapixels"


def _need(picture: Image.Image, whole: int, encoded: int) -> int:
    """The most bytes that decoding takes. `whole` are the pixels before a JPEG is drafted, `encoded` the bytes of the file."""
    need = picture.width * picture.height * _BYTES[str(picture.format)] + encoded
    return need + whole * _PROGRESSIVE if picture.format == "JPEG" and picture.info.get("progressive") else need


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its orientation tag says. Only this tag is read, because other metadata may be damaged."""
    picture.load()
    try:
        turn = _TURNS.get(picture.getexif().get(0x0112))
    except Exception:  # parsers of metadata raise nearly anything, and the pixels are whole
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _draft(picture: Image.Image, side: int) -> None:
    """Let the JPEG decoder halve a large picture for as long as its shorter side has at least `side` pixels."""
    short = min(picture.size)
    if picture.format == "JPEG" and short > side:
        picture.draft(None, (picture.width * side // short, picture.height * side // short))


def _flatten(picture: Image.Image, channels: int) -> Image.Image:
    """Convert to gray or RGB, with white where it is transparent. It goes by strips, because intermediate steps take memory."""
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == mode:
        return picture
    flat = Image.new(mode, picture.size)
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        box = (0, top, picture.width, min(top + rows, picture.height))
        flat.paste(_flat(picture.crop(box), mode), box)
    return flat


def _flat(strip: Image.Image, mode: str) -> Image.Image:
    if strip.mode.startswith("I"):  # 16 bits: Pillow would clip them
        strip = Image.fromarray((np.clip(np.asarray(strip), 0, 65535) >> 8).astype(np.uint8))
    if strip.mode != mode and strip.has_transparency_data:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return strip if strip.mode == mode else strip.convert(mode)


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
    """The reason that goes into the manifest, without paths and addresses of objects."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, WebP, BMP, PPM, GIF or TIFF picture"
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own check, before ours, which alone knows the number
        pixels = re.search(r"\d+", str(error))
        return _too_many(f"{int(pixels[0]):,} pixels" if pixels else "too many pixels")
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def resize_array(pixels: np.ndarray, example: Sequence[int]) -> np.ndarray:
    """Decoded pictures [n, H, W, 1 or 3] in the size and the channels of `example`, [n, image, image, 1 or 3].

    Colours become gray as in `decode`, and gray becomes three equal channels. Those of that shape are returned as they are.
    """
    image, _, channels = example
    if pixels.shape[1:] == tuple(example):
        return pixels
    plain, mode = pixels[..., 0] if pixels.shape[3] == 1 else pixels, "L" if channels == 1 else "RGB"
    resized = np.stack([np.asarray(_resized(Image.fromarray(one).convert(mode), image, "stretch")) for one in plain])
    return resized.reshape(len(pixels), image, image, channels)
