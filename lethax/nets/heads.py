"""Where the last layer of a net starts in a task: from its trained columns, from zero, from one vector, or from prototypes.

    trained:     the columns of the learned head W, b; of N classes the first N, or all of them over and over
    zero:        W_c = 0, b_c = 0
    vector:      W_c = mean of the learned columns, b_c = mean of the learned biases
    prototypes:  W_c = 2 μ_c, b_c = −‖μ_c‖²,   μ_c = mean of the features of the support examples of class c

All but "trained" treat classes alike, so that they serve any number of classes. Under "zero" and "vector" all outputs of an example
are equal at first. Its loss then does not depend on the features, so that the first inner step moves the head alone, and L2F reads
a gradient whose means are all 0: gates that are made of means cannot depend on the task. What all classes share cancels in a
softmax, so that "vector" predicts as "zero" does, and no gradient reaches the learned columns; only ALFA reads weights and tells
the two apart. Under "prototypes" the first outputs are those of a nearest-prototype classifier, up to a constant, and the
meta-gradient passes through them: Triantafillou et al. 2020 (Proto-MAML).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lethax import trees
from lethax.errors import RecipeError
from lethax.learner import Featured, Net
from lethax.precision import Precision, passes
from lethax.records import Split, Weights

HeadStart = Literal["trained", "zero", "vector", "prototypes"]


def started(
    head: HeadStart,
    net: Net,
    weights: Weights,
    support: Split,
    modulation: Weights,
    precision: Precision = "float32",
) -> Weights:
    """The weights that a task starts from: those learned, with another last layer.

    Arguments:
        head: where the last layer starts. "trained" returns `weights` themselves if they have as many classes as the net.
        net: the net, with as many outputs as the support set has classes.
        weights: the learned weights, whose last layer may have another number of classes.
        support: the support set, inputs [n, ...] with class numbers [n], which "prototypes" reads.
        modulation: {"modulation": …} under which features are computed, or {} without a task encoder.
        precision: that of the pass which computes them, see `precision.passes`.

    Returns:
        Weights whose last layer has the net's number N of outputs: a weight [features, N] and a bias [N]. All else is as it was.

    Raises:
        RecipeError: for "prototypes" and a net whose features cannot be computed.

    Source: for "zero" and "prototypes", Triantafillou et al. 2020. The other two are ours.
    """
    like = _shapes(cast(Any, net))  # a frozen dataclass, so that it can be hashed
    is_head = net.head(like)
    if head == "trained" and _fits(weights, like):
        return weights
    change: Callable[[Any, Any], Array] = {"trained": _columns, "vector": _mean_column}.get(head, _zeros)
    made: Weights = jax.tree.map(lambda last, want, leaf: change(want, leaf) if last else leaf, is_head, like, weights)
    if head == "prototypes":
        made.update(_prototypes(net, {**made, **modulation}, is_head, support, precision))
    return made


@cache
def _shapes(net: Any) -> Weights:
    shapes: Weights = jax.eval_shape(net.init, jax.random.key(0))
    return shapes


def _fits(weights: Weights, like: Weights) -> bool:
    """Whether no tensor has to change its shape. What is in other places than in the net's own weights is left as it is."""
    if trees.names(weights) != trees.names(like):
        return True
    return all(jax.tree.leaves(jax.tree.map(lambda w, want: jnp.shape(w) == want.shape, weights, like)))


def _columns(want: Any, leaf: Any) -> Array:
    """The trained columns, over and over if more are wanted; the same array for as many."""
    return leaf if want.shape == leaf.shape else jnp.take(leaf, jnp.arange(want.shape[-1]) % leaf.shape[-1], axis=-1)


def _mean_column(want: Any, leaf: Any) -> Array:
    return jnp.broadcast_to(jnp.mean(leaf, axis=-1, keepdims=True), want.shape)


def _zeros(want: Any, leaf: Any) -> Array:
    return jnp.zeros(want.shape, leaf.dtype)


def _prototypes(net: Net, weights: Weights, is_head: Any, support: Split, precision: Precision) -> Weights:
    """The last layer with the weights of a nearest-prototype classifier."""
    if not isinstance(net, Featured):
        raise RecipeError(
            f"{type(net).__name__} does not say what its last layer reads: take another head than prototypes."
        )
    features = passes(net.features, precision)(weights, support.x, mask=support.mask)
    (name,) = (name for name, heads in is_head.items() if any(jax.tree.leaves(heads)))
    of_class = jax.nn.one_hot(support.y, weights[name]["bias"].shape[-1], dtype=features.dtype)
    of_class = of_class if support.mask is None else of_class * support.mask[:, None]
    # A class without examples has its prototype at 0, and not NaN: its column is of padding, which a mask leaves out.
    means = (of_class.T @ features) / jnp.maximum(jnp.sum(of_class, axis=0), 1.0)[:, None]
    return {name: {"weight": 2.0 * means.T, "bias": -jnp.sum(jnp.square(means), axis=1)}}
