"""Start a learned initialisation on another number of classes than it was trained on: where its last layer begins.

    trained:     the columns of the trained head; the first N of them, or all of them over and over
    zero:        W = 0, b = 0
    prototypes:  W_c = 2 μ_c, b_c = −‖μ_c‖²,   μ_c = mean of the features of the support examples of class c

With "zero", the first inner step moves the head alone, because the outputs do not depend on the body. L2F then reads a gradient
that is 0 in the body. Prototypes make the first outputs those of a nearest-prototype classifier, up to a constant: Triantafillou
et al. 2020 (Proto-MAML).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lethax import trees
from lethax.errors import RecipeError
from lethax.learner import Learner
from lethax.records import Split

HeadStart = Literal["trained", "zero", "prototypes"]


def with_head(start: HeadStart, learner: Learner, meta: Any, support: Split) -> Any:
    """Meta-parameters for the classes of `learner`, made of those of a learner that differs in their number alone.

    Arguments:
        start: where the head begins; "trained" leaves meta-parameters of the same number of classes as they are.
        learner: the method on a network with as many outputs as the support set has classes.
        meta: the trained meta-parameters.
        support: the support set, inputs [n, ...] with class numbers [n] below N, which "prototypes" reads.

    Returns:
        Meta-parameters whose head has N outputs, such as a weight [features, N] and a bias [N]; all else is as it was.

    Raises:
        RecipeError: if the method has learned a value for each weight of the head, so that it has nothing to say of other classes.

    Source: for "prototypes", Triantafillou et al. 2020. The other two are ours.
    """
    like = jax.eval_shape(learner.init, jax.random.key(0))
    is_head = learner.net.head(like["weights"])
    weights = jax.tree.map(
        lambda head, want, leaf: _MADE[start](want, leaf) if head else leaf, is_head, like["weights"], meta["weights"]
    )
    found = {**meta, "weights": weights}
    shapes = dict(zip(trees.names(like), (leaf.shape for leaf in jax.tree.leaves(like)), strict=True))
    for name, leaf in zip(trees.names(found), jax.tree.leaves(found), strict=True):
        if shapes.get(name) != leaf.shape:
            raise RecipeError(
                f"this method has learned values for the classes that it was trained on ({name} is {list(leaf.shape)}): give the "
                "number of classes that it was trained on, or train it on this number with --way."
            )
    if start == "prototypes":
        weights.update(_prototypes(learner, weights, is_head, support))
    return found


def _columns(want: Any, leaf: Array) -> Array:
    """The trained columns, over and over if more are wanted; the same array for as many."""
    if want.shape == leaf.shape:
        return leaf
    return jnp.take(leaf, jnp.arange(want.shape[-1]) % leaf.shape[-1], axis=-1)


def _zeros(want: Any, leaf: Array) -> Array:
    return jnp.zeros((*leaf.shape[:-1], want.shape[-1]), leaf.dtype)


_MADE: dict[HeadStart, Callable[[Any, Array], Array]] = {"trained": _columns, "zero": _zeros, "prototypes": _zeros}


def _prototypes(learner: Any, weights: Any, is_head: Any, support: Split) -> dict[str, Any]:
    """The layer of the head with the weights of a nearest-prototype classifier."""
    features = learner.net.features(weights, support.x, mask=support.mask)
    (name,) = (name for name, heads in is_head.items() if any(jax.tree.leaves(heads)))
    of_class = jax.nn.one_hot(support.y, weights[name]["bias"].shape[-1], dtype=features.dtype)
    of_class = of_class if support.mask is None else of_class * support.mask[:, None]
    means = (of_class.T @ features) / jnp.sum(of_class, axis=0)[:, None]
    return {name: {"weight": 2.0 * means.T, "bias": -jnp.sum(jnp.square(means), axis=1)}}
