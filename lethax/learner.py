"""The contracts. A method fits `Learner`, a network fits `Net`; the docstrings here are the specification.

All functions are written for one task and are pure; `vmap`, or a loop inside the compiled program, makes the meta-batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.objectives import CrossEntropy, Objective
from lethax.records import Episode, EpisodeShape, Info, Mask, Meta, Progress, Split, Weights


@runtime_checkable
class Net(Protocol):
    """A network: a frozen dataclass that makes and applies weights. Equal nets share compiled programs."""

    def init(self, key: PRNGKeyArray) -> Weights:
        """Make fresh weights: nested dicts of float arrays, with names that can stand at the axis of a figure."""

    def apply(
        self,
        weights: Weights,
        x: Array,
        *,
        step: int | Array = 0,
        reference: int = 0,
        mask: Float[Array, " r"] | None = None,
    ) -> Array:
        """Compute outputs [n, out] of inputs `x` [n, ...].

        `step` is the inner step, read by nets with per-step norms. `reference` is the number of leading examples whose
        moments every batch norm uses; 0 stands for all of them (transductive). Of those, `mask` says which count.
        """

    def modulated(self) -> dict[str, int]:
        """The layers whose outputs a task encoder may scale and shift, with their numbers of channels; empty if there are none."""

    def adapted(self, weights: Weights) -> Mask:
        """A tree of booleans like `weights`: which leaves the inner loop moves (batch norms stay)."""

    def head(self, weights: Weights) -> Mask:
        """A tree of booleans like `weights`: which leaves belong to the last layer (ANIL, BOIL)."""


@runtime_checkable
class Normalised(Protocol):
    """A net with batch norms."""

    def normed(self, weights: Weights) -> Mask:
        """Which leaves a batch norm follows, so that their scale changes no output but for the norm's ε."""


@runtime_checkable
class Featured(Protocol):
    """A net that says what its last layer reads."""

    def features(self, weights: Weights, x: Array, *, mask: Float[Array, " n"] | None = None) -> Float[Array, "n f"]:
        """Compute the inputs of the last layer, of inputs `x` [n, ...]. `mask` says which inputs count in the moments of norms."""


@runtime_checkable
class Learner(Protocol):
    """A method: it makes meta-parameters, adapts them to a task, predicts, and gives the objective that trains them."""

    @property
    def net(self) -> Net:
        """The network."""

    @property
    def objective(self) -> Objective:
        """The loss and the score of a task."""

    @property
    def steps(self) -> int:
        """The number of inner steps."""

    @property
    def exact(self) -> bool:
        """Whether the gradient of `loss` is its exact derivative; false for first-order, detached and implicit gradients."""

    def init(self, key: PRNGKeyArray) -> Meta:
        """Make fresh meta-parameters, which are all that the outer loop learns."""

    def adapt(self, meta: Any, support: Split, *, key: PRNGKeyArray | None = None) -> tuple[Any, Info]:
        """Adapt to one task: returns fast weights, which are a model on their own, and info to look at."""

    def predict(self, fast: Any, x: Array, mask: Float[Array, " n"] | None = None) -> Array:
        """Compute outputs [n, out] of adapted weights. `mask` says which inputs count if they are normalised together."""

    def loss(
        self, meta: Any, episode: Episode, *, key: PRNGKeyArray | None = None, progress: Progress | None = None
    ) -> tuple[Float[Array, ""], Info]:
        """Compute the outer objective of one task, whose gradient in `meta` is the meta-gradient, and info to look at."""

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Array, Info]:
        """Compute query outputs [steps + 1, n, out] after 0 to `steps` inner steps."""

    def gate_names(self) -> list[str]:
        """What each entry of info["gates"] scales; empty if there are no gates."""

    def at(self, step: int) -> "Learner":
        """The learner of outer step `step`: itself, unless a static choice changes there, such as the order."""


@runtime_checkable
class Classifier(Protocol):
    """What classifies the queries of an episode by its support set alone. It is judged as a learner is."""

    @property
    def objective(self) -> CrossEntropy:
        """What it is judged by."""

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Float[Array, "1 n way"], Info]:
        """The query outputs; `meta` and `steps` change nothing."""


class InnerPath(NamedTuple):
    """What the inner loop of one task does, laid open for analyses.

    stops: w_0 … w_J, the tensors that the inner loop moves, each with a leading axis [J + 1]. loss: the support loss at such
    tensors, with the norms of an inner step. model: fast weights made of such tensors, which `Learner.predict` takes.
    """

    stops: Weights
    loss: Callable[[Weights, int | Array], Float[Array, ""]]
    model: Callable[[Weights, int | Array], Any]

    @property
    def steps(self) -> int:
        """The number of inner steps J."""
        return int(jax.tree.leaves(self.stops)[0].shape[0]) - 1

    def stop(self, step: int | Array) -> Weights:
        """The tensors w_j."""
        return trees.at(self.stops, step)


@runtime_checkable
class Traceable(Protocol):
    """A learner whose inner loop moves the tensors of its net, so that analyses can follow it."""

    def inner_path(self, meta: Any, support: Split, steps: int) -> InnerPath:
        """Take `steps` inner steps on a support set, and return all stops with the support loss as a function."""


@runtime_checkable
class TaskFamily(Protocol):
    """Tasks to draw from: a frozen dataclass, compared by value."""

    def draw(self, source: Any, shape: EpisodeShape, key: PRNGKeyArray, /) -> Episode:
        """One episode, a function of its arguments alone, which is compiled; `source` is a tree of arrays."""


# The keys [count] of the episodes `first` … `first` + `count` − 1 of a key.
EpisodeKeys = Callable[[PRNGKeyArray, Any, int], Array]


@runtime_checkable
class HostFamily(Protocol):
    """Tasks whose episodes are read on the host, because their shapes differ or the device has no room for all examples.

    A frozen dataclass, compared by value. `episodes` is part of the program, which is compiled once for each shape of arrays.
    """

    def fetch(
        self, source: Any, shape: EpisodeShape, key: PRNGKeyArray, first: int, count: int, keys: EpisodeKeys, /
    ) -> Any:
        """Read the episodes `first` … `first` + `count` − 1 of a key, each a function of source, key and its number alone.

        keys: gives their keys, with which a `TaskFamily` would draw the same episodes; shape is theirs. A family whose episodes
        follow from their numbers reads neither.
        """

    def episodes(self, arrays: Any, /) -> Episode:
        """The episodes that `fetch` read, with a leading axis."""


def read(
    family: HostFamily, source: Any, shape: EpisodeShape, key: PRNGKeyArray, first: int, count: int, keys: EpisodeKeys
) -> Episode:
    """The episodes `first` … `first` + `count` − 1 of a key, with a leading axis, on the device; see `HostFamily.fetch`."""
    return _made(family, family.fetch(source, shape, key, first, count, keys))


@partial(jax.jit, static_argnums=0)
def _made(family: HostFamily, arrays: Any) -> Episode:
    return family.episodes(arrays)
