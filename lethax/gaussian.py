"""Diagonal normal distributions of actions."""

from math import log, pi
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Normal(NamedTuple):
    """One distribution for each of n steps, with a deviation that they share: `mean` [n, a], `log_std` [a]."""

    mean: Float[Array, "n a"]
    log_std: Float[Array, " a"]


def log_density(normal: Normal, actions: Float[Array, "n a"]) -> Float[Array, " n"]:
    """log N(a; μ, σ) = −Σ_d ½ ((a − μ)/σ)² + log σ + ½ log 2π."""
    standard = (actions - normal.mean) * jnp.exp(-normal.log_std)
    return -jnp.sum(0.5 * jnp.square(standard) + normal.log_std + 0.5 * log(2 * pi), axis=-1)


def divergence(p: Normal, q: Normal) -> Float[Array, " n"]:
    """KL(p ‖ q) = Σ_d log σ_q/σ_p + (σ_p² + (μ_p − μ_q)²)/(2σ_q²) − ½."""
    spread = jnp.exp(2 * (p.log_std - q.log_std))
    distance = jnp.square((p.mean - q.mean) * jnp.exp(-q.log_std))
    return jnp.sum(q.log_std - p.log_std + 0.5 * (spread + distance) - 0.5, axis=-1)
