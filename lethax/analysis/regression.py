"""Qualitative regression: what a net says of a curve before and after inner steps. Baik et al. 2020, Figures D and E."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax.learner import Learner, TaskFamily
from lethax.records import EpisodeShape, Split


class Fits(NamedTuple):
    """Curves and what a net says of them. Every array has a leading axis over the curves.

    support: the points that the net adapts to, [curves, K, 1]. query: other points of the curves, [curves, Q, 1], in ascending
    order of x. outputs: at the query points after 0, 1, … J inner steps.
    """

    support: Split
    query: Split
    outputs: Float[Array, "curves steps+1 points"]

    def errors(self) -> Float[Array, "curves steps+1"]:
        """The mean squared error of every curve over its query points, after each number of inner steps."""
        return jnp.mean(jnp.square(self.outputs - self.query.y[:, None, :, 0]), axis=-1)


def fits(
    learner: Learner, meta: Any, family: TaskFamily, source: Any, shape: EpisodeShape, key: PRNGKeyArray, *,
    curves: int, steps: int,
) -> Fits:  # fmt: skip
    """Adapt to the first curves of a key, and take the outputs after 0 to `steps` inner steps.

    Curve t is drawn with fold_in(key, t). It does not depend on the learner, and of sinusoids it is the same for all numbers of
    shots, because its parameters have a key of their own. More steps than the learner was trained for are allowed.
    """

    def one(number: Array) -> tuple[Split, Split, Array]:
        episode = family.draw(source, shape, jax.random.fold_in(key, number))
        order = jnp.argsort(episode.query.x[:, 0])
        episode = episode._replace(query=jax.tree.map(lambda leaf: leaf[order], episode.query))
        outputs, _ = learner.path(meta, episode, steps)
        return episode.support, episode.query, outputs[:, :, 0]

    return Fits(*jax.jit(jax.vmap(one))(jnp.arange(curves)))
