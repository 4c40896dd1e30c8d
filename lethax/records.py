"""Records of arrays that every floor shares; `vmap` and `jit` see through them."""

from typing import Any, NamedTuple

from jaxtyping import Array

Weights = dict[str, Any]  # a net's parameters: nested dicts of arrays
Info = dict[str, Any]  # what is only looked at: logged, plotted, never fed back


class Split(NamedTuple):
    """Examples of one task: `x` [n, ...], `y` [n] (class numbers) or [n, out] (targets), or a record of arrays."""

    x: Array
    y: Any


class Episode(NamedTuple):
    """One task; a meta-batch adds a leading axis to every array."""

    support: Split
    query: Split


class EpisodeShape(NamedTuple):
    """Classes an episode, support examples a class, query examples a class. Regression has way 1."""

    way: int
    shot: int
    query: int


class Progress(NamedTuple):
    """How far training is: outer `step` (from 0) of `total`; traced, so that schedules never recompile."""

    step: Array
    total: Array
