"""Evaluate adapted policies: their returns in fixed tasks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.rl.outer import PolicyPlan, travel
from lethax.rl.rollouts import draw_tasks
from lethax.rules import Slower

_travel = jax.jit(travel, static_argnums=(0, 1, 3, 6))


def test_tasks(environment: Any, key: PRNGKeyArray, count: int) -> Any:
    """Draw `count` fixed tasks from a key, balanced if they are directions."""
    return draw_tasks(environment, jax.random.fold_in(key, 0), count, balanced=True)


def evaluate(
    learner: Any,
    plan: PolicyPlan,
    meta: Any,
    environment: Any,
    tasks: Any,
    key: PRNGKeyArray,
    updates: int,
    later: float,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield (returns [n, updates + 1], info) of groups of tasks: mean returns after 0 … `updates` updates.

    Seen: "gates" [n, L]; "tasks" [n, task], and of a rollout after each number of updates "observations" [n, updates + 1, T, o] and
    "alive" [n, updates + 1, T].

    The rollouts that are judged are those that the next update learns from. Updates beyond the trained ones move by `later` of
    what the rule says. "0 updates" is the policy before it has seen anything of the task, without L2F's gates.
    Finn et al. 2017 and its code (a half); Baik et al. 2020, Table E(b): 4 updates.
    """
    environment.check(tasks)
    learner = replace(learner, order=1, rule=Slower(learner.rule, later, learner.steps))
    run = travel if environment.on_host else _travel
    for first in range(0, len(tasks), plan.batch):
        some = tasks[first : first + plan.batch]
        trip = run(learner, plan, meta, environment, some, jax.random.fold_in(key, 1 + first), updates)
        seen = {
            "tasks": some, "observations": jnp.stack([f.observations for f in trip.firsts], axis=1),
            "alive": jnp.stack([f.alive for f in trip.firsts], axis=1), **trip.info,
        }  # fmt: skip
        yield np.asarray(trip.returns), {name: np.asarray(leaf) for name, leaf in seen.items()}
