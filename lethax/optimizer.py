"""The outer optimiser: optax transformations that bound a meta-gradient, or pass over it, before Adam sees it.

Each takes and gives an `optax.GradientTransformation`, or makes one, so that they combine with any other of optax.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

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
    """Cut every entry of the weights' gradient to ±bound, but not of the attenuator's, as in the released code of L2F."""

    def cut(grads: Any) -> Any:
        return {**grads, "weights": jax.tree.map(lambda g: jnp.clip(g, -bound, bound), grads["weights"])}

    return cut


def clip_norm(bound: float) -> Bound:
    """Scale the whole gradient down to an L2 norm of `bound` if its norm is larger."""

    def shrink(grads: Any) -> Any:
        share = jnp.minimum(1.0, bound / jnp.maximum(trees.norm(grads), 1e-30))
        return jax.tree.map(lambda g: g * share, grads)

    return shrink


def clip_tensor_norm(bound: float) -> Bound:
    """Scale the gradient of each tensor down to an L2 norm of `bound` if its norm is larger."""
    return lambda grads: trees.clip_each(grads, bound)


def kernels(params: Any) -> Any:
    """Which meta-parameters a weight decay shrinks: the initial weights of two or more axes, no biases, norms or learned rates.

    A norm is a tensor with "norm" in its name, because those of every step have two axes as well.
    """
    none = {name: jax.tree.map(lambda _: False, part) for name, part in params.items()}
    weights = trees.map_named(lambda name, leaf: jnp.ndim(leaf) > 1 and "norm" not in name, params["weights"])
    return {**none, "weights": weights}


def bounded(transform: optax.GradientTransformation, *bounds: Bound) -> optax.GradientTransformation:
    """Apply `transform` to gradients that have passed the bounds in turn. The state is that of `transform` alone."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        for bound in bounds:
            grads = bound(grads)
        return transform.update(grads, state, params)

    return optax.GradientTransformation(transform.init, update)


def skip_not_finite(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `transform`, except that a gradient with a NaN or Inf moves nothing and leaves the state as it was."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        usable = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(grads)]))
        updates, after = transform.update(grads, state, params)
        still = jax.tree.map(lambda u: jnp.where(usable, u, jnp.zeros_like(u)), updates)
        return still, jax.tree.map(lambda new, old: jnp.where(usable, new, old), after, state)

    return optax.GradientTransformation(transform.init, update)
