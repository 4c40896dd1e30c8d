"""Rules of the inner loop: how a gradient moves the fast weights.

| rule | w_{j+1} | meta-parameters |
|---|---|---|
| SGD | w − α g | – |
| MetaSGD | w − A ⊙ g | A, like w (Li et al. 2017) |
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from lethax.records import Weights


class Rule(Protocol):
    """One inner step; all trees hold only the tensors that move."""

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> Any:
        """Meta-parameters of the rule, {} where it has none."""

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: Any) -> Weights:
        """w_{j+1} from w_j and its support gradient."""


@dataclass(frozen=True)
class SGD:
    """w_{j+1} = w_j − α g_j with one fixed rate α. Finn et al. 2017."""

    rate: float = 0.01

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> dict[str, Any]:
        """Nothing to learn."""
        return {}

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: Any) -> Weights:
        """w − α g."""
        return jax.tree.map(lambda w, g: w - self.rate * g, weights, gradient)


@dataclass(frozen=True)
class MetaSGD:
    """w_{j+1} = w_j − A ⊙ g_j with a learned rate for every entry, all `rate` at first. Li et al. 2017."""

    rate: float = 0.01

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> Any:
        """A, a tree like the weights."""
        return jax.tree.map(lambda w: jnp.full_like(w, self.rate), like)

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: Any) -> Weights:
        """w − A ⊙ g."""
        return jax.tree.map(lambda w, rate, g: w - rate * g, weights, params, gradient)
