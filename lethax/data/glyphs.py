"""The built-in data set: printed characters of many scripts, drawn from the DejaVu fonts that matplotlib ships.

A class is a character, its superclass the script, and the splits share no script. Each picture is a dark
stroke on white under a random font face, weight, affine map and blur, all of which follow from one seed.
"""

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lethax.data.store import open_store
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, did_you_mean
from lethax.text import counted

VERSION = 1
PICTURES = 20

# The first face covers every script below; the others join in where they have the character.
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
)

# script: (split, inclusive ranges of code points)
SCRIPTS: dict[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "Latin": (
        "train",
        ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x2AF), (0x1D00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF)),
    ),
    "Greek": ("test", ((0x370, 0x3FF),)),
    "Cyrillic": ("val", ((0x400, 0x52F), (0xA640, 0xA69F))),
    "Armenian": ("test", ((0x530, 0x58F),)),
    "Georgian": ("test", ((0x10A0, 0x10FF), (0x2D00, 0x2D2F))),
    "Hebrew": ("test", ((0x590, 0x5FF),)),
    "Arabic": ("train", ((0x600, 0x6FF),)),
    "N'Ko": ("test", ((0x7C0, 0x7FF),)),
    "Lao": ("test", ((0xE80, 0xEFF),)),
    "Canadian syllabics": ("train", ((0x1400, 0x167F),)),
    "Ogham": ("test", ((0x1680, 0x169F),)),
    "Tifinagh": ("test", ((0x2D30, 0x2D7F),)),
    "Lisu": ("test", ((0xA4D0, 0xA4FF),)),
    "Old Italic": ("test", ((0x10300, 0x1032F),)),
    "Digits and punctuation": ("train", ((0x21, 0x40), (0x5B, 0x60), (0x7B, 0xBF), (0x2010, 0x205E))),
    "Currency and letterlike symbols": ("val", ((0x20A0, 0x214F), (0x2183, 0x2184))),
    "Mathematical operators": ("train", ((0x2200, 0x22FF), (0x27C0, 0x27EF), (0x2980, 0x2AFF))),
    "Arrows": ("train", ((0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2B00, 0x2B4F))),
    "Geometric shapes": ("val", ((0x25A0, 0x25FF),)),
    "Box drawing": ("val", ((0x2500, 0x257F),)),
    "Braille": ("train", ((0x2800, 0x28FF),)),
}
_SYMBOLS = tuple(SCRIPTS)[tuple(SCRIPTS).index("Digits and punctuation") :]
SPLITS = ("train", "val", "test")

_DRAWN = 64  # font size at which a character is drawn before it is mapped to the picture
_SAME = 0.40  # characters whose plain renders differ by less (relative L2) are one class


@dataclass(frozen=True)
class Glyph:
    """One character of one script."""

    char: str
    script: str
    split: str

    @property
    def name(self) -> str:
        return f"U+{ord(self.char):04X} {unicodedata.name(self.char)}"


class _Fonts:
    """The font faces, with the characters that each of them really has."""

    def __init__(self) -> None:
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        paths = [folder / f"{face}.ttf" for face in FACES]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{folder} has no {', '.join(missing)}; reinstall matplotlib, which ships the fonts.")
        self.chars = [frozenset(FT2Font(str(path)).get_charmap()) for path in paths]
        # BASIC layout: the same picture whether or not Raqm is installed
        self.faces = [ImageFont.truetype(str(p), _DRAWN, layout_engine=ImageFont.Layout.BASIC) for p in paths]

    def having(self, char: str) -> list[int]:
        return [i for i, chars in enumerate(self.chars) if ord(char) in chars]

    def ink(self, char: str, face: int = 0, weight: int = 0) -> Image.Image | None:
        """Draw a character white on black, cropped to its ink. Weight -1 is thinner, 1 and 2 are bolder."""
        stroke = max(weight, 0)
        left, top, right, bottom = self.faces[face].getbbox(char, stroke_width=stroke)
        drawn = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
        pen = ImageDraw.Draw(drawn)
        pen.text((2 - left, 2 - top), char, fill=255, font=self.faces[face], stroke_width=stroke)
        if weight < 0:
            thin = drawn.filter(ImageFilter.MinFilter(3))
            # a hairline would break into crumbs, so it keeps its weight
            drawn = thin if _mean(thin) > 0.5 * _mean(drawn) else drawn
        box = drawn.getbbox()
        return drawn.crop(box) if box else None


