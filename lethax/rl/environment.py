"""The contract of environments. A task is a vector of numbers: a goal, a velocity, a direction.

On the device (`Environment`) everything is a pure function of one rollout, and `vmap` makes the batch. In a simulator of the host
(`HostEnvironment`) everything is a batch of n rollouts in NumPy.
"""

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray


@runtime_checkable
class World(Protocol):
    """What every environment has."""

    @property
    def observations(self) -> int:
        """The number of entries of an observation."""

    @property
    def actions(self) -> int:
        """The number of entries of an action."""

    @property
    def horizon(self) -> int:
        """The number of steps of a rollout."""

    def check(self, tasks: Any) -> None:
        """Raise EnvironmentFault for tasks [n, task] that `draw` cannot give."""


class Environment(World, Protocol):
    """A simulator on the device: a frozen dataclass, compared by value."""

    on_host: Literal[False]

    def draw(self, key: PRNGKeyArray) -> Float[Array, " task"]:
        """Draw a task from the environment's distribution."""

    def reset(self, key: PRNGKeyArray, task: Array) -> tuple[Any, Float[Array, " o"]]:
        """The first state and observation of a rollout."""

    def step(
        self, key: PRNGKeyArray, state: Any, action: Float[Array, " a"], task: Array
    ) -> tuple[Any, Float[Array, " o"], Float[Array, ""], Bool[Array, ""]]:
        """(state, observation, reward, done) after an action, as the policy drew it."""


class HostEnvironment(World, Protocol):
    """A simulator on the host: a frozen dataclass, compared by value. Finished rollouts stay as they are."""

    on_host: Literal[True]

    def draw(self, rng: np.random.Generator, count: int, balanced: bool = False) -> np.ndarray:
        """Draw tasks [count, task]. `balanced` draws as many of one direction as of the other, if there are two."""

    def reset(self, rng: np.random.Generator, tasks: np.ndarray) -> tuple[Any, np.ndarray]:
        """The first states, and observations [n, o], of rollouts in the tasks [n, task]."""

    def step(
        self, state: Any, actions: np.ndarray, tasks: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """(states, observations [n, o], rewards [n], done [n]) after actions [n, a], as the policy drew them."""
