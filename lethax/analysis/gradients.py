"""The gradients that analyses compare: of tasks through the inner loop, and of the examples of one support set."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from lethax import trees
from lethax.learner import Learner, Traceable
from lethax.records import Episode, Progress, Split, Weights

Task = tuple[Episode, PRNGKeyArray, Progress]


@dataclass(frozen=True)
class Batch:
    """A meta-batch that is looked at, with the randomness and the progress of training that its losses depend on.

    episodes: episodes with a leading axis [B]. keys: a key for each. reduction: as in `meta_batch.Plan`.
    """

    episodes: Episode
    keys: PRNGKeyArray
    progress: Progress
    reduction: Literal["sum", "mean"] = "sum"

    @property
    def count(self) -> int:
        """The number of tasks B."""
        return int(jax.tree.leaves(self.episodes)[0].shape[0])

    def tasks(self) -> Iterator[Task]:
        """The tasks one by one."""
        for i in range(self.count):
            yield trees.at(self.episodes, i), self.keys[i], self.progress

    def reduce(self, values: Array) -> Array:
        """The sum or the mean over the tasks."""
        return jnp.sum(values, axis=0) if self.reduction == "sum" else jnp.mean(values, axis=0)


@partial(jax.jit, static_argnums=0)
def task_gradient(
    learner: Learner, meta: Any, episode: Episode, key: PRNGKeyArray, progress: Progress
) -> tuple[Array, Any]:
    """The outer loss of one task and its gradient in the initial weights θ, through the inner loop.

    It is the gradient that the method trains with: of first-order methods and iMAML an approximation, of Reptile (θ − φ)/α.
    """

    def loss(weights: Any) -> Array:
        return learner.loss({**meta, "weights": weights}, episode, key=key, progress=progress)[0]

    return jax.value_and_grad(loss)(meta["weights"])


def inner_stops(learner: Learner, meta: Any, support: Split, steps: int) -> Weights:
    """w_0 … w_J, the tensors that `steps` inner steps move, [J + 1, ...]. TypeError if the learner is not `Traceable`."""
    if not isinstance(learner, Traceable):
        raise TypeError(f"{type(learner).__name__} has no inner_path, so that its inner steps cannot be followed.")
    return _inner_stops(learner, meta, support, steps)


@partial(jax.jit, static_argnums=(0, 3))
def _inner_stops(learner: Any, meta: Any, support: Split, steps: int) -> Weights:
    stops: Weights = learner.inner_path(meta, support, steps).stops
    return stops


@partial(jax.jit, static_argnums=0)
def support_gradient(
    learner: Any, meta: Any, support: Split, moving: Weights, step: int | Array
) -> tuple[Array, Weights]:
    """The support loss of tensors that move, with the norms of an inner step, and its gradient."""
    return jax.value_and_grad(learner.inner_path(meta, support, 0).loss)(moving, step)


def example_gradients(learner: Any, meta: Any, support: Split) -> Any:
    """The gradient of the loss of each support example that counts at w_0, with a leading axis [n].

    The whole support set is forwarded, and each example's term of the loss is differentiated: a batch norm has the moments that it
    has in the inner loop, unless the learner's norm mode is "support+1".
    """
    counted = range(support.x.shape[0]) if support.mask is None else np.flatnonzero(support.mask)
    each = [_example_gradient(learner, meta, support, jnp.asarray(i)) for i in counted]
    return trees.stacked(each)


@partial(jax.jit, static_argnums=0)
def _example_gradient(learner: Any, meta: Any, support: Split, index: Array) -> Any:
    path = learner.inner_path(meta, support, 0)
    alone = (jnp.arange(support.x.shape[0]) == index).astype(support.x.dtype)

    def loss(moving: Any) -> Array:
        outputs = learner.predict(path.model(moving, 0), support.x, support.mask)
        return learner.objective.loss(outputs, support.y, alone)

    return jax.grad(loss)(path.stop(0))
