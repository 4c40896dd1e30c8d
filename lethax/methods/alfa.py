"""ALFA, meta-learning with adaptive hyperparameters: a small network sets the rates and decays of every inner step.

    τ = [mean per tensor of w_j ; mean per tensor of g_j],   (a', b') = W₂ relu(W₁ τ + c₁) + c₂
    w_{l,j+1} = (1 − b'_l b_{l,j}) w_{l,j} − a'_l a_{l,j} g_{l,j}

Baik, Choi, Choi, Kim, Lee, NeurIPS 2020, sections 3.2 and 3.3, and its released code. It is an update rule: with L2F's start it is
ALFA + L2F.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lethax.nets import layers
from lethax.records import Weights
from lethax.rules import at_step


@dataclass(frozen=True)
class ALFA:
    """ALFA's rule, for L tensors and J steps. `rate` and `decay` are the first values of a [L, J] and b [L, J].

    If no decay is given, it is 5e-4 · rate, as in the released code. The means of w keep their derivative. With `detached`, as in
    the released code, those of g do not. Differs: the released code keeps values for a step J that is never used. It does not
    document the first values of its two linear layers; ours are PyTorch's defaults.
    """

    rate: float = 0.01
    decay: float | None = None
    detached: bool = True

    @property
    def exact(self) -> bool:
        """True only if a derivative passes through the gradients that are read."""
        return not self.detached

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> dict[str, Any]:
        """`rate` and `decay`, trees like the weights with leaves [J]; `layer0`, `layer1`: 2L → 2L → 2L."""
        inputs = 2 * len(jax.tree.leaves(like))
        first, second = jax.random.split(key)
        decay = 5e-4 * self.rate if self.decay is None else self.decay
        return {
            "rate": jax.tree.map(lambda w: jnp.full((max(steps, 1),), self.rate, w.dtype), like),
            "decay": jax.tree.map(lambda w: jnp.full((max(steps, 1),), decay, w.dtype), like),
            "layer0": layers.uniform_linear(first, inputs, inputs),
            "layer1": layers.uniform_linear(second, inputs, inputs),
        }

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w_{j+1}."""
        leaves, structure = jax.tree.flatten(weights)
        seen = jax.lax.stop_gradient(gradient) if self.detached else gradient
        state = jnp.stack([jnp.mean(leaf) for leaf in (*leaves, *jax.tree.leaves(seen))])
        hidden = jax.nn.relu(params["layer0"]["weight"] @ state + params["layer0"]["bias"])
        made = params["layer1"]["weight"] @ hidden + params["layer1"]["bias"]
        rates = jax.tree.unflatten(structure, list(made[: len(leaves)]))
        decays = jax.tree.unflatten(structure, list(made[len(leaves) :]))

        def move(w: Any, g: Any, made_rate: Any, made_decay: Any, rate: Any, decay: Any) -> Any:
            return (1.0 - made_decay * at_step(decay, step)) * w - made_rate * at_step(rate, step) * g

        return jax.tree.map(move, weights, gradient, rates, decays, params["rate"], params["decay"])
