"""The fully connected net of sinusoid regression."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.nets import layers
from lethax.records import Mask, Weights


@dataclass(frozen=True)
class MLP:
    """A fully connected net: linear layers with ReLU between them. Its weights are `layer0/weight|bias` and so on.

    Weights from a normal of deviation `spread`, cut at two deviations, and zero biases; with spread 0 weights and biases uniform in
    ±1/√inputs, PyTorch's default.
    Source: Baik et al. 2020, Table E: two hidden layers of 40. Differs: the initialisation is not stated there; ours is MAML's.
    """

    inputs: int = 1
    hidden: tuple[int, ...] = (40, 40)
    outputs: int = 1
    spread: float = 0.01

    def init(self, key: PRNGKeyArray) -> Weights:
        """Make fresh weights."""
        widths = (self.inputs, *self.hidden, self.outputs)
        keys = jax.random.split(key, len(widths) - 1)
        if not self.spread:
            made = [layers.uniform_linear(k, *widths[i : i + 2]) for i, k in enumerate(keys)]
            return {f"layer{i}": {"weight": w["weight"].T, "bias": w["bias"]} for i, w in enumerate(made)}
        return {
            f"layer{i}": {
                "weight": self.spread * jax.random.truncated_normal(keys[i], -2.0, 2.0, (widths[i], widths[i + 1])),
                "bias": jnp.zeros(widths[i + 1]),
            }
            for i in range(len(widths) - 1)
        }

    def apply(
        self,
        weights: Weights,
        x: Float[Array, "n i"],
        *,
        step: int | Array = 0,
        reference: int = 0,
        mask: Array | None = None,
    ) -> Float[Array, "n o"]:
        """Compute outputs. DataError unless x has `inputs` entries. Without norms, `step` and `reference` change nothing."""
        last = weights[f"layer{len(self.hidden)}"]
        return layers.linear(self.features(weights, x), last["weight"], last["bias"])

    def features(
        self, weights: Weights, x: Float[Array, "n i"], *, mask: Array | None = None
    ) -> Float[Array, "n features"]:
        """Compute what the head reads. DataError unless x has `inputs` entries."""
        layers.check_entry(x, (self.inputs,), "make it with their number as inputs=")
        for i in range(len(self.hidden)):
            x = layers.linear(x, weights[f"layer{i}"]["weight"], weights[f"layer{i}"]["bias"])
            x = jax.nn.relu(layers.modulate(x, weights.get("modulation", {}).get(f"layer{i}")))
        return x

    def modulated(self) -> dict[str, int]:
        """A task encoder may modulate every hidden layer, before its activation."""
        return {f"layer{i}": width for i, width in enumerate(self.hidden)}

    def adapted(self, weights: Weights) -> Mask:
        """All weights move."""
        return jax.tree.map(lambda _: True, weights)

    def head(self, weights: Weights) -> Mask:
        """The last linear layer."""
        return trees.map_named(lambda name, _: name.startswith(f"layer{len(self.hidden)}"), weights)
