"""What MAML's inner loop asks of its parts: a start, an encoder, and a bridge that replaces the derivative of the loop."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import PRNGKeyArray

from lethax import inner
from lethax.records import Info, Split, Weights


@runtime_checkable
class Start(Protocol):
    """Where the inner loop starts, given the support gradient at θ."""

    @property
    def detached(self) -> bool:
        """Whether that gradient counts as a constant."""

    @property
    def every_step(self) -> bool:
        """Whether it is applied again before every inner step."""

    def groups(self, like: Weights) -> list[str]:
        """The name of every gate."""

    def init(self, key: PRNGKeyArray, like: Weights) -> Any:
        """Meta-parameters of the start."""

    def apply(self, params: Any, gradient: Weights, weights: Weights) -> tuple[Weights, Info]:
        """The weights to start from. `gradient` and `weights` are trees of the tensors that move."""


@runtime_checkable
class Pacing(Protocol):
    """A start that also says how far the inner steps of each tensor go."""

    def pace(self, params: Any, gradient: Weights, weights: Weights) -> Weights | None:
        """The factor of every inner step of each tensor, of a shape that broadcasts to it; None: all are 1."""


@runtime_checkable
class Encoder(Protocol):
    """A task encoder: it reads the support set once, and the inner loop does not move what it says."""

    def init(self, key: PRNGKeyArray) -> Any:
        """Meta-parameters of the encoder."""

    def apply(self, params: Any, support: Split) -> dict[str, Any]:
        """The modulation of every layer that `Net.modulated` names."""


@runtime_checkable
class Bridge(Protocol):
    """A way for the meta-gradient to pass the inner loop without differentiating through it (Reptile, iMAML)."""

    @property
    def proximity(self) -> float:
        """λ: every inner gradient gets λ (w − w_0) added."""

    def apply(self, loss: inner.Loss, start: Weights, last: Weights, fixed: Any, data: Any) -> Weights:
        """`last` with a derivative in `start` of the bridge's own; `loss(weights, fixed, data)` is the support loss."""
