"""Loss surfaces along the inner loop of one task: the plane through w_0 and w_J, and its line from w_0 to w_J.

    w(x, y) = w_0 + x (w_J − w_0) + y b

w_0 is at (0, 0) and w_J at (1, 0). b is a random filter-normalised direction (Li et al. 2018): each filter of a Gaussian
direction has the norm of that filter of w_0, and vectors, such as biases, are not moved. The part along w_J − w_0 is then taken out
of it, and it is scaled to the length of w_J − w_0, so that one unit is the same distance along both axes. Differs: Li et al. have
two random directions, or two that follow from a trajectory; ours has one of each, so that the plane holds both ends of the path.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.analysis.gradients import inner_stops
from lethax.learner import Learner
from lethax.records import Episode, Weights

POINTS = 25  # along each axis; 0 and 1 are among them
ALONG, ACROSS = np.linspace(-0.5, 1.5, POINTS), np.linspace(-1.0, 1.0, POINTS)


class Plane(NamedTuple):
    """A plane in the space of the tensors that move: its origin w_0, its axes, which are orthogonal and of one length, and the
    places [J + 1, 2] of w_0 … w_J when they are projected onto it."""

    origin: Weights
    along: Weights
    across: Weights
    stops: Float[Array, "J1 2"]


class Surface(NamedTuple):
    """Losses on a grid, of one task or means over tasks.

    along [X], across [Y]: the coordinates x and y. support, query [Y, X]: the losses. stops [J + 1, 2]: where w_0 … w_J lie.
    moved: ‖w_J − w_0‖ / ‖w_0‖, the length of the unit of both axes beside the weights.
    """

    along: np.ndarray
    across: np.ndarray
    support: np.ndarray
    query: np.ndarray
    stops: np.ndarray
    moved: float

    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """The support and the query loss [X] on the line through w_0 and w_J."""
        middle = int(np.argmin(np.abs(self.across)))
        return self.support[middle], self.query[middle]

    def at(self, x: float) -> tuple[float, float]:
        """The support and the query loss at the point of that line that is nearest to x."""
        place = int(np.argmin(np.abs(self.along - x)))
        support, query = self.line()
        return float(support[place]), float(query[place])


def filter_normalised(key: PRNGKeyArray, weights: Weights) -> Weights:
    """A random direction whose filters have the norms of those of the weights.

    d_i ← d_i ‖w_i‖ / ‖d_i‖ for every filter i, where d is Gaussian. A filter is what leads to one output: of a kernel
    [h, w, in, out] or a matrix [in, out] it is one entry of the last axis. The direction of a vector is 0.

    Source: Li et al. 2018, section 4, and for vectors its released code.
    """
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [_direction(k, w) for k, w in zip(keys, leaves, strict=True)])


def _direction(key: PRNGKeyArray, weight: Array) -> Array:
    if weight.ndim < 2:
        return jnp.zeros_like(weight)
    random = jax.random.normal(key, weight.shape, weight.dtype)
    axes = tuple(range(weight.ndim - 1))
    return random * jnp.linalg.norm(weight.reshape(-1, weight.shape[-1]), axis=0) / jnp.sqrt(jnp.sum(random**2, axes))


@jax.jit
def plane(key: PRNGKeyArray, stops: Weights) -> Plane:
    """The plane of a path, whose `stops` w_0 … w_J have a leading axis [J + 1]; w_J has to differ from w_0."""
    first, last = (jax.tree.map(lambda stop, at=at: stop[at], stops) for at in (0, -1))
    along = jax.tree.map(jnp.subtract, last, first)
    random = filter_normalised(key, first)
    share = trees.dot(random, along) / trees.dot(along, along)
    across = jax.tree.map(lambda r, a: r - share * a, random, along)
    scale = trees.norm(along) / trees.norm(across)
    across = jax.tree.map(lambda leaf: scale * leaf, across)
    from_first = jax.tree.map(lambda stop: stop - stop[:1], stops)
    square = trees.dot(along, along)
    places = [
        jax.vmap(lambda moved, axis=axis: trees.dot(moved, axis) / square)(from_first) for axis in (along, across)
    ]
    return Plane(first, along, across, jnp.stack(places, axis=1))


@jax.jit
def point(of: Plane, x: float | Array, y: float | Array) -> Weights:
    """w(x, y) = w_0 + x (w_J − w_0) + y b."""
    return jax.tree.map(lambda w, a, b: w + x * a + y * b, of.origin, of.along, of.across)


def grid(
    losses: Callable[[Weights], tuple[Array, Array]], of: Plane, along: np.ndarray = ALONG, across: np.ndarray = ACROSS
) -> Surface:
    """Evaluate the support and the query loss on a grid of a plane.

    One point is compiled, and Python goes through the grid, because a convolution is slow inside a loop of a compiled program.
    """
    values = [[losses(point(of, x, y)) for x in along] for y in across]
    support, query = (np.array([[float(pair[i]) for pair in row] for row in values]) for i in (0, 1))
    moved = float(trees.norm(of.along) / trees.norm(of.origin))
    return Surface(np.asarray(along), np.asarray(across), support, query, np.asarray(of.stops), moved)


def of_task(
    learner: Learner,
    meta: Any,
    episode: Episode,
    key: PRNGKeyArray,
    along: np.ndarray = ALONG,
    across: np.ndarray = ACROSS,
) -> Surface | None:
    """The surface of one task of a `Traceable` learner.

    None if its inner loop does not move the weights, or moves only vectors or matrices of 0, which have no filter-normalised
    direction. Norms of a step are those of the last inner step, and the query loss is that of `Learner.predict`.
    """
    stops = inner_stops(learner, meta, episode.support, learner.steps)
    of = plane(key, stops)
    if not (float(trees.norm(of.along)) > 0 and float(trees.norm(of.across)) > 0):
        return None
    return grid(partial(_losses, learner, meta, episode), of, along, across)


@partial(jax.jit, static_argnums=0)
def _losses(learner: Any, meta: Any, episode: Episode, moving: Weights) -> tuple[Array, Array]:
    path, last = learner.inner_path(meta, episode.support, 0), max(learner.steps - 1, 0)
    outputs = learner.predict(path.model(moving, last), episode.query.x, episode.query.mask)
    return path.loss(moving, last), learner.objective.loss(outputs, episode.query.y, episode.query.mask)
