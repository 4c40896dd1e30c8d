"""A trust-region step: the natural gradient under a bound on the mean divergence, then a line search.

    x ≈ (H + damping I)⁻¹ g by conjugate gradients,   θ ← θ − √(2δ / xᵀ(H + damping I)x) ρᵏ x
    for the first k that improves J and stays within δ

H is the Hessian of the divergence at θ as a Gauss-Newton product Jᵀ F J, which it equals there (the divergence's own gradient
vanishes): J the derivative of the policies' outputs in the meta-parameters, through the inner loop, F the Fisher matrix of the
outputs. Schulman et al. 2015; constants of Finn et al. 2017's code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lethax.conjugate import conjugate_gradients

Vector = Float[Array, " p"]
Product = Callable[[Vector], Vector]


@dataclass(frozen=True)
class TrustRegion:
    """max_kl: δ. iterations, residual: conjugate gradients stop at so many, or at a squared residual so small. backtrack: ρ."""

    max_kl: float = 0.01
    iterations: int = 10
    residual: float = 1e-10
    damping: float = 1e-5
    backtrack: float = 0.8
    backtracks: int = 15


class Outcome(NamedTuple):
    """Whether a step was taken, after how many backtracks, the surrogate loss gained, and the divergence there."""

    accepted: Array
    backtracks: Array
    gain: Array
    kl: Array


def natural_step(region: TrustRegion, product: Product, gradient: Vector, exact: Product | None = None) -> Vector:
    """The step of largest decrease within the region, as the quadratic model sees it; 0 where that has no curvature.

    `exact` is v ↦ H v where `product` only approximates H: the direction is the approximation's, the length is not.
    """
    damped = lambda v: product(v) + region.damping * v  # noqa: E731
    x, image = conjugate_gradients(damped, gradient, region.iterations, residual=region.residual)
    curvature = jnp.vdot(x, exact(x) + region.damping * x if exact else image)
    usable = jnp.isfinite(curvature) & (curvature > 0)
    scale = jnp.sqrt(2 * region.max_kl / jnp.where(usable, curvature, 1.0))
    return jnp.where(usable, -scale * jnp.where(jnp.isfinite(x), x, 0.0), 0.0)


def line_search(
    region: TrustRegion, judge: Callable[[Vector], tuple[Array, Array]], at: Vector, step: Vector, before: Array
) -> tuple[Vector, Outcome]:
    """at + ρᵏ step for the first k whose loss is below `before`, that at `at`, and whose divergence is at most δ, else `at`.

    `judge` gives (loss, divergence from the policies before the step).
    """

    def fits(loss: Array, kl: Array) -> Array:
        return (loss < before) & (kl <= region.max_kl)

    def tried(k: Array) -> tuple[Array, Array]:
        return judge(at + region.backtrack**k * step)

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        k, loss, kl = carry
        return ~fits(loss, kl) & (k < region.backtracks - 1)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        k = carry[0] + 1
        return (k, *tried(k))

    first = jnp.zeros((), jnp.int32)
    k, loss, kl = jax.lax.while_loop(goes_on, body, (first, *tried(first)))
    accepted = fits(loss, kl)
    after = jnp.where(accepted, at + region.backtrack**k * step, at)
    return after, Outcome(accepted, k, jnp.where(accepted, before - loss, 0.0), jnp.where(accepted, kl, 0.0))
