"""The policy of meta-reinforcement learning."""

from dataclasses import dataclass
from math import log
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.gaussian import Normal
from lethax.nets import layers
from lethax.records import Mask, Weights

LOWEST_LOG_STD = log(1e-6)


@dataclass(frozen=True)
class GaussianPolicy:
    """a ~ N(f(o), diag(σ²)): f is fully connected, log σ does not depend on the observation and is adapted like the rest.

    Weights `layer0/weight|bias` and so on, Xavier-uniform and 0, and `log_std` [actions], 0 at first; below log 1e-6 it counts as
    that. Baik et al. 2020, Table E(b): two hidden layers of 100, ReLU. Finn et al. 2017 (code): initialisation, log σ.
    """

    observations: int
    actions: int
    hidden: tuple[int, ...] = (100, 100)
    activation: Literal["relu", "tanh"] = "relu"

    def init(self, key: PRNGKeyArray) -> Weights:
        """Make fresh weights."""
        widths = (self.observations, *self.hidden, self.actions)
        weights: Weights = {
            f"layer{i}": {"weight": layers.xavier_uniform(k, widths[i : i + 2]), "bias": jnp.zeros(widths[i + 1])}
            for i, k in enumerate(jax.random.split(key, len(widths) - 1))
        }
        return {**weights, "log_std": jnp.zeros(self.actions)}

    def apply(
        self,
        weights: Weights,
        x: Float[Array, "n o"],
        *,
        step: int | Array = 0,
        reference: int = 0,
        mask: Array | None = None,
    ) -> Normal:
        """The distribution of actions at every observation; DataError where one has not `observations` entries.

        There is no norm, so `step` and `reference` change nothing.
        """
        layers.check_entry(x, (self.observations,), "make it with their number as observations=")
        activate = jax.nn.relu if self.activation == "relu" else jnp.tanh
        for i in range(len(self.hidden)):
            x = activate(layers.linear(x, weights[f"layer{i}"]["weight"], weights[f"layer{i}"]["bias"]))
        last = weights[f"layer{len(self.hidden)}"]
        mean = layers.linear(x, last["weight"], last["bias"])
        return Normal(mean, jnp.maximum(weights["log_std"], LOWEST_LOG_STD))

    def modulated(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def adapted(self, weights: Weights) -> Mask:
        """All weights move, also log σ."""
        return jax.tree.map(lambda _: True, weights)

    def head(self, weights: Weights) -> Mask:
        """The last linear layer and log σ."""
        head = ("log_std", f"layer{len(self.hidden)}/")
        return trees.map_named(lambda name, _: name.startswith(head), weights)