def _mean(picture: Image.Image) -> float:
    return float(np.asarray(picture).mean())


Linear = tuple[float, float, float, float]


def _place(ink: Image.Image, size: int, linear: Linear, shift: tuple[float, float] = (0.0, 0.0)) -> Image.Image:
    """Draw `ink` under the map `linear` (in half pixels of the picture), centred and shifted, white on black."""
    a, b, c, d = linear
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    x, y = size + 2 * shift[0], size + 2 * shift[1]
    data = (a, b, ink.width / 2 - a * x - b * y, c, d, ink.height / 2 - c * x - d * y)
    fine = ink.transform((2 * size, 2 * size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return fine.reduce(2)


def _fit(ink: Image.Image, size: int) -> float:
    """The scale at which the longer side takes 21 of 28 pixels. Small marks are enlarged only up to a bound."""
    return min(2 * size * 0.75 / max(ink.width, ink.height), 2.5 * size / _DRAWN)


def _plain(ink: Image.Image, size: int) -> np.ndarray:
    fit = _fit(ink, size)
    return np.asarray(_place(ink, size, (fit, 0.0, 0.0, fit)), np.float32) / 255


def _boldest(ink: Image.Image) -> int:
    """The largest weight at which the strokes of a character do not run into each other."""
    cover = 1 - ink.histogram()[0] / (ink.width * ink.height)
    return 2 if cover < 0.3 and min(ink.size) > 24 else 1 if cover < 0.45 and min(ink.size) > 12 else 0


def _pictures(fonts: _Fonts, char: str, size: int, seed: int) -> Iterator[np.ndarray]:
    """Draw random pictures of a character, dark on white, each uint8 [size, size]."""
    plain = {face: ink for face in fonts.having(char) if (ink := fonts.ink(char, face)) is not None}
    boldest = {face: _boldest(ink) for face, ink in plain.items()}
    faces = list(plain)
    # seeded by the character, so that leaving scripts out changes none of the others
    for u in np.random.default_rng((seed, ord(char))).random((PICTURES, 10)).tolist():
        face = faces[int(u[0] * len(faces))]
        weight = int(u[1] * (boldest[face] + 2)) - 1
        ink = plain[face] if weight == 0 else fonts.ink(char, face, weight)
        assert ink is not None  # blank faces were left out
        yield _vary(ink, size, u[2:])


def _vary(ink: Image.Image, size: int, u: Sequence[float]) -> np.ndarray:
    """Vary `ink` by an affine map and a blur, which follow from eight numbers `u` in [0, 1)."""
    angle, shear = math.radians(24 * u[0] - 12), 0.3 * u[1] - 0.15
    scale = _fit(ink, size) * (0.85 + 0.2 * u[2])
    wide, high = scale * (0.92 + 0.16 * u[3]), scale * (0.92 + 0.16 * u[4])
    cos, sin = math.cos(angle), math.sin(angle)
    linear = (cos * wide, (cos * shear - sin) * high, sin * wide, (sin * shear + cos) * high)
    far = 0.11 * size
    placed = _place(ink, size, linear, (far * (u[5] - 0.5), far * (u[6] - 0.5)))
    radius = (u[7] - 0.4) * size / 28
    if radius > 0:  # four in ten stay sharp
        placed = placed.filter(ImageFilter.GaussianBlur(radius))
    return 255 - np.asarray(placed)


def _candidates(fonts: _Fonts, scripts: Sequence[str]) -> Iterator[Glyph]:
    """The characters of the scripts, without compositions of other characters and without punctuation of alphabets."""
    for script in scripts:
        split, ranges = SCRIPTS[script]
        kinds = "LNSP" if script in _SYMBOLS else "LN"
        for point in (point for low, high in ranges for point in range(low, high + 1)):
            char = chr(point)
            usable = unicodedata.category(char)[0] in kinds and not unicodedata.decomposition(char)
            if usable and point in fonts.chars[0]:
                yield Glyph(char, script, split)


def select_glyphs(scripts: Sequence[str] | None = None, classes_limit: int | None = None) -> list[Glyph]:
    """Select the classes: every candidate with ink that looks unlike all candidates before it."""
    return _select(_Fonts(), scripts, classes_limit)


def _select(fonts: _Fonts, scripts: Sequence[str] | None, classes_limit: int | None) -> list[Glyph]:
    scripts = tuple(SCRIPTS) if scripts is None else scripts
    for script in scripts:
        if script not in SCRIPTS:
            raise DataError(f"no script {script!r}; one of {', '.join(SCRIPTS)}.{did_you_mean(script, SCRIPTS)}")
    found: list[Glyph] = []
    renders: list[np.ndarray] = []
    for glyph in _candidates(fonts, scripts):
        ink = fonts.ink(glyph.char)
        if ink is not None:
            found.append(glyph)
            # blurred, so that strokes a pixel apart still count as alike
            renders.append(_plain(ink.filter(ImageFilter.GaussianBlur(2)), 28).ravel())
    chosen = [found[i] for i in _unlike(np.stack(renders))] if renders else []
    if classes_limit is not None and classes_limit < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, classes_limit).astype(int)]
    missing = [split for split in SPLITS if all(glyph.split != split for glyph in chosen)]
    if missing:
        raise DataError(
            f"no characters are left for {', '.join(missing)} with {counted(len(scripts), 'script')} and classes_limit "
            f"{classes_limit}; add scripts of those splits or raise the limit."
        )
    return chosen


