"""The arithmetic of a network's passes: float32, TF32, or bfloat16 with float32 around it.

A network's weights and examples are rounded where they enter it, and what it gives is float32 again. The derivatives of a pass
follow the same border, so that the inner gradients, the fast weights, the loss, the meta-gradient and the optimiser's state are
float32, and only what lies inside of a network is narrower.
"""

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

P = ParamSpec("P")
R = TypeVar("R")
Precision = Literal["float32", "tf32", "bfloat16"]
# JAX's names for the precision of a product of float32 arrays. Its own default is TF32 on the GPUs that have it.
_PRODUCTS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "default"}


def passes(function: Callable[P, R], precision: Precision) -> Callable[P, R]:
    """`function`, a pass of a network, computed in a precision.

    "float32": as it is, and in float64 where its arguments are float64; no product is shortened to TF32. "tf32": float32, but on
    GPUs that have it the operands of matrix products and convolutions are rounded to 10 bits of mantissa; elsewhere as "float32".
    "bfloat16": float arguments are rounded to bfloat16, 7 bits of mantissa and the range of float32, and results are float32.
    """

    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision(_PRODUCTS[precision]):
            if precision != "bfloat16":
                return function(*args, **kwargs)
            args, kwargs = jax.tree.map(lambda leaf: _floats(leaf, jnp.bfloat16), (args, kwargs))
            made: R = jax.tree.map(lambda leaf: _floats(leaf, jnp.float32), function(*args, **kwargs))
            return made

    return computed


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x in float32 if it is narrower: for sums and differences in which bfloat16 would lose what matters."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _floats(leaf: Any, dtype: Any) -> Any:
    return leaf.astype(dtype) if jnp.issubdtype(getattr(leaf, "dtype", int), jnp.floating) else leaf
