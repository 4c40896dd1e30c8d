"""What a task is judged by. Each objective is a frozen dataclass with `loss` and `score`."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lethax.errors import DataError


@runtime_checkable
class Objective(Protocol):
    """What adaptation minimises. The score of a policy, its return, comes from rollouts and not from its outputs."""

    @property
    def score_name(self) -> str:
        """What the score is called."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is a better one."""

    def loss(self, outputs: Any, targets: Any, mask: Any = None, /) -> Float[Array, ""]:
        """The loss of one task, over the examples that count."""


@runtime_checkable
class ScoredObjective(Objective, Protocol):
    """An objective whose score is a function of outputs and targets."""

    def score(self, outputs: Any, targets: Any, mask: Any = None, /) -> Float[Array, ""]:
        """The score of one task."""


def mean_of(values: Float[Array, "n *entry"], mask: Float[Array, " n"] | None) -> Float[Array, "*entry"]:
    """The mean over the examples that count: Σ_i m_i v_i / Σ_i m_i; without a mask, over all."""
    return jnp.mean(values, axis=0) if mask is None else jnp.tensordot(mask, values, axes=1) / jnp.sum(mask)


@dataclass(frozen=True)
class CrossEntropy:
    """Classification: mean softmax cross entropy; the score is the accuracy in [0, 1]."""

    score_name = "accuracy"
    higher_is_better = True

    def loss(
        self, logits: Float[Array, "n way"], labels: Int[Array, " n"], mask: Float[Array, " n"] | None = None
    ) -> Float[Array, ""]:
        """−1/n Σ_i log softmax(logits_i)[label_i], over the n examples that count."""
        chosen = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        return mean_of(jax.nn.logsumexp(logits, axis=1) - chosen, mask)

    def score(
        self, logits: Float[Array, "n way"], labels: Int[Array, " n"], mask: Float[Array, " n"] | None = None
    ) -> Float[Array, ""]:
        """Share of examples whose largest logit is the label's; NaN where a largest logit is no finite number.

        `argmax` takes a NaN for the largest: a net that broke would seem to guess, always class 0.
        """
        share = mean_of((jnp.argmax(logits, axis=1) == labels).astype(logits.dtype), mask)
        return jnp.where(jnp.all(jnp.isfinite(jnp.max(logits, axis=1))), share, jnp.nan)


@dataclass(frozen=True)
class VariableCrossEntropy(CrossEntropy):
    """Classification where a head has outputs for the most classes that any task has: a task of N classes is told by the first N.

    N is the largest label and one: every class of a task has to be among the examples. The other outputs count as −∞, so that loss,
    score and gradients are those of a head of N outputs.
    """

    def loss(
        self, logits: Float[Array, "n way"], labels: Int[Array, " n"], mask: Float[Array, " n"] | None = None
    ) -> Float[Array, ""]:
        """The loss of the first N outputs."""
        return super().loss(_first(logits, labels), labels, mask)

    def score(
        self, logits: Float[Array, "n way"], labels: Int[Array, " n"], mask: Float[Array, " n"] | None = None
    ) -> Float[Array, ""]:
        """The score of the first N outputs."""
        return super().score(_first(logits, labels), labels, mask)


def _first(logits: Float[Array, "n way"], labels: Int[Array, " n"]) -> Float[Array, "n way"]:
    """The outputs of the classes up to the largest label, and −∞."""
    return jnp.where(jnp.arange(logits.shape[1]) <= jnp.max(labels), logits, -jnp.inf)


@dataclass(frozen=True)
class SquaredError:
    """Regression: mean squared error over points and outputs, for the loss and for the score."""

    score_name = "mse"
    higher_is_better = False

    def loss(
        self, outputs: Float[Array, "n out"], targets: Float[Array, "..."], mask: Float[Array, " n"] | None = None
    ) -> Float[Array, ""]:
        """1/n Σ_i (f(x_i) − y_i)², over the n points that count. DataError if outputs and targets differ in shape."""
        if outputs.shape != targets.shape:
            found, given = list(outputs.shape), list(targets.shape)
            raise DataError(f"outputs have the shape {found}, but targets {given}: give targets [n, out].")
        squares = jnp.square(outputs - targets)
        return jnp.mean(squares) if mask is None else mean_of(jnp.mean(squares, axis=1), mask)

    def score(
        self, outputs: Float[Array, "n out"], targets: Float[Array, "..."], mask: Float[Array, " n"] | None = None
    ) -> Float[Array, ""]:
        """The loss itself: lower is better."""
        return self.loss(outputs, targets, mask)
