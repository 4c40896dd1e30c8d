"""Rules of the inner loop: how a gradient moves the fast weights.

| rule | w_{j+1} | meta-parameters |
|---|---|---|
| SGD | w − α g | – |
| SignSGD | w − α sign(g) | – |
| MetaSGD | w − A ⊙ g | A, like w (Li et al. 2017) |
| LSLR | w_l − a_{l,j} g_l | a, one a tensor and step (Antoniou et al. 2019) |

ALFA's rule, which reads weights and gradients, is in `methods/alfa.py`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lethax.records import Weights


@runtime_checkable
class Rule(Protocol):
    """One inner step; all trees hold only the tensors that move."""

    @property
    def exact(self) -> bool:
        """Whether no derivative is stopped on purpose."""

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> Any:
        """Meta-parameters of the rule, {} where it has none."""

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w_{j+1} from w_j and its support gradient."""


class FixedRule:
    """What a rule that learns nothing has beside `apply`. A rule of your own is a frozen dataclass that derives from it.

    exact: set it to False if `apply` stops a derivative on purpose.
    """

    exact: ClassVar[bool] = True

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> dict[str, Any]:
        """Nothing to learn."""
        return {}


@dataclass(frozen=True)
class SGD(FixedRule):
    """w_{j+1} = w_j − α g_j with one fixed rate α. Finn et al. 2017."""

    rate: float = 0.01

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w − α g."""
        return jax.tree.map(lambda w, g: w - self.rate * g, weights, gradient)


@dataclass(frozen=True)
class SignSGD(FixedRule):
    """w_{j+1} = w_j − α sign(g_j); its exact meta-gradient is its first-order one. Fan et al. 2021."""

    rate: float = 0.01

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w − α sign(g)."""
        return jax.tree.map(lambda w, g: w - self.rate * jax.lax.stop_gradient(jnp.sign(g)), weights, gradient)


@dataclass(frozen=True)
class MetaSGD:
    """w_{j+1} = w_j − A ⊙ g_j with a learned rate for every entry, all `rate` at first. Li et al. 2017."""

    rate: float = 0.01
    exact: ClassVar[bool] = True

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> Any:
        """A, a tree like the weights."""
        return jax.tree.map(lambda w: jnp.full_like(w, self.rate), like)

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w − A ⊙ g."""
        return jax.tree.map(lambda w, rate, g: w - rate * g, weights, params, gradient)


@dataclass(frozen=True)
class LSLR:
    """w_{l,j+1} = w_{l,j} − a_{l,j} g_{l,j} with a learned rate for every tensor l and step j, all `rate` at first.

    Steps beyond the trained ones use the last step's rates. Antoniou et al. 2019, section 4. Differs: the released code keeps a
    rate for step J that is never used.
    """

    rate: float = 0.01
    exact: ClassVar[bool] = True

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> Any:
        """a: a tree like the weights with leaves [J]."""
        return jax.tree.map(lambda w: jnp.full((max(steps, 1),), self.rate, w.dtype), like)

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w_l − a_{l,j} g_l."""
        return jax.tree.map(lambda w, rates, g: w - at_step(rates, step) * g, weights, params, gradient)


@dataclass(frozen=True)
class Slower:
    """The steps of another rule, those from step `since` on shortened: w_{j+1} = w_j + share (rule(w_j) − w_j).

    Finn et al. 2017 (code of its reinforcement learning): a half from the second update on.
    """

    rule: Rule
    share: float = 0.5
    since: int = 1

    @property
    def exact(self) -> bool:
        """As the rule."""
        return self.rule.exact

    def init(self, key: PRNGKeyArray, like: Weights, steps: int) -> Any:
        """The rule's."""
        return self.rule.init(key, like, steps)

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: int | Array) -> Weights:
        """w + share (rule(w) − w)."""
        moved = self.rule.apply(params, weights, gradient, step)
        share = jnp.where(step < self.since, 1.0, self.share)
        return jax.tree.map(lambda w, new: w + share * (new - w), weights, moved)


def at_step(values: Array, step: int | Array) -> Array:
    """Row `step`, the last row beyond the end."""
    return values[jnp.minimum(step, values.shape[0] - 1)]
