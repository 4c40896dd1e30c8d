"""The differentiable inner loop. Supervised, latent and policy-gradient adaptation all call it.

Second order is exact and lean. The reverse pass of one inner step needs v ↦ (∂²L/∂w∂w v, ∂²L/∂c∂w v) for the inner
gradient ∇_w L(w, c). Forward-over-reverse gives both at once, d/dε ∇_{(w,c)} L(w + εv, c), without storing the inner
backward pass (mixed-mode differentiation; Kemaev et al. 2025).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

T = TypeVar("T")
Loss = Callable[[Any, Any, Any], Array]
Loop = Literal["unroll", "scan"]
Derivative = Literal["mixed", "plain"]


class Path(NamedTuple):
    """The path of an inner loop: the last weights, the support loss before each step [J], and all weights [J + 1, ...] or None."""

    last: Any
    losses: Float[Array, " J"]
    stops: Any


def _plain(loss: Loss, fast: T, constants: Any, data: Any) -> tuple[Array, T]:
    return jax.value_and_grad(loss)(fast, constants, data)


# Traced once, and written into a program once for each inner step.
_once = partial(jax.jit, static_argnums=0, inline=True)
_mixed_mode = jax.custom_vjp(_once(_plain), nondiff_argnums=(0,))


def _forward(loss: Loss, fast: T, constants: Any, data: Any) -> tuple[tuple[Array, T], tuple[T, Any, Any]]:
    return _mixed_mode(loss, fast, constants, data), (fast, constants, data)


def _backward(loss: Loss, saved: tuple[Any, Any, Any], cotangents: tuple[Array, Any]) -> tuple[Any, Any, None]:
    fast, constants, data = saved
    _, direction = cotangents  # the loss value is only looked at: `gradient` stops its derivative
    return *_product(loss, fast, constants, data, direction), None


@_once
def _product(loss: Loss, fast: T, constants: Any, data: Any, direction: T) -> tuple[T, Any]:
    """The Hessian by the direction, and the mixed derivative by it: forward over reverse."""
    return jax.jvp(lambda w: jax.grad(loss, argnums=(0, 1))(w, constants, data), (fast,), (direction,))[1]


_mixed_mode.defvjp(_forward, _backward)


def gradient(
    loss: Loss, fast: T, constants: Any, data: Any, *, order: int = 2, derivative: Derivative = "mixed"
) -> tuple[Float[Array, ""], T]:
    """Value and gradient g = ∇_w L(w, c, data) of an inner loss, differentiable once more in w and c.

    `loss(fast, constants, data)` must not close over traced values. `fast` (w) and `constants` (c: meta-parameters that
    the inner loop does not move, such as batch norms) are trees of floats; `data` is anything and counts as constant.
    `order` 1 stops the derivative of g, 2 keeps it. The loss value carries no derivative. `derivative` "plain" leaves it to JAX,
    which takes more time and memory but can also go forward (the curvature products of a trust region need that).
    """
    if order == 1:
        value, grads = jax.value_and_grad(loss)(fast, constants, data)
        return jax.lax.stop_gradient(value), jax.lax.stop_gradient(grads)
    differentiated = _mixed_mode if derivative == "mixed" else _plain
    value, grads = differentiated(loss, fast, constants, data)
    return jax.lax.stop_gradient(value), grads


def descend(
    update: Callable[[T, Any], tuple[T, Array]], start: T, steps: int, *, loop: Loop = "unroll", stops: bool = False
) -> Path:
    """w_{j+1}, L_j = update(w_j, j) for j = 0 … steps − 1, from w_0 = start.

    `loop` "unroll" is faster on a CPU for few steps, "scan" keeps memory and compile time flat in the steps; the numbers are
    the same. `stops` also returns w_0 … w_J, stacked.
    """
    if steps == 0:
        return Path(start, jnp.zeros((0,)), jax.tree.map(lambda w: w[None], start) if stops else None)
    if loop == "scan":

        def body(fast: T, step: Array) -> tuple[T, tuple[Array, Any]]:
            fast, value = update(fast, step)
            return fast, (value, fast if stops else None)

        last, (losses, later) = jax.lax.scan(body, start, jnp.arange(steps))
        along = jax.tree.map(lambda w, ws: jnp.concatenate([w[None], ws]), start, later) if stops else None
        return Path(last, losses, along)
    path, values = [start], []
    for step in range(steps):
        fast, value = update(path[-1], step)
        path.append(fast)
        values.append(value)
    along = jax.tree.map(lambda *ws: jnp.stack(ws), *path) if stops else None
    return Path(path[-1], jnp.stack(values), along)
