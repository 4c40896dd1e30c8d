"""What a task is judged by. Each objective is a frozen dataclass with `loss` and `score`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class CrossEntropy:
    """Classification: mean softmax cross entropy; the score is the accuracy in [0, 1]."""

    score_name = "accuracy"

    def loss(self, logits: Float[Array, "n way"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        """−1/n Σ_i log softmax(logits_i)[label_i]."""
        chosen = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)

    def score(self, logits: Float[Array, "n way"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        """Share of examples whose largest logit is the label's; NaN where a logit is NaN or Inf.

        `argmax` takes a NaN for the largest: a net that broke would seem to guess, always class 0.
        """
        share = jnp.mean((jnp.argmax(logits, axis=1) == labels).astype(logits.dtype))
        return jnp.where(jnp.all(jnp.isfinite(logits)), share, jnp.nan)


@dataclass(frozen=True)
class SquaredError:
    """Regression: mean squared error over points and outputs, for the loss and for the score."""

    score_name = "mse"

    def loss(self, outputs: Float[Array, "n out"], targets: Float[Array, "n out"]) -> Float[Array, ""]:
        """1/n Σ_i (f(x_i) − y_i)²."""
        return jnp.mean(jnp.square(outputs - targets))

    def score(self, outputs: Float[Array, "n out"], targets: Float[Array, "n out"]) -> Float[Array, ""]:
        """The loss itself: lower is better."""
        return self.loss(outputs, targets)


Objective = CrossEntropy | SquaredError
