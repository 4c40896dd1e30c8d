"""What needs no meta-learning, judged on the same episodes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lethax.objectives import CrossEntropy
from lethax.records import Episode, Info


@dataclass(frozen=True)
class NearestPrototype:
    """The class whose mean support example is nearest: logits −|x − p_c|². Nothing is learned; it is judged as a learner is."""

    way: int
    objective: CrossEntropy = CrossEntropy()

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Float[Array, "1 n way"], Info]:
        """Query outputs; there are no inner steps."""
        return prototype_logits(*episode.support, episode.query.x, self.way)[None], {}


def prototype_logits(
    x: Float[Array, "n *entry"], y: Int[Array, " n"], query: Float[Array, "m *entry"], way: int
) -> Float[Array, "m way"]:
    """−|q − p_c|², p_c the mean of class c."""
    flat, asked = x.reshape(x.shape[0], -1), query.reshape(query.shape[0], -1)
    members = jax.nn.one_hot(y, way, axis=0)
    prototypes = members @ flat / members.sum(axis=1, keepdims=True)
    return -jnp.sum(jnp.square(asked[:, None] - prototypes[None]), axis=-1)
