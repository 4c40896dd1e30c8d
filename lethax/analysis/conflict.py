"""The degree of conflict: the angle between gradients of tasks, or of the examples of one task (Figure G).

    conflict_i = mean_{k ≠ i} arccos( ⟨g_i, g_k⟩ / (‖g_i‖ ‖g_k‖) )

An angle of π/2 is no agreement at all, less is agreement, more is conflict. Random directions of many dimensions have angles near
π/2, so an angle says something only beside that of random directions. Baik, Hong, Lee, CVPR 2020, supplement F. The paper does not
say which angle it takes; angles of pairs are the only ones that can lie where its figures have them, near 1.54 and on both sides
of π/2.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lethax import trees
from lethax.analysis.gradients import Batch, example_gradients, inner_stops, support_gradient, task_gradient
from lethax.learner import Learner
from lethax.records import Split

Against = Literal["pairwise", "to_mean_of_others", "to_mean"]


class Conflict(NamedTuple):
    """Angles in radians: a row for each task or example, a column for each tensor [B, L]. NaN: the gradient there is 0."""

    tensors: list[str]
    angles: Float[np.ndarray, "B L"]
    sizes: list[int]

    def mean(self) -> Float[np.ndarray, " L"]:
        """The mean of every tensor."""
        return mean_std(self.angles)[0]


def angles(vectors: Float[Array, "B n"], against: Against = "pairwise") -> Float[Array, " B"]:
    """The angle of each vector to the others, in radians; NaN for a vector of length 0.

    Arguments:
        vectors: one vector a row.
        against: "pairwise" is the mean angle to the other vectors; "to_mean_of_others" is the angle to the mean of the others;
            "to_mean" the angle to the mean of all, which for B orthogonal vectors of one length is arccos(1/√B).
    """
    if against == "pairwise":
        unit = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
        each = jnp.arccos(jnp.clip(unit @ unit.T, -1.0, 1.0))
        return jnp.nanmean(jnp.where(jnp.eye(len(vectors), dtype=bool), jnp.nan, each), axis=1)
    total = jnp.sum(vectors, axis=0)
    other = jnp.broadcast_to(total, vectors.shape) if against == "to_mean" else total - vectors
    lengths = jnp.linalg.norm(vectors, axis=1) * jnp.linalg.norm(other, axis=1)
    return jnp.arccos(jnp.clip(jnp.sum(vectors * other, axis=1) / lengths, -1.0, 1.0))


def of_gradients(gradients: Any, against: Against = "pairwise") -> Conflict:
    """The angles of every tensor of a tree of gradients with a leading axis [B]."""
    leaves = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(gradients)]
    found = np.stack([np.asarray(_angles(leaf, against), np.float64) for leaf in leaves], axis=1)
    return Conflict(trees.names(gradients), found, [leaf.shape[1] for leaf in leaves])


def between_tasks(
    learner: Learner, meta: Any, batch: Batch, of: Literal["meta", "support"] = "meta", against: Against = "pairwise"
) -> Conflict:
    """The conflict between tasks at one initialisation.

    Arguments:
        learner: the method.
        meta: its meta-parameters.
        batch: the tasks, at least two.
        of: "meta" takes the gradients of the query losses in θ, through the inner loop; "support" those of the support losses in
            w_0. With L2F each task has a w_0 of its own.
        against: see `angles`.
    """
    if of == "meta":
        each = [task_gradient(learner, meta, *task)[1] for task in batch.tasks()]
    else:
        each = []
        for episode, _, _ in batch.tasks():
            first = trees.at(inner_stops(learner, meta, episode.support, 0), 0)
            each.append(support_gradient(learner, meta, episode.support, first, 0)[1])
    return of_gradients(trees.stacked(each), against)


def within_task(learner: Learner, meta: Any, support: Split, against: Against = "pairwise") -> Conflict:
    """The conflict between the support examples of one task, where its inner loop starts (Figure G)."""
    return of_gradients(example_gradients(learner, meta, support), against)


class Conflicts(NamedTuple):
    """Both kinds of conflict of one learner: angles [N, L] between N tasks, means [M, L] within M tasks, and random directions."""

    tensors: list[str]
    between: Float[np.ndarray, "N L"]
    within: Float[np.ndarray, "M L"]
    random: list[tuple[float, float]]


def both(between: Conflict, within: Sequence[Conflict]) -> Conflicts:
    """Put the conflict between tasks beside that within tasks. A tensor that the inner loop does not move has none within (NaN)."""
    inside = [dict(zip(one.tensors, one.mean(), strict=True)) for one in within]
    means = np.array([[one.get(name, np.nan) for name in between.tensors] for one in inside])
    return Conflicts(between.tensors, between.angles, means, [random_angle(size) for size in between.sizes])


def random_angle(size: int) -> tuple[float, float]:
    """Mean and deviation of the angle between two random directions of `size` dimensions: π/2 and, for many, about 1/√size.

    The density of the angle a is proportional to sin(a)^(size − 2).
    """
    if size == 1:
        return math.pi / 2, math.pi / 2
    width = min(math.pi / 2, 12 / math.sqrt(size))
    off = np.linspace(-width, width, 4001)[1:-1]
    weight = np.cos(off) ** (size - 2)
    return math.pi / 2, float(np.sqrt(np.sum(weight * off**2) / np.sum(weight)))


def mean_std(values: Float[np.ndarray, "N L"]) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Mean and deviation of every column over rows that are not NaN; NaN, without a warning, where all are."""
    return _over(np.nanmean, values), _over(np.nanstd, values)


def _over(reduce: Any, values: np.ndarray) -> np.ndarray:
    """A reduction over the rows that is NaN, without a warning, where all are NaN."""
    none = np.isnan(values).all(axis=0)
    return np.where(none, np.nan, reduce(np.where(none, 0.0, values), axis=0))


_angles = jax.jit(angles, static_argnums=1)
