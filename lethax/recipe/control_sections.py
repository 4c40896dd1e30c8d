"""The sections of a recipe that only control reads, as those of `built_in.py`."""

from dataclasses import dataclass
from typing import Literal

from lethax.recipe.options import MANY, option


@dataclass(frozen=True)
class ControlSection:
    """Meta-reinforcement learning with MAML-TRPO."""

    horizon: int = option(100, "A rollout has this many steps.", low=1, high=100_000)
    discount: float = option(
        0.99, "A reward is multiplied by this factor for every step that it comes later.", low=0, high=1
    )
    smoothing: float = option(1.0, "λ of the generalised advantage estimates.", low=0, high=1)
    loss: Literal["log", "ratio", "importance"] = option(
        "log",
        "The inner loss weighs advantages by log π, by the ratio of the policies (which adds the curvature of the sampling), or "
        "by importance weights.",
    )
    gate_log_std: bool = option(False, "L2F also gates log σ, where σ are the deviations of the policy.")
    resample: bool = option(False, "The first update of L2F learns from new rollouts of the attenuated policy.")
    eval_rollouts: int = option(
        0,
        "In validation and evaluation an update has this many rollouts, whatever --shot says; 0 takes as many as --shot.",
        low=0,
        high=MANY,
    )
    later_rate: float = option(
        0.5, "In evaluation, updates beyond the number in training take this share of the inner rate.", low=0, high=1
    )
    max_kl: float = option(
        0.01, "An outer step changes the adapted policies by at most this mean KL divergence.", low=1e-8, high=10
    )
    cg_iterations: int = option(10, "The conjugate gradient method takes this many iterations.", low=1, high=1000)
    cg_share: float = option(
        1.0, "The conjugate gradient method uses the curvature of this share of the tasks.", low=1e-3, high=1
    )
    damping: float = option(1e-5, "This number is added to the diagonal of the curvature.", low=0, high=10)
    backtrack: float = option(0.8, "The line search multiplies a step that fails by this factor.", low=0.01, high=0.99)
    backtracks: int = option(
        15, "The line search tries at most this many lengths of a step, the whole one first.", low=1, high=100
    )
    activation: Literal["relu", "tanh"] = option("relu", "The activation of the policy's hidden layers.")


@dataclass(frozen=True)
class NavigationSection:
    """2D navigation, in which a point moves to a goal."""

    limit: float = option(0.1, "A move is at most this long along an axis.", above=0)
    actions: Literal["normalized", "raw"] = option(
        "normalized", "A move is limit × action (normalized) or the action itself (raw), and is then cut to the limit."
    )
    starts: Literal["task", "rollout"] = option(
        "task", "The start is drawn once for each task, or anew for each rollout."
    )


@dataclass(frozen=True)
class LocomotionSection:
    """Half-cheetah and ant, which MuJoCo simulates."""

    physics: Literal["gym", "rllab"] = option("gym", "The time step of the simulation is that of gym or of rllab.")
    action_scale: float = option(10.0, "An action of ± this scale is the full force of a motor.", above=0)
    contact: bool = option(False, "The ant observes its contact forces, and they lower its reward.")
