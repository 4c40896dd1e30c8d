"""Rollouts of policies, on the device or in a simulator of the host."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lethax.rl.environment import Environment, HostEnvironment


class Rollouts(NamedTuple):
    """K rollouts of T steps in one task; a meta-batch adds a leading axis.

    `alive` is 1 for the steps that count: the one that ends a rollout does, what pads it to T does not. `actions` are as the
    policy drew them, before the environment scales and clips them.
    """

    observations: Float[Array, "T K o"]
    actions: Float[Array, "T K a"]
    rewards: Float[Array, "T K"]
    alive: Float[Array, "T K"]

    def returns(self) -> Float[Array, "*batch"]:
        """The mean, over the rollouts, of the undiscounted return."""
        return jnp.sum(self.rewards * self.alive, axis=(-2, -1)) / self.rewards.shape[-1]


def draw_tasks(environment: Any, key: PRNGKeyArray, count: int, balanced: bool = False) -> Any:
    """Tasks [count, task] of the environment's distribution; task t of a key is the same whatever the count, on the device."""
    if environment.on_host:
        return environment.draw(np.random.default_rng(np.asarray(jax.random.key_data(key))), count, balanced)
    return jax.vmap(lambda t: environment.draw(jax.random.fold_in(key, t)))(jnp.arange(count))


def collect_batch(
    environment: Any, policy: Any, weights: Any, tasks: Any, key: PRNGKeyArray, count: int, shared: bool = False
) -> Rollouts:
    """`count` rollouts in each of the tasks [B, task]: arrays [B, T, K, …]. `weights` lead with the task unless `shared`."""
    if environment.on_host:
        each = jax.tree.map(lambda w: jnp.broadcast_to(w, (len(tasks), *w.shape)), weights) if shared else weights
        return collect_on_host(environment, policy, each, tasks, key, count)
    one = lambda w, task, k: collect(environment, policy, w, task, k, count)  # noqa: E731
    keys = jax.random.split(key, tasks.shape[0])
    return jax.vmap(one, (None if shared else 0, 0, 0))(weights, tasks, keys)


def collect(
    environment: Environment, policy: Any, weights: Any, task: Array, key: PRNGKeyArray, count: int
) -> Rollouts:
    """`count` rollouts of one policy in one task of an environment on the device."""
    for_reset, for_noise, for_steps = jax.random.split(key, 3)
    states, first = jax.vmap(environment.reset, (0, None))(jax.random.split(for_reset, count), task)
    noise = jax.random.normal(for_noise, (environment.horizon, count, environment.actions))

    def body(carry: Any, inputs: Any) -> Any:
        states, seen, alive = carry
        noise, key = inputs
        normal = policy.apply(weights, seen)
        actions = normal.mean + jnp.exp(normal.log_std) * noise
        keys = jax.random.split(key, count)
        after, observed, rewards, done = jax.vmap(environment.step, (0, 0, 0, None))(keys, states, actions, task)
        goes_on = lambda new, old: jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)) > 0, new, old)  # noqa: E731
        states, observed = jax.tree.map(goes_on, (after, observed), (states, seen))
        step = Rollouts(seen, actions, rewards * alive, alive)
        return (states, observed, alive * (1 - done.astype(alive.dtype))), step

    steps = jax.random.split(for_steps, environment.horizon)
    return jax.lax.scan(body, (states, first, jnp.ones(count)), (noise, steps))[1]


def collect_on_host(
    environment: HostEnvironment, policy: Any, weights: Any, tasks: np.ndarray, seed: PRNGKeyArray, count: int
) -> Rollouts:
    """`count` rollouts in each of the tasks [B, task], each with its own weights [B, …]; arrays [B, T, K, …]."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(seed)))
    batch = len(tasks)
    of_rollouts = np.repeat(tasks, count, axis=0)
    states, seen = environment.reset(rng, of_rollouts)
    alive = np.ones(batch * count, np.float32)
    kept: list[tuple[np.ndarray, ...]] = []
    for _ in range(environment.horizon):
        noise = rng.standard_normal((batch, count, environment.actions), np.float32)
        actions = np.asarray(_act(policy, weights, seen.reshape(batch, count, -1), noise))
        actions = actions.reshape(batch * count, -1)
        states, after, rewards, done = environment.step(states, actions, of_rollouts)
        kept.append((seen, actions, rewards * alive, alive))
        seen, alive = after, alive * ~done
    stacked = (np.stack(part).reshape(len(kept), batch, count, *part[0].shape[1:]) for part in zip(*kept, strict=True))
    return Rollouts(*(jnp.asarray(np.swapaxes(part, 0, 1), float) for part in stacked))


@partial(jax.jit, static_argnums=0)
def _act(policy: Any, weights: Any, seen: Any, noise: Any) -> Array:
    normal = jax.vmap(policy.apply)(weights, seen)
    return normal.mean + jnp.exp(normal.log_std)[:, None] * noise
