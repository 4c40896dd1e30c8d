"""The 4-conv backbone of few-shot learning."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.errors import RecipeError
from lethax.nets import layers
from lethax.records import Mask, Weights


@dataclass(frozen=True)
class Conv4:
    """The 4-conv network: four stages of convolution, batch norm, leaky ReLU and max pooling, and a linear head.

        4 × {conv 3×3, batch norm, leaky ReLU (slope 0.01), max pool 2×2}, flatten, linear

    Arguments:
        way: the number of classes N, which is the number of outputs.
        image: the side of the square images in pixels; every stage halves it, so it has to be at least 2 to the power of `stages`.
        channels: the number of channels: 3 for colour, 1 for grey.
        filters: the channels of every convolution; the released code has 48, the paper 64.
        stages: the number of stages.
        norm_steps: the number of inner steps that have a scale and a shift of their own (MAML++); 0 shares them.
        conv_form: how a convolution is written for the compiler, see `layers.conv`.

    Returns:
        A network. Its weights are `conv0..3/weight` [3, 3, in, filters], `norm0..3/scale` and `shift`, `head/weight`
        [features, way] and `head/bias` [way]: Xavier-uniform kernels, zero biases. `apply(weights, x)` gives logits [n, way] of
        images `x` [n, image, image, channels]; `features(weights, x)` gives what the head reads.

    Raises:
        RecipeError: where the image is too small for the stages.
        DataError: from `apply` and `features`, where images have another shape.

    Source: Baik et al. 2020, supplement E.1.2. Differs: features are flattened in row, column, channel order.

    Example:
        >>> import jax, jax.numpy as jnp, lethax
        >>> net = lethax.Conv4(way=5, image=16, channels=1, filters=4)
        >>> weights = net.init(jax.random.key(0))
        >>> weights["conv0"]["weight"].shape
        (3, 3, 1, 4)
        >>> jax.jit(net.apply)(weights, jnp.zeros((2, 16, 16, 1))).shape
        (2, 5)
    """

    way: int = 5
    image: int = 84
    channels: int = 3
    filters: int = 48
    stages: int = 4
    norm_steps: int = 0
    conv_form: layers.ConvForm = "native"

    def __post_init__(self) -> None:
        if self.image < 2**self.stages:
            raise RecipeError(
                f"image is {self.image}; {self.stages} stages halve it so often, and need {2**self.stages} pixels a side."
            )

    def init(self, key: PRNGKeyArray) -> Weights:
        """Make fresh weights."""
        keys = jax.random.split(key, self.stages + 1)
        weights: Weights = {}
        fan_in, extent = self.channels, self.image
        for stage in range(self.stages):
            weights[f"conv{stage}"] = {"weight": layers.xavier_uniform(keys[stage], (3, 3, fan_in, self.filters))}
            weights[f"norm{stage}"] = layers.norm_weights(self.filters, self.norm_steps)
            fan_in, extent = self.filters, extent // 2
        features = extent * extent * self.filters
        weights["head"] = {
            "weight": layers.xavier_uniform(keys[-1], (features, self.way)),
            "bias": jnp.zeros(self.way),
        }
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
        """Compute the logits [n, way] of images [n, image, image, channels]."""
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
        """Compute what the head reads. DataError if the images have another shape than [image, image, channels]."""
        layers.check_entry(x, (self.image, self.image, self.channels), "make it with their image= and channels=")
        for stage in range(self.stages):
            norm = weights[f"norm{stage}"]
            x = layers.conv(x, weights[f"conv{stage}"]["weight"], self.conv_form)
            x = layers.batch_norm(x, norm["scale"], norm["shift"], step=step, reference=reference, mask=mask)
            x = layers.modulate(x, weights.get("modulation", {}).get(f"norm{stage}"))
            x = layers.leaky_relu(layers.max_pool(x), 0.01)  # pooling first: the same function, a quarter of the work
        return x.reshape(x.shape[0], -1)

    def modulated(self) -> dict[str, int]:
        """A task encoder may modulate the output of every norm."""
        return {f"norm{stage}": self.filters for stage in range(self.stages)}

    def adapted(self, weights: Weights) -> Mask:
        """All weights but those of the norms move."""
        return trees.map_named(lambda name, _: not name.startswith("norm"), weights)

    def normed(self, weights: Weights) -> Mask:
        """The kernels of the convolutions."""
        return trees.map_named(lambda name, _: name.startswith("conv"), weights)

    def head(self, weights: Weights) -> Mask:
        """The last linear layer."""
        return trees.map_named(lambda name, _: name.startswith("head"), weights)