def _unlike(renders: np.ndarray) -> list[int]:
    """Find the rows that differ from every kept row before them."""
    norms = np.linalg.norm(renders, axis=1)
    squares = norms[:, None] ** 2 + norms[None] ** 2 - 2 * renders @ renders.T
    alike = squares < (_SAME * np.minimum(norms[:, None], norms[None])) ** 2
    kept: list[int] = []
    for i in range(len(renders)):
        if not alike[i, kept].any():
            kept.append(i)
    return kept


def build_glyphs(
    root: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
    *,
    name: str = "glyphs",
    scripts: Sequence[str] | None = None,
    image: int = 28,
    classes_limit: int | None = None,
    seed: int = 0,
) -> str:
    """Draw the data set into the store `name`, unless it is there already. Returns the name."""
    source = {
        "kind": "glyphs",
        "version": VERSION,
        "font": "DejaVu",
        "scripts": None if scripts is None else list(scripts),
        "image": image,
        "classes_limit": classes_limit,
        "seed": seed,
    }
    if _built(name, root, source):
        return name
    fonts = _Fonts()
    glyphs = _select(fonts, scripts, classes_limit)
    drawn = 0
    with StoreWriter(root, name, mean=(0.0,), std=(1.0,), source=source) as writer:
        for split in SPLITS:
            of_split = [glyph for glyph in glyphs if glyph.split == split]
            classes = [(glyph.name, glyph.script, PICTURES) for glyph in of_split]
            out = writer.split(split, (image, image, 1), classes)
            for k, glyph in enumerate(of_split):
                out[k * PICTURES : (k + 1) * PICTURES, :, :, 0] = list(_pictures(fonts, glyph.char, image, seed))
                drawn += 1
                if progress is not None:
                    progress(f"drawing {name}", drawn / len(glyphs))
    return name


def _built(name: str, root: Path | None, source: dict[str, Any]) -> bool:
    try:
        return bool(open_store(name, root).manifest["source"] == source)
    except DataError:
        return False  # none yet, or damaged: draw it (again)
