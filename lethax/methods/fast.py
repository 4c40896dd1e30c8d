"""The model of one task after adaptation, and its outputs: whose moments batch norm uses for the queries.

batch:      those of the query batch itself; outputs depend on the other queries (transductive, as in the released code)
support:    those of the support set
support+1:  those of the support set and the one query
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lethax.records import Split, Weights

NormMode = Literal["batch", "support", "support+1"]


class Fast(NamedTuple):
    """The model of one task: its weights, the inner steps taken, and, if the norms need it, the support set without labels."""

    weights: Weights
    step: int | Array
    support: Split | None


def query_outputs(
    apply: Callable[..., Array], norm: NormMode, fast: Fast, x: Array, mask: Float[Array, " n"] | None
) -> Array:
    """The outputs [n, out] of inputs x [n, ...] by a pass `apply` of the net. `mask` [n] marks examples that count in moments."""
    if norm == "batch":
        return apply(fast.weights, x, step=fast.step, mask=mask)
    assert fast.support is not None
    seen, counts = fast.support.x, fast.support.mask
    count = seen.shape[0]
    if norm == "support":
        joined = jnp.concatenate([seen, x])
        return apply(fast.weights, joined, step=fast.step, reference=count, mask=counts)[count:]

    def alone(example: Array) -> Array:
        joined = jnp.concatenate([seen, example[None]])
        also = None if counts is None else jnp.append(counts, 1.0)
        return apply(fast.weights, joined, step=fast.step, mask=also)[count]

    return jax.lax.map(alone, x)
