"""Baselines that need no meta-learning, judged on the same episodes."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lethax.data.source import unit_length
from lethax.objectives import CrossEntropy
from lethax.records import Episode, Info, Split


@dataclass(frozen=True)
class NearestPrototype:
    """The class whose mean support example is nearest: logits −|x − p_c|². Nothing is learned."""

    way: int
    objective: CrossEntropy = CrossEntropy()

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Float[Array, "1 n way"], Info]:
        """The query outputs. There are no inner steps."""
        return prototype_logits(episode.support, episode.query.x, self.way)[None], {}


def prototype_logits(support: Split, query: Float[Array, "m *entry"], way: int) -> Float[Array, "m way"]:
    """−|q − p_c|², p_c the mean of the support examples of class c that count; −∞ for a class that has none."""
    flat, asked = support.x.reshape(support.x.shape[0], -1), query.reshape(query.shape[0], -1)
    members = jax.nn.one_hot(support.y, way, axis=0)
    if support.mask is not None:
        members = members * support.mask
    counts = members.sum(axis=1, keepdims=True)
    prototypes = members @ flat / jnp.maximum(counts, 1.0)
    return jnp.where(counts[:, 0] > 0, -jnp.sum(jnp.square(asked[:, None] - prototypes[None]), axis=-1), -jnp.inf)


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on the support examples, each scaled to length 1 beside a constant entry 1.

        W = argmin 1/n Σ_i CE(W x_i, y_i) + λ/2 |W|²,   λ = `decay`

    W lies in the span of the examples, W = Σ_i a_i x_i, so that only their products are needed. Nesterov's method takes about 20/√λ
    steps, which leave e⁻²⁰ of what the loss is above its minimum at the start.
    """

    way: int
    decay: float = 0.01
    objective: CrossEntropy = CrossEntropy()

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Float[Array, "1 n way"], Info]:
        """The query outputs. There are no inner steps."""
        return probe_logits(episode.support, episode.query.x, self.way, self.decay)[None], {}


def probe_logits(support: Split, query: Float[Array, "m *entry"], way: int, decay: float) -> Float[Array, "m way"]:
    """The logits of `LinearProbe`. Its loss is 1 + λ smooth and λ convex, which gives the step and the momentum."""
    examples, asked = (unit_length(x.reshape(x.shape[0], -1)) for x in (support.x, query))
    products = examples @ examples.T + 1.0
    counts = jnp.ones(examples.shape[0], examples.dtype) if support.mask is None else support.mask
    share, wanted = (counts / counts.sum())[:, None], jax.nn.one_hot(support.y, way, dtype=examples.dtype)
    smooth, convex = (1.0 + decay) ** 0.5, decay**0.5
    momentum = (smooth - convex) / (smooth + convex)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        now, before = state
        ahead = now + momentum * (now - before)
        gradient = share * (jax.nn.softmax(products @ ahead) - wanted) + decay * ahead
        return (ahead - gradient / (1.0 + decay), now), None

    zero = jnp.zeros_like(wanted)
    # A step leaves 1 − √(λ/(1 + λ)) of what the loss is above its minimum.
    (found, _), _ = jax.lax.scan(step, (zero, zero), None, length=math.ceil(20 * smooth / convex))
    return (asked @ examples.T + 1.0) @ found
