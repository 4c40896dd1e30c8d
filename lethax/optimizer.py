"""The outer optimiser: optax transformations that bound a meta-gradient, or pass over it, before Adam sees it.

Each takes and gives an `optax.GradientTransformation`, or makes one, so that they combine with any other of optax.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from lethax import trees

Bound = Callable[[Any], Any]  # a meta-gradient to the meta-gradient that is used


def annealed(rate: float, least: float, total: int, stairs: int) -> optax.Schedule:
    """On stair s of S: least + (rate − least) (1 + cos(π s / S)) / 2, S equal stairs over `total` steps.

    The released code of MAML++ anneals once an epoch, of which a full run has 100; a smaller budget keeps the number of stairs.
    """

    def at(count: Array) -> Array:
        done = jnp.minimum(count, total)
        if total * stairs < 2**31:
            stair = done * stairs // total
        else:  # a product beyond 32 bits; so many stairs are a curve
            stair = jnp.floor(done * (stairs / total))
        return least + (rate - least) * 0.5 * (1 + jnp.cos(jnp.pi * stair / stairs))

    return at


def clamp(bound: float) -> Bound:
    """Cut every entry of the weights' gradient to ±bound, but not of the attenuator's, as in the released code of L2F.

    An entry that is Inf stays, so that it is seen.
    """

    def cut(grads: Any) -> Any:
        def of(g: Array) -> Array:
            return jnp.where(jnp.isfinite(g), jnp.clip(g, -bound, bound), g)

        return {**grads, "weights": jax.tree.map(of, grads["weights"])}

    return cut


def clip_norm(bound: float) -> Bound:
    """Scale the whole gradient down to an L2 norm of `bound` if its norm is larger."""

    def shrink(grads: Any) -> Any:
        share = _share(grads, bound)
        return jax.tree.map(lambda g: g * share, grads)

    return shrink


def clip_tensor_norm(bound: float) -> Bound:
    """Scale the gradient of each tensor down to an L2 norm of `bound` if its norm is larger."""
    return lambda grads: jax.tree.map(lambda g: g * _share(g, bound), grads)


def _share(grads: Any, bound: float) -> Array:
    """min(1, bound / ‖g‖), with ‖g‖ = m ‖g / m‖ and m the largest magnitude: the squares of large entries would be Inf."""
    leaves = jax.tree.leaves(grads)
    largest = jnp.maximum(jnp.max(jnp.stack([jnp.max(jnp.abs(g)) for g in leaves])), 1e-30)
    return jnp.minimum(1.0, bound / largest / jnp.maximum(trees.norm([g / largest for g in leaves]), 1e-30))


def kernels(params: Any) -> Any:
    """Which meta-parameters a weight decay shrinks: the initial weights of two or more axes, no biases, norms or learned rates.

    A norm is a tensor with "norm" in its name, because those of every step have two axes as well.
    """
    none = {name: jax.tree.map(lambda _: False, part) for name, part in params.items()}
    weights = trees.map_named(lambda name, leaf: jnp.ndim(leaf) > 1 and "norm" not in name, params["weights"])
    return {**none, "weights": weights}


def bounded(transform: optax.GradientTransformation, bound: Bound) -> optax.GradientTransformation:
    """Apply `transform` to gradients that have passed the bound. The state is that of `transform` alone."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return transform.update(bound(grads), state, params)

    return optax.GradientTransformation(transform.init, update)


def usable(grads: Any) -> Bool[Array, " tensors"]:
    """Whether each tensor's gradient has finite squares, which Adam keeps: one that is Inf would stop its entry for ever."""
    return jnp.stack([jnp.all(jnp.isfinite(jnp.square(leaf))) for leaf in jax.tree.leaves(grads)])


def skip_not_usable(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `transform`, except that a gradient that is not `usable` moves nothing and leaves the state as it was."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        use = jnp.all(usable(grads))
        updates, after = transform.update(grads, state, params)
        still = jax.tree.map(lambda u: jnp.where(use, u, jnp.zeros_like(u)), updates)
        return still, jax.tree.map(lambda new, old: jnp.where(use, new, old), after, state)

    return optax.GradientTransformation(transform.init, update)
