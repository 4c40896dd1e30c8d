"""Reptile: move the initialisation towards what gradient steps on a task make of it.

    φ = w_J from w_0 = θ,   meta-gradient (θ − φ)/α

Nichol, Achiam, Schulman 2018. It is a bridge of MAML: the loss is the query loss at φ, its gradient in the moved weights is
replaced. Differs: inner steps are of the recipe's rule on the whole support set (the released code: Adam on minibatches); weights
that the inner loop does not move, the norms, follow the query loss; the outer optimiser is the recipe's. With gradient descent of
rate ε α the outer step is the published θ + ε (φ − θ).
"""

from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array

from lethax.inner import Loss


@dataclass(frozen=True)
class Reptile:
    """Reptile's bridge; `rate` is α. The step of a task does not shrink with its loss: it grows with the distance of φ."""

    rate: float = 0.01
    proximity: float = 0.0

    def apply(self, loss: Loss, start: Any, last: Any, fixed: Any, data: Any) -> Any:
        """φ, with a derivative that gives (w_0 − φ)/α to w_0, whatever comes back."""
        return _bridge(self.rate, start, last)


@jax.custom_vjp
def _bridge(rate: float | Array, start: Any, last: Any) -> Any:
    return last


def _forward(rate: float | Array, start: Any, last: Any) -> Any:
    return last, (rate, start, last)


def _backward(saved: Any, cotangent: Any) -> Any:
    rate, start, last = saved
    return None, jax.tree.map(lambda a, b: (a - b) / rate, start, last), jax.tree.map(jax.numpy.zeros_like, last)


_bridge.defvjp(_forward, _backward)
