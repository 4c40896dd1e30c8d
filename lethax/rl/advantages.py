"""Compute the advantages of a task's rollouts: returns, a linear baseline fitted to them, generalised advantage estimation.

    R_t = Σ_k γ^k r_{t+k},   V = φ(o, t) · w,   δ_t = r_t + γ V_{t+1} − V_t,   A_t = Σ_k (γλ)^k δ_{t+k},
    then (A − mean)/(std + 1e-8)

All of it sees only the steps that count (`Rollouts.alive`), and none of it is differentiated.
Duan et al. 2016; Schulman et al. 2016; as in the released code of Finn et al. 2017.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lethax.rl.rollouts import Rollouts

RIDGE = 1e-5
BOUND = 10.0  # of an observation in a feature


def discounted(x: Float[Array, "T K"], factor: float | Array) -> Float[Array, "T K"]:
    """Σ_k factor^k x_{t+k}."""

    def body(later: Array, now: Array) -> tuple[Array, Array]:
        total = now + factor * later
        return total, total

    return jax.lax.scan(body, jnp.zeros(x.shape[1:], x.dtype), x, reverse=True)[1]


def features(observations: Float[Array, "T K o"]) -> Float[Array, "T K f"]:
    """φ = [o, o², t/100, (t/100)², (t/100)³, 1], with o cut to ±10 and t counted from 0."""
    o = jnp.clip(observations, -BOUND, BOUND)
    time = jnp.broadcast_to(jnp.arange(o.shape[0], dtype=o.dtype)[:, None, None] / 100, (*o.shape[:2], 1))
    return jnp.concatenate([o, jnp.square(o), time, time**2, time**3, jnp.ones_like(time)], axis=-1)


def fit_baseline(
    phi: Float[Array, "T K f"], returns: Float[Array, "T K"], alive: Float[Array, "T K"]
) -> Float[Array, " f"]:
    """w = argmin Σ (φ·w − R)² + 1e-5 |w|², by a QR decomposition of φ with √1e-5 I below it.

    Differs: the sources solve the normal equations, whose condition number (10⁶ and more) is the square of this one's.
    """
    width = phi.shape[-1]
    rows = (phi * alive[..., None]).reshape(-1, width)
    rows = jnp.concatenate([rows, RIDGE**0.5 * jnp.eye(width, dtype=phi.dtype)])
    targets = jnp.concatenate([(returns * alive).ravel(), jnp.zeros(width, phi.dtype)])
    q, r = jnp.linalg.qr(rows)
    return jax.scipy.linalg.solve_triangular(r, q.T @ targets)


def advantages(rollouts: Rollouts, discount: float | Array, smoothing: float | Array) -> Float[Array, "T K"]:
    """Normalised advantages of one task, 0 where nothing is alive; `smoothing` is λ."""
    alive = rollouts.alive
    rewards = rollouts.rewards * alive
    phi = features(rollouts.observations)
    values = (phi @ fit_baseline(phi, discounted(rewards, discount), alive)) * alive
    after = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])
    estimate = discounted((rewards + discount * after - values) * alive, discount * smoothing)
    return normalised(estimate, alive)


def normalised(x: Float[Array, "T K"], alive: Float[Array, "T K"]) -> Float[Array, "T K"]:
    """Normalise: (x − mean)/(std + 1e-8) over the steps that count, with the population's deviation."""
    count = jnp.sum(alive)
    mean = jnp.sum(x * alive) / count
    deviation = jnp.sqrt(jnp.sum(jnp.square(x - mean) * alive) / count)
    return (x - mean) / (deviation + 1e-8) * alive
