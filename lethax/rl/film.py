"""Record a rollout of an adapted policy in a locomotion task, as the positions that `render` draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from lethax import trees
from lethax.rl.locomotion import Locomotion
from lethax.rl.outer import PolicyPlan, adapted, travel


def positions(
    learner: Any, plan: PolicyPlan, meta: Any, environment: Locomotion, task: np.ndarray, key: PRNGKeyArray
) -> tuple[Float[np.ndarray, "T q"], Float[np.ndarray, "T q"]]:
    """qpos of every step of a rollout before adaptation and of one after it, in one task; mean actions, the same start."""
    trip = travel(learner, plan, meta, environment, task[None], key, learner.steps)
    fast, _ = adapted(learner, meta, trip.supports)
    after = trees.at(fast, 0)
    seed = np.asarray(jax.random.key_data(key))
    return tuple(_walk(learner.net, w, environment, task, seed) for w in (meta["weights"], after))  # type: ignore[return-value]


def _walk(policy: Any, weights: Any, environment: Locomotion, task: np.ndarray, seed: np.ndarray) -> np.ndarray:
    state, seen = environment.reset(np.random.default_rng(seed), task[None])
    places = []
    for _ in range(environment.horizon):
        places.append(state.physics[0, 1 : 1 + environment.robot.qpos])
        actions = np.asarray(policy.apply(weights, jnp.asarray(seen)).mean)
        state, seen, _, done = environment.step(state, actions, task[None])
        if done[0]:
            break
    return np.stack(places)
