"""From a recipe of meta-reinforcement learning to what runs: the environment, the learner, the outer loop, the evaluation."""

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import methods
from lethax.names import NAVIGATION, navigation_setting
from lethax.nets.policy import GaussianPolicy
from lethax.recipe import Recipe, options
from lethax.rl import evaluate as returns
from lethax.rl import film
from lethax.rl.locomotion import Locomotion
from lethax.rl.navigation import Navigation
from lethax.rl.objective import PolicyGradient
from lethax.rl.outer import PolicyPlan
from lethax.rl.physics import need
from lethax.rl.trpo import TrustRegion


def environment(recipe: Recipe) -> Any:
    """The tasks of a resolved recipe."""
    literal: Any = recipe
    assert recipe.rl_horizon
    if recipe.data in NAVIGATION:
        setting: Any = navigation_setting(recipe.data)
        return Navigation(setting, recipe.rl_limit or 0.1, literal.rl_actions, literal.rl_starts, recipe.rl_horizon)
    need("mujoco")  # said before a folder is made
    return Locomotion(recipe.data, recipe.rl_physics, recipe.rl_horizon, recipe.rl_action_scale, recipe.rl_contact)


def learner(recipe: Recipe) -> Any:
    """The method of a resolved recipe, on a policy."""
    literal: Any = recipe
    world = environment(recipe)
    hidden = (recipe.filters or 100,) * (recipe.depth or 2)
    return methods.build(
        recipe.method,
        GaussianPolicy(world.observations, world.actions, hidden, literal.rl_activation),
        rate=recipe.inner_rate or 0.0,
        rule=recipe.rule,
        attenuator={**options(recipe, "gate_"), "kept": () if recipe.rl_gate_log_std else ("log_std",)},
        objective=PolicyGradient(literal.rl_loss),
        steps=recipe.inner_steps,
        order=recipe.order,
        inner_clamp=recipe.inner_clamp or 0.0,
        derivative="plain",
    )


def plan(recipe: Recipe) -> PolicyPlan:
    """The outer loop of a resolved recipe."""
    assert recipe.steps and recipe.batch and recipe.shot and recipe.epoch
    region = TrustRegion(
        recipe.rl_max_kl, recipe.rl_cg_iterations, damping=recipe.rl_damping, backtrack=recipe.rl_backtrack,
        backtracks=recipe.rl_backtracks,
    )  # fmt: skip
    return PolicyPlan(
        recipe.steps, recipe.batch, recipe.shot, recipe.rl_discount, recipe.rl_smoothing, region, recipe.rl_cg_share,
        recipe.rl_resample, recipe.epoch, skip=recipe.non_finite == "skip",
        task_loop="scan" if jax.default_backend() == "cpu" else "vmap",
    )  # fmt: skip


def judge(
    recipe: Recipe, meta: Any, tasks: int, updates: int, key: PRNGKeyArray
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Returns after 0 … `updates` updates in fixed tasks: see `rl.evaluate.evaluate`."""
    world = environment(recipe)
    fixed = returns.test_tasks(world, key, tasks)
    return returns.evaluate(learner(recipe), plan(recipe), meta, world, fixed, key, updates, recipe.rl_later_rate)


def films(recipe: Recipe, meta: Any, key: PRNGKeyArray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(task, positions [T, qpos] before and after adaptation) in the first and the last of the 40 fixed tasks of locomotion."""
    world = environment(recipe)
    fixed = returns.test_tasks(world, key, 40)
    return [
        (task, *film.positions(learner(recipe), plan(recipe), meta, world, task, key)) for task in (fixed[0], fixed[-1])
    ]


def tasks_hash(recipe: Recipe, key: PRNGKeyArray, tasks: int) -> str:
    """SHA-256 (16 digits) of the fixed tasks: equal hashes, equal tasks."""
    world = environment(recipe)
    fixed = np.ascontiguousarray(returns.test_tasks(world, key, tasks), np.float32)
    return hashlib.sha256(repr((recipe.data, recipe.shot, world.horizon)).encode() + fixed.tobytes()).hexdigest()[:16]
