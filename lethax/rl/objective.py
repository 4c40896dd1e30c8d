"""The inner loss of meta-reinforcement learning: the policy gradient's surrogate on stored steps."""

from dataclasses import dataclass
from math import log
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lethax.gaussian import Normal, log_density
from lethax.records import Split
from lethax.rl.advantages import advantages
from lethax.rl.rollouts import Rollouts


class Steps(NamedTuple):
    """The n steps of a task's rollouts, without their observations.

    `behaviour` are the distributions that the actions were drawn from; `alive` is 1 for the steps that count.
    """

    actions: Float[Array, "n a"]
    advantages: Float[Array, " n"]
    alive: Float[Array, " n"]
    behaviour: Normal


@dataclass(frozen=True)
class PolicyGradient:
    """L = −mean over steps of ℓ_t A_t, with ℓ of the form

    "log":        log π(a|o): the vanilla policy gradient; the default.
    "ratio":      π(a|o) / [π(a|o)], the denominator held constant: of the same gradient, with the curvature that the sampling
                  of the steps adds (Rothfuss et al. 2019).
    "importance": π(a|o) / π_b(a|o) cut to at most `bound`, π_b the policy that drew the actions: for L2F, whose attenuated policy
                  is not that one.

    The steps themselves count as constants. Finn et al. 2017, section 5.3; mean over all steps of a task, as in its code.
    """

    score_name = "return"
    higher_is_better = True

    form: Literal["log", "ratio", "importance"] = "log"
    bound: float = 10.0

    def loss(self, outputs: Normal, steps: Steps, mask: None = None) -> Float[Array, ""]:
        """L of one task; `steps.alive` is its mask."""
        log_prob = log_density(outputs, steps.actions)
        if self.form == "log":
            likelihood = log_prob
        elif self.form == "ratio":
            likelihood = jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
        else:
            log_ratio = log_prob - log_density(steps.behaviour, steps.actions)
            likelihood = jnp.exp(jnp.minimum(log_ratio, log(self.bound)))  # cut first: 0 · Inf would be its derivative
        return -mean_over(likelihood * steps.advantages, steps.alive)


def mean_over(x: Float[Array, " n"], alive: Float[Array, " n"]) -> Float[Array, ""]:
    """The mean over the steps that count. Padding may have any finite value."""
    return jnp.sum(x * alive) / jnp.sum(alive)


def as_split(policy: Any, weights: Any, rollouts: Rollouts, discount: float, smoothing: float) -> Split:
    """The rollouts of one task as a support set: observations [T·K, o], and `Steps` with advantages; `weights` drew them."""
    flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])  # noqa: E731
    estimate = advantages(rollouts, discount, smoothing)
    observations = flat(rollouts.observations)
    behaviour = policy.apply(weights, observations)
    return Split(observations, Steps(flat(rollouts.actions), flat(estimate), flat(rollouts.alive), behaviour))
