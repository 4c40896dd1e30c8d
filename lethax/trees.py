"""Nested dicts of arrays: names, splitting by a mask, products."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

T = TypeVar("T")


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds JAX keys, which are no numbers."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def names(tree: Any) -> list[str]:
    """The path of every leaf, `conv0/weight`, in leaf order (JAX sorts the keys of dicts)."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path) for path, _ in paths
    ]


def layer_of(tensor: str) -> str:
    """The layer of a tensor: "conv0" of "conv0/weight"; a tensor that is in none is its own."""
    return tensor.rpartition("/")[0] or tensor


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """`function(name, leaf)` at every leaf."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [function(name, leaf) for name, leaf in zip(names(tree), leaves, strict=True)])


def partition(tree: Any, mask: Any) -> tuple[Any, Any]:
    """Split by a tree of booleans into (true, false); each has None, an empty tree to JAX, where the other has a leaf."""
    return (
        jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, tree),
        jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, tree),
    )


def combine(first: Any, second: Any) -> Any:
    """The inverse of `partition`."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def at(tree: T, index: Any) -> T:
    """Entry `index` of the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stacked(trees: Sequence[T]) -> T:
    """Equal trees with a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def mean(trees: Sequence[T]) -> T:
    """The mean of equal trees, leaf by leaf, as NumPy arrays."""
    return jax.tree.map(lambda *leaves: np.mean(np.stack(leaves), axis=0), *trees)


def dot(a: Any, b: Any) -> Array:
    """⟨a, b⟩ over all leaves."""
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.vdot(x, y), a, b)), start=jnp.zeros(()))


def norm(tree: Any) -> Array:
    """The L2 norm of all leaves together."""
    return jnp.sqrt(sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(())))


def size(tree: Any) -> int:
    """The number of scalars in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
