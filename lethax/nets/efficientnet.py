"""EfficientNet-Lite0, a small network that was trained on ImageNet elsewhere: it makes features, and is not trained here.

    stem, blocks of {expand 1×1, depthwise k×k, project 1×1}, conv 1×1 to 1280, mean over space = features, linear

Each convolution is followed by a batch norm with fixed moments, which is folded into its kernel and a bias:

    κ ← κ g / √(v + ε),   b = β − m g / √(v + ε)

ReLU6 follows all but the projections. A block whose input and output have the same shape adds its input. Tan, Le 2019, without
squeeze-excitation and with ReLU6, as in the Lite variants that were released in 2020.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from lethax.errors import DataError
from lethax.nets import layers
from lethax.records import Weights

_EPS = 1e-3  # ε of the norms


class BlockRow(NamedTuple):
    """A row of the published table: `repeats` blocks, of which the first has the stride and all have `width` channels."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


LITE0 = (
    BlockRow(1, 3, 1, 1, 16), BlockRow(2, 3, 2, 6, 24), BlockRow(2, 5, 2, 6, 40), BlockRow(3, 3, 2, 6, 80),
    BlockRow(3, 5, 1, 6, 112), BlockRow(4, 5, 2, 6, 192), BlockRow(1, 3, 1, 6, 320),
)  # fmt: skip


class _Block(NamedTuple):
    name: str
    kernel: int
    stride: int
    inside: int
    inputs: int
    width: int

    @property
    def expands(self) -> bool:
        return self.inside != self.inputs


@dataclass(frozen=True)
class EfficientNetLite:
    """EfficientNet-Lite: `stem` channels, the blocks of `rows`, `width` features, `classes` outputs."""

    rows: tuple[BlockRow, ...] = LITE0
    stem: int = 32
    width: int = 1280
    classes: int = 1000

    def _blocks(self) -> Iterator[_Block]:
        number, inputs = 0, self.stem
        for row in self.rows:
            for i in range(row.repeats):
                inside = inputs * row.expand
                yield _Block(f"block{number}", row.kernel, row.stride if i == 0 else 1, inside, inputs, row.width)
                number, inputs = number + 1, row.width

    def folded(self, tensors: Mapping[str, np.ndarray]) -> Weights:
        """Make the weights of the released tensors, kernels [out, in, h, w]. DataError where one is missing or of another shape.

        Returns `stem|blockN/…|last` with `weight` [h, w, in, out], depthwise [h, w, channels], and `bias`; and `classes`.
        """
        take = _Taken(tensors)
        weights: Weights = {"stem": take.conv("_conv_stem", "_bn0", (self.stem, 3, 3, 3))}
        for number, block in enumerate(self._blocks()):
            at, inside = f"_blocks.{number}.", block.inside
            made = {}
            if block.expands:
                made["expand"] = take.conv(f"{at}_expand_conv", f"{at}_bn0", (inside, block.inputs, 1, 1))
            depthwise = take.conv(f"{at}_depthwise_conv", f"{at}_bn1", (inside, 1, block.kernel, block.kernel))
            made["depthwise"] = {**depthwise, "weight": depthwise["weight"][:, :, 0]}
            made["project"] = take.conv(f"{at}_project_conv", f"{at}_bn2", (block.width, inside, 1, 1))
            weights[block.name] = made
        weights["last"] = take.conv("_conv_head", "_bn1", (self.width, self.rows[-1].width, 1, 1))
        linear = take.tensor("_fc.weight", (self.classes, self.width)), take.tensor("_fc.bias", (self.classes,))
        weights["classes"] = {"weight": linear[0].T, "bias": linear[1]}
        return weights

    def features(self, weights: Weights, x: Float[Array, "n h w 3"]) -> Float[Array, "n features"]:
        """Compute the features of images, whose sides are multiples of 32. An image's features depend on no other image."""
        x = _relu6(_conv(x, weights["stem"], stride=2))
        for block in self._blocks():
            x = _block(x, weights[block.name], block)
        return jnp.mean(_relu6(_conv(x, weights["last"])), axis=(1, 2))

    def logits(self, weights: Weights, x: Float[Array, "n h w 3"]) -> Float[Array, "n classes"]:
        """Compute the logits of the classes that the network was trained on."""
        return layers.linear(self.features(weights, x), weights["classes"]["weight"], weights["classes"]["bias"])


class _Taken(NamedTuple):
    """The tensors of a file, from which layers are taken."""

    tensors: Mapping[str, np.ndarray]

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor in double precision. DataError unless it is there with that shape, and finite."""
        found = self.tensors.get(name)
        if found is None or found.shape != shape or not np.isfinite(found).all():
            what = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise DataError(
                f"the weights have {what} as {name}; expected finite numbers {list(shape)}: install them again."
            )
        return found.astype(np.float64)

    def conv(self, kernel: str, norm: str, shape: tuple[int, ...]) -> dict[str, Any]:
        """A kernel [h, w, in, out] and a bias [out], with the norm that follows folded in."""
        scale, shift, mean, variance = (
            self.tensor(f"{norm}.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if variance.min() < 0:
            raise DataError(f"the weights have a negative variance in {norm}.running_var: install them again.")
        factor = scale / np.sqrt(variance + _EPS)
        folded = self.tensor(f"{kernel}.weight", shape) * factor[:, None, None, None]
        return {"weight": folded.transpose(2, 3, 1, 0), "bias": shift - mean * factor}


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0.0, 6.0)


def _conv(x: Array, layer: Weights, stride: int = 1) -> Array:
    kernel = layer["weight"]
    around = [layers.same(extent, kernel.shape[0], stride) for extent in x.shape[1:3]]
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=numbers) + layer["bias"]


def _block(x: Array, weights: Weights, block: _Block) -> Array:
    y = _relu6(_conv(x, weights["expand"])) if block.expands else x
    y = _relu6(layers.depthwise(y, weights["depthwise"]["weight"], block.stride) + weights["depthwise"]["bias"])
    y = _conv(y, weights["project"])
    return x + y if block.stride == 1 and block.inputs == block.width else y
