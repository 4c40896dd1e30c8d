"""Records of arrays that all files share. `vmap` and `jit` see through them."""

from typing import Any, NamedTuple, TypedDict

from jaxtyping import Array

Weights = dict[str, Any]  # a net's parameters: nested dicts of arrays
Mask = dict[str, Any]  # like weights: True in the place of each leaf that is meant
Info = dict[str, Any]  # what is only looked at: logged, plotted, never fed back


class Split(NamedTuple):
    """Examples of one task: `x` [n, ...], `y` [n] (class numbers) or [n, out] (targets), or a record of arrays.

    `mask` [n] is 1 for examples that count and 0 for padding, so that smaller tasks fit the same arrays; None: all count. What pads
    has finite entries and the label of the class that it pads; losses, scores, the moments of norms and task encoders pass over it.
    """

    x: Array
    y: Any
    mask: Array | None = None


class Meta(TypedDict):
    """Meta-parameters: all that the outer loop learns. A method adds entries of its own; their names are those of checkpoints.

    `weights` are the initial weights. The bound `optimizer.clamp` cuts their meta-gradients alone, and whoever looks at what a net
    does before adaptation takes them.
    """

    weights: Weights


class Episode(NamedTuple):
    """The data of one task. A meta-batch adds a leading axis to every array."""

    support: Split
    query: Split


class EpisodeShape(NamedTuple):
    """The shape of an episode: its classes, and the support and query examples of each class. Regression has way 1."""

    way: int
    shot: int
    query: int


class Progress(NamedTuple):
    """The progress of training: outer `step` (from 0) of `total`. Both are traced, so that schedules never recompile."""

    step: Array
    total: Array
