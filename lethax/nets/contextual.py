"""CAVIA's nets, in which the inner loop moves only a context vector.

    c_{j+1} = c_j − α ∇_c L_D(c_j, θ)

An MLP reads c beside its inputs; a 4-conv gets a scale and a shift of its third stage from it. Zintgraf, Shiarlis, Kurin,
Hofmann, Whiteson 2019. Differs: c_0 starts at 0 and is learned with θ (the paper keeps it at 0); scale and shift start at 1 and 0
for c = 0 and stand before pooling rather than after it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lethax import trees
from lethax.errors import RecipeError
from lethax.nets import layers
from lethax.nets.conv4 import Conv4
from lethax.nets.mlp import MLP
from lethax.records import Mask, Weights

STAGE = "norm2"  # of 4-conv: after it the context scales and shifts


@dataclass(frozen=True)
class Contextual:
    """`net` with a context of `size` values. Weights: the net's own, `context/value`, and `context_map` for a 4-conv."""

    net: MLP | Conv4
    size: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.net, Conv4) and self.net.stages < 3:
            raise RecipeError(
                f"the net has {self.net.stages} stages; its context acts in the third: make it with stages=3 or more."
            )

    def _inside(self) -> MLP | Conv4:
        """The net that reads the context, if the context is an input."""
        if isinstance(self.net, Conv4):
            return self.net
        return MLP(self.net.inputs + self.size, self.net.hidden, self.net.outputs, self.net.spread)

    def init(self, key: PRNGKeyArray) -> Weights:
        """Make fresh weights. The context is 0."""
        of_net, of_map = jax.random.split(key)
        weights = {**self._inside().init(of_net), "context": {"value": jnp.zeros(self.size)}}
        if isinstance(self.net, Conv4):
            made = layers.uniform_linear(of_map, self.size, 2 * self.net.filters)
            made["bias"] = jnp.concatenate([jnp.ones(self.net.filters), jnp.zeros(self.net.filters)])
            weights["context_map"] = made
        return weights

    def apply(
        self, weights: Weights, x: Array, *, step: int | Array = 0, reference: int = 0, mask: Array | None = None
    ) -> Array:
        """Outputs under the context in the weights; DataError where x is not what `net` reads."""
        context = weights["context"]["value"]
        if isinstance(self.net, MLP):
            layers.check_entry(x, (self.net.inputs,), "make it with their number as inputs=")
            x = jnp.concatenate([x, jnp.broadcast_to(context, (x.shape[0], self.size))], axis=-1)
        else:
            factor, shift = jnp.split(weights["context_map"]["weight"] @ context + weights["context_map"]["bias"], 2)
            weights = {**weights, "modulation": {STAGE: {"factor": factor, "shift": shift}}}
        return self._inside().apply(weights, x, step=step, reference=reference, mask=mask)

    def modulated(self) -> dict[str, int]:
        """No layers, because the context is the modulation."""
        return {}

    def adapted(self, weights: Weights) -> Mask:
        """Only the context moves."""
        return trees.map_named(lambda name, _: name == "context/value", weights)

    def head(self, weights: Weights) -> Mask:
        """The last layer of the net, which the inner loop does not move."""
        parts = ("context", "context_map")
        inside = self._inside().head({name: part for name, part in weights.items() if name not in parts})
        return inside | {name: jax.tree.map(lambda _: False, weights[name]) for name in parts if name in weights}
