"""Baselines that need no meta-learning, judged on the same episodes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lethax.objectives import CrossEntropy
from lethax.records import Episode, Info, Split


@dataclass(frozen=True)
class NearestPrototype:
    """The class whose mean support example is nearest: logits −|x − p_c|². Nothing is learned; it is judged as a learner is."""

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
