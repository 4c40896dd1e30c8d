"""The 12-layer residual backbone of few-shot learning."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.errors import DataError
from lethax.nets import layers
from lethax.records import Mask, Weights


@dataclass(frozen=True)
class ResNet12:
    """4 residual blocks of three 3×3 convolutions and a 1×1 shortcut, global average pool, linear.

    `variant` "code": ReLU, 2×2 pools after blocks 1, 2 and (padded by 1) 3, as released. "paper": leaky ReLU 0.01 and a pool
    after each block. Weights: `block0..3/conv0..2|shortcut/weight`, `block0..3/norm0..2|shortcut_norm/scale|shift`, `head/…`.
    Source: Baik et al. 2020, supplement E.1.2 and released code.
    """

    way: int = 5
    channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512)
    variant: Literal["code", "paper"] = "code"
    norm_steps: int = 0
    conv_form: layers.ConvForm = "native"

    @property
    def smallest(self) -> int:
        """The least side of images in pixels, of which the pools leave one."""
        least = 1
        for block in reversed(range(len(self.widths))):
            if self._pooled(block):
                least = max(2 * (least - self._padding(block)), 1)
        return least

    def init(self, key: PRNGKeyArray) -> Weights:
        """Make fresh weights: Xavier-uniform kernels, zero biases."""
        keys = iter(jax.random.split(key, 4 * len(self.widths) + 1))
        weights: Weights = {}
        fan_in = self.channels
        for block, width in enumerate(self.widths):
            parts: Weights = {}
            for i in range(3):
                fan = fan_in if i == 0 else width
                parts[f"conv{i}"] = {"weight": layers.xavier_uniform(next(keys), (3, 3, fan, width))}
                parts[f"norm{i}"] = layers.norm_weights(width, self.norm_steps)
            parts["shortcut"] = {"weight": layers.xavier_uniform(next(keys), (1, 1, fan_in, width))}
            parts["shortcut_norm"] = layers.norm_weights(width, self.norm_steps)
            weights[f"block{block}"] = parts
            fan_in = width
        weights["head"] = {"weight": layers.xavier_uniform(next(keys), (fan_in, self.way)), "bias": jnp.zeros(self.way)}
        return weights

    def apply(
        self,
        weights: Weights,
        x: Float[Array, "n *image"],
        *,
        step: int | Array = 0,
        reference: int = 0,
        mask: Array | None = None,
    ) -> Float[Array, "n way"]:
        """Compute the logits [n, way] of images."""
        x = self.features(weights, x, step=step, reference=reference, mask=mask)
        return layers.linear(x, weights["head"]["weight"], weights["head"]["bias"])

    def features(
        self,
        weights: Weights,
        x: Float[Array, "n *image"],
        *,
        step: int | Array = 0,
        reference: int = 0,
        mask: Array | None = None,
    ) -> Float[Array, "n features"]:
        """Compute what the head reads. DataError if the images have another number of channels, or are smaller than `smallest`."""
        layers.check_entry(x, (None, None, self.channels), "make it with their channels=")
        if min(x.shape[1:3]) < self.smallest:
            raise DataError(f"images are {min(x.shape[1:3])} px; this net pools them away and needs {self.smallest}.")
        slope = 0.0 if self.variant == "code" else 0.01

        def conv_norm(x: Array, parts: Weights, kernel: str, norm: str) -> Array:
            x = layers.conv(x, parts[kernel]["weight"], self.conv_form)
            return layers.batch_norm(
                x, parts[norm]["scale"], parts[norm]["shift"], step=step, reference=reference, mask=mask
            )

        for block in range(len(self.widths)):
            parts = weights[f"block{block}"]
            y = layers.leaky_relu(conv_norm(x, parts, "conv0", "norm0"), slope)
            y = layers.leaky_relu(conv_norm(y, parts, "conv1", "norm1"), slope)
            y = conv_norm(y, parts, "conv2", "norm2") + conv_norm(x, parts, "shortcut", "shortcut_norm")
            x = layers.leaky_relu(self._pool(y, block), slope)
        return jnp.mean(x, axis=(1, 2))

    def _pool(self, x: Array, block: int) -> Array:
        return layers.max_pool(x, padding=self._padding(block)) if self._pooled(block) else x

    def _pooled(self, block: int) -> bool:
        return self.variant == "paper" or block != 3

    def _padding(self, block: int) -> int:
        return int(self.variant == "code" and block == 2)

    def modulated(self) -> dict[str, int]:
        """None."""
        return {}

    def adapted(self, weights: Weights) -> Mask:
        """All weights but those of the norms move."""
        return trees.map_named(lambda name, _: "norm" not in name, weights)

    def normed(self, weights: Weights) -> Mask:
        """The kernels of the convolutions, shortcuts included."""
        return trees.map_named(lambda name, _: name.startswith("block") and "norm" not in name, weights)

    def head(self, weights: Weights) -> Mask:
        """The last linear layer."""
        return trees.map_named(lambda name, _: name.startswith("head"), weights)
