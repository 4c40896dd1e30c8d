"""Any gymnasium environment whose task can be set, under the contract of `locomotion.Locomotion`; one after the other.

def set_gravity(env, task):
    env.unwrapped.g = float(task[0])

pendulum = GymEnvironment("Pendulum-v1", lambda rng, n: rng.uniform(5, 15, (n, 1)), set_gravity, horizon=200)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from lethax.errors import DivergedError, EnvironmentFault
from lethax.rl.aims import Rewards, Tasks
from lethax.rl.locomotion import Done, Observations
from lethax.rl.physics import need


class Seats(NamedTuple):
    """State of n rollouts; the rest of it is in the environments. turn: which step it belongs to."""

    turn: int
    observed: Observations
    done: Done


class GymEnvironment:
    """Rollouts in as many copies of a gymnasium environment, reset once and never by themselves.

    make: a function that makes the environment, or an id of `gymnasium.make`. draw_tasks(rng, count): tasks [count, task].
    set_task(env, task): called before each reset. action_scale: K; a policy's actions in [−K, K] are mapped on the box and
    clipped, and reach it as they are where it has no bounds. check_task(task): whether a task is one, by default any finite.
    A rollout is done when the environment terminates or truncates it.
    Differs: a state can be stepped once, as environments of gymnasium cannot go back; an older state is an EnvironmentFault.
    """

    on_host = True

    def __init__(
        self,
        make: Callable[[], Any] | str,
        draw_tasks: Callable[[np.random.Generator, int], np.ndarray],
        set_task: Callable[[Any, np.ndarray], None],
        *,
        horizon: int,
        action_scale: float = 1.0,
        check_task: Callable[[np.ndarray], bool] = lambda task: True,
    ) -> None:
        self._make = (lambda: need("gymnasium").make(make)) if isinstance(make, str) else make
        self._draw, self._set, self._check, self._turn = draw_tasks, set_task, check_task, 0
        self.horizon, self.action_scale = horizon, action_scale
        self._envs = [self._make()]
        spaces, seen, acted = need("gymnasium").spaces, self._envs[0].observation_space, self._envs[0].action_space
        if not isinstance(seen, spaces.Box) or not isinstance(acted, spaces.Box):
            raise EnvironmentFault(
                f"observations are {seen} and actions {acted}; expected a Box for both: wrap the environment so that its "
                "observations and actions are vectors of numbers."
            )
        self.observations, self.actions = int(np.prod(seen.shape)), int(np.prod(acted.shape))
        self.task_size = int(np.shape(draw_tasks(np.random.default_rng(0), 1))[1])

    def draw(self, rng: np.random.Generator, count: int, balanced: bool = False) -> Float64[np.ndarray, "count task"]:
        """Draw tasks by `draw_tasks`, which cannot balance them."""
        return np.asarray(self._draw(rng, count), np.float64)

    def check(self, tasks: Tasks) -> None:
        """Raise EnvironmentFault for the first task that `check_task` refuses, or whose shape or numbers do not fit."""
        if np.ndim(tasks) != 2 or np.shape(tasks)[1] != self.task_size:
            raise EnvironmentFault(f"tasks have shape {list(np.shape(tasks))}; expected [n, {self.task_size}].")
        for row, task in enumerate(np.asarray(tasks)):
            if not np.isfinite(task).all() or not self._check(task):
                raise EnvironmentFault(f"task {row} is {task.tolist()}, out of its range: take tasks from `draw`.")

    def reset(self, rng: np.random.Generator, tasks: Tasks) -> tuple[Seats, Observations]:
        """Begin a rollout in each task, with its own seed."""
        self.check(tasks)
        self._envs += [self._make() for _ in range(len(tasks) - len(self._envs))]
        observed, seeds = np.zeros((len(tasks), self.observations), np.float32), rng.integers(2**31, size=len(tasks))
        for row, task in enumerate(np.asarray(tasks)):
            self._set(self._envs[row], task)
            observed[row] = np.ravel(self._envs[row].reset(seed=int(seeds[row]))[0])
        self._turn += 1
        return Seats(self._turn, observed, np.zeros(len(tasks), bool)), observed

    def step(
        self, state: Seats, actions: Float[np.ndarray, "n action"], tasks: Tasks
    ) -> tuple[Seats, Observations, Rewards, Done]:
        """Take a step as `Locomotion.step` does. The tasks are those of `reset`, which the environments keep."""
        if state.turn != self._turn:
            raise EnvironmentFault(
                "this state was stepped before, or a reset followed it: go on from the newest state."
            )
        if np.shape(actions) != (len(state.done), self.actions):
            raise EnvironmentFault(
                f"actions have shape {list(np.shape(actions))}; expected [{len(state.done)}, {self.actions}]."
            )
        live = np.flatnonzero(~state.done)
        if not np.isfinite(actions[live]).all():
            raise DivergedError("an action is not finite, so the policy has diverged: lower its step sizes.")
        observed, done, rewards = state.observed.copy(), state.done.copy(), np.zeros(len(state.done))
        for row in live:
            seen, reward, terminated, truncated, _ = self._envs[row].step(self._control(actions[row]))
            observed[row], rewards[row], done[row] = np.ravel(seen), reward, terminated or truncated
        self._turn += 1
        return Seats(self._turn, observed, done), observed, rewards, done

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _control(self, action: Float[np.ndarray, " action"]) -> np.ndarray:
        box = self._envs[0].action_space
        low, high = np.float64(box.low), np.float64(box.high)
        part = np.clip(np.reshape(action, box.shape) / self.action_scale, -1.0, 1.0)
        with np.errstate(invalid="ignore"):
            mapped = low + (part + 1.0) * 0.5 * (high - low)
        bounded = np.isfinite(low) & np.isfinite(high)
        return np.where(bounded, mapped, np.clip(np.reshape(action, box.shape), low, high)).astype(box.dtype)
