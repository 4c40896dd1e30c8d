"""iMAML: the meta-gradient from the end point of the inner loop alone.

    φ ≈ argmin_w L_D(w) + λ/2 |w − w_0|²,   (I + ∇²L_D(φ)/λ) v = ∇L_D'(φ),   v is the meta-gradient in w_0

The path of the inner loop is forgotten: memory does not grow with its steps. Rajeswaran, Finn, Kakade, Levine 2019, section 3.
It is a bridge of MAML, whose inner steps get the proximal term. Differs: the operator is the paper's; the released code solves
with 2 I + ∇²L/12 after 16 steps without the proximal term and one step of that alone. Weights that the inner loop does not move
get the query loss's gradient at φ. Where the operator has a negative curvature along ∇L_D'(φ) nothing can be solved, and v is that
gradient itself, as in first-order MAML.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lethax import trees
from lethax.conjugate import conjugate_gradients
from lethax.inner import Loss


@dataclass(frozen=True)
class Implicit:
    """iMAML's bridge. `proximity` is λ, and `steps` is the number of conjugate-gradient iterations."""

    proximity: float = 2.0
    steps: int = 5

    def apply(self, loss: Loss, start: Any, last: Any, fixed: Any, data: Any) -> Any:
        """φ, with a derivative by which the solution v reaches w_0."""
        return _bridge(loss, self, start, last, fixed, data)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _bridge(loss: Loss, how: Implicit, start: Any, last: Any, fixed: Any, data: Any) -> Any:
    return last


def _forward(loss: Loss, how: Implicit, start: Any, last: Any, fixed: Any, data: Any) -> Any:
    return last, (last, fixed, data)


def _backward(loss: Loss, how: Implicit, saved: Any, cotangent: Any) -> Any:
    last, fixed, data = saved

    def operator(v: Any) -> Any:
        curved = jax.jvp(lambda w: jax.grad(loss)(w, fixed, data), (last,), (v,))[1]
        return jax.tree.map(lambda a, b: a + b / how.proximity, v, curved)

    solution, _ = conjugate_gradients(operator, cotangent, how.steps, unroll=True)
    solved = trees.dot(solution, solution) > 0
    solution = jax.tree.map(lambda v, b: jnp.where(solved, v, b), solution, cotangent)
    nothing = jax.tree.map(jnp.zeros_like, (last, fixed))
    return solution, *nothing, None


_bridge.defvjp(_forward, _backward)
