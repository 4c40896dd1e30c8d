"""How rough a loss is along its own gradient: the measures of Figures A, B and C.

At a point x with g = ∇L(x), over the steps s of a set S:

    loss variation           { L(x − s g) }
    gradient difference      { ‖∇L(x − s g) − g‖₂ }
    effective β-smoothness   max_s ‖∇L(x − s g) − g‖₂ / (s ‖g‖₂)

Santurkar et al. 2018; Baik, Hong, Lee, CVPR 2020, supplement A. Only one gradient is compiled, and Python goes through points,
steps and tasks, because a convolution is slow inside a loop of a compiled program.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lethax import trees
from lethax.analysis.gradients import Batch, inner_stops, support_gradient, task_gradient
from lethax.learner import Learner
from lethax.records import Split

MULTIPLES = tuple(np.linspace(0.5, 4.0, 8).tolist())  # of the inner rate: the set S is not given in the paper


class Landscape(NamedTuple):
    """The measures at one point, or their means over several. What ends in `_min`, `_max` or `_mean` is taken over the steps s."""

    loss: Float[np.ndarray, "*points"]
    gradient_norm: Float[np.ndarray, "*points"]
    loss_min: Float[np.ndarray, "*points"]
    loss_max: Float[np.ndarray, "*points"]
    loss_variation: Float[np.ndarray, "*points"]
    difference_min: Float[np.ndarray, "*points"]
    difference_max: Float[np.ndarray, "*points"]
    difference_mean: Float[np.ndarray, "*points"]
    smoothness: Float[np.ndarray, "*points"]


def measure(gradient: Callable[[Any], tuple[Array, Any]], point: Any, steps: Sequence[float]) -> Landscape:
    """Measure a loss along −g from a point.

    On a quadratic ½ xᵀHx, a step s has the gradient difference s ‖Hg‖, and the effective smoothness is ‖Hg‖ / ‖g‖.

    Arguments:
        gradient: a function of a tree of arrays that gives (L, ∇L) there.
        point: the tree x.
        steps: the steps s > 0.

    Returns:
        A `Landscape` of numbers. Where the gradient is 0, differences and smoothness are 0.
    """
    loss, g = gradient(point)
    there = [gradient(_moved(point, g, step)) for step in steps]
    losses = np.array([float(value) for value, _ in there])
    differences = np.array([float(_distance(other, g)) for _, other in there])
    norm = float(_norm(g))
    smoothness = float(np.max(differences / (np.array(steps) * norm))) if norm else 0.0
    values = (
        loss, norm, losses.min(), losses.max(), losses.max() - losses.min(), differences.min(), differences.max(),
        differences.mean(), smoothness,
    )  # fmt: skip
    return Landscape(*(np.asarray(value, np.float64) for value in values))


def of_inner_steps(learner: Learner, meta: Any, support: Split, steps: Sequence[float]) -> Landscape:
    """Measure a task's support loss at w_0 … w_{J−1}, the points at which its inner steps begin (Figures A and B).

    Returns:
        A `Landscape` whose arrays have an entry for each inner step [J]. With L2F, w_0 is the attenuated initialisation.

    Raises:
        TypeError: if the learner is not `Traceable`.
    """
    stops, points = inner_stops(learner, meta, support, learner.steps), []
    for j in range(learner.steps):
        gradient = partial(support_gradient, learner, meta, support, step=jnp.asarray(j))
        points.append(measure(gradient, trees.at(stops, j), steps))
    return Landscape(*(np.stack(values) for values in zip(*points, strict=True)))


def of_initialisation(learner: Learner, meta: Any, batch: Batch, steps: Sequence[float]) -> Landscape:
    """Measure the outer loss of a meta-batch at the initial weights θ (Figure C).

    Only `meta["weights"]` move: all that L2F's attenuator learned is fixed, and its gates follow from each displaced θ.
    """

    def gradient(weights: Any) -> tuple[Array, Any]:
        each = [task_gradient(learner, {**meta, "weights": weights}, *task) for task in batch.tasks()]
        reduced = [batch.reduce(jnp.stack(leaves)) for leaves in zip(*map(jax.tree.leaves, each), strict=True)]
        loss, grads = jax.tree.unflatten(jax.tree.structure(each[0]), reduced)
        return loss, grads

    return measure(gradient, meta["weights"], steps)


@jax.jit
def _moved(point: Any, gradient: Any, step: float) -> Any:
    return jax.tree.map(lambda x, g: x - step * g, point, gradient)


@jax.jit
def _distance(a: Any, b: Any) -> Array:
    return trees.norm(jax.tree.map(jnp.subtract, a, b))


_norm = jax.jit(trees.norm)
