"""Conjugate gradients: A x = b for a positive definite A that is known only as v ↦ A v. Hestenes and Stiefel 1952."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lethax import trees


def conjugate_gradients(
    product: Callable[[Any], Any], b: Any, iterations: int, *, residual: float = 0.0, unroll: bool = False
) -> tuple[Any, Any]:
    """(x, A x) with A x ≈ b from x = 0, after `iterations` steps or below a squared residual; b, x: trees of arrays.

    Where A is not positive definite, the steps end before a direction without positive curvature; x is 0 if the first is one.
    A x is b less the residual that the steps carry along: it costs no product. `unroll` writes the steps out, which convolutions
    on a CPU need; the numbers are the same but for rounding.
    """

    def body(_: Any, carry: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
        x, rest, direction, norm = carry
        image = product(direction)
        curvature = trees.dot(direction, image)
        going = (norm > residual) & (curvature > 0)
        step = jnp.where(going, norm / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        x, rest = _add(x, direction, step), _add(rest, image, -step)
        after = trees.dot(rest, rest)
        turn = jnp.where(going, after / jnp.where(norm > 0, norm, 1.0), 0.0)
        return x, rest, _add(rest, direction, turn), jnp.where(going, after, 0.0)

    carry = (jax.tree.map(jnp.zeros_like, b), b, b, trees.dot(b, b))
    if unroll:
        for step in range(iterations):
            carry = body(step, carry)
    else:
        carry = jax.lax.fori_loop(0, iterations, body, carry)
    return carry[0], jax.tree.map(lambda whole, rest: whole - rest, b, carry[1])


def _add(x: Any, y: Any, scale: Any) -> Any:
    return jax.tree.map(lambda p, q: p + scale * q, x, y)
