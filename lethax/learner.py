"""The contracts. A method fits `Learner`, a network fits `Net`; the docstrings here are the specification.

All functions are written for one task and are pure; `vmap`, or a loop inside the compiled program, makes the meta-batch.
"""

from typing import Any, Protocol

from jaxtyping import Array, Float, PRNGKeyArray

from lethax.objectives import Objective
from lethax.records import Episode, Info, Progress, Split, Weights


class Net(Protocol):
    """A recipe for weights: a frozen dataclass, compared by value, so that equal nets share compiled programs."""

    def init(self, key: PRNGKeyArray) -> Weights:
        """Fresh weights: nested dicts of float arrays with names fit for a figure's axis."""

    def apply(
        self,
        weights: Weights,
        x: Array,
        *,
        step: int | Array = 0,
        reference: int = 0,
        mask: Float[Array, " n"] | None = None,
    ) -> Array:
        """Outputs [n, out] of inputs `x` [n, ...].

        `step` is the inner step, read by nets with per-step norms. `reference` is the number of leading examples whose
        moments every batch norm uses; 0 stands for all of them (transductive). Of those, `mask` says which count.
        """

    def modulated(self) -> dict[str, int]:
        """Layers whose outputs a task encoder may scale and shift, with their channels; empty where there are none."""

    def adapted(self, weights: Weights) -> Any:
        """A tree of booleans like `weights`: which leaves the inner loop moves (batch norms stay)."""

    def head(self, weights: Weights) -> Any:
        """A tree of booleans like `weights`: which leaves belong to the last layer (ANIL, BOIL)."""


class Learner(Protocol):
    """A method: how meta-parameters are made, adapted to a task, used and trained."""

    @property
    def net(self) -> Any:
        """The network."""

    @property
    def objective(self) -> Objective:
        """What a task is judged by."""

    @property
    def steps(self) -> int:
        """Inner steps."""

    @property
    def exact(self) -> bool:
        """Whether the gradient of `loss` is its derivative; false for first-order, detached and implicit gradients."""

    def init(self, key: PRNGKeyArray) -> Any:
        """Fresh meta-parameters: all that the outer loop learns."""

    def adapt(self, meta: Any, support: Split, *, key: PRNGKeyArray | None = None) -> tuple[Any, Info]:
        """Fast weights for one task, a usable model on their own, and what is worth looking at."""

    def predict(self, fast: Any, x: Array, mask: Float[Array, " n"] | None = None) -> Array:
        """Outputs [n, out] of adapted weights; `mask` says which inputs count where they are normalised together."""

    def loss(
        self, meta: Any, episode: Episode, *, key: PRNGKeyArray | None = None, progress: Progress | None = None
    ) -> tuple[Float[Array, ""], Info]:
        """The outer objective of one task; its gradient in `meta` is the meta-gradient."""

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Array, Info]:
        """Query outputs [steps + 1, n, out] after 0 to `steps` inner steps."""

    def gate_names(self) -> list[str]:
        """What each entry of info["gates"] scales; empty where there are none."""

    def at(self, step: int) -> "Learner":
        """The learner of outer step `step`: itself, unless static choices change (first to second order)."""
