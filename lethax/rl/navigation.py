"""2D navigation: a point moves to a goal that it does not see.

    s' = s + clip(u, −c, c),   r = −‖s' − g‖₂,   done where |s'_x − g_x| < 0.01 and |s'_y − g_y| < 0.01

Observation: s. u = c a for a policy's action a, or a itself (`raw`).
Finn et al. 2017 and its code; Baik et al. 2020, supplement D. Differs: c is 0.2 in the latter's text, 0.1 in the former's code.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from lethax.errors import EnvironmentFault

NEAR = 0.01  # of the goal, in both coordinates: a rollout ends there


class Spread(NamedTuple):
    """Half-widths of the squares around 0 that starts and goals are drawn from."""

    start: float
    goal: float


# Baik et al. 2020, supplement D: what is trained on, (a), and what the trained policies are tried on.
SETTINGS = {"a": Spread(0.0, 0.5), "b": Spread(0.5, 0.5), "c": Spread(0.0, 2.0), "d": Spread(2.0, 2.0)}


@dataclass(frozen=True)
class Navigation:
    """Tasks (g_x, g_y, s_x, s_y) of a setting. limit: c. starts: whether a start is of the task, or of every rollout."""

    setting: Literal["a", "b", "c", "d"] = "a"
    limit: float = 0.1
    action_form: Literal["normalized", "raw"] = "normalized"
    starts: Literal["task", "rollout"] = "task"
    horizon: int = 100

    observations: ClassVar[int] = 2
    actions: ClassVar[int] = 2
    on_host: ClassVar[Literal[False]] = False

    def draw(self, key: PRNGKeyArray) -> Float[Array, " 4"]:
        """Draw a goal and a start, uniformly in their squares."""
        spread = SETTINGS[self.setting]
        bounds = jnp.array([spread.goal, spread.goal, spread.start, spread.start], float)
        return bounds * jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)

    def check(self, tasks: Float[Array | np.ndarray, "n 4"]) -> None:
        """Raise EnvironmentFault if the goal or the start of a task is outside the setting's square."""
        spread = SETTINGS[self.setting]
        for what, part, bound in (("goal", tasks[:, :2], spread.goal), ("start", tasks[:, 2:], spread.start)):
            worst = float(jnp.max(jnp.abs(part)))
            if not worst <= bound:
                raise EnvironmentFault(
                    f"a {what} of navigation ({self.setting}) has a coordinate of {worst:g}; expected at most {bound:g}: choose "
                    "another setting."
                )

    def reset(self, key: PRNGKeyArray, task: Array) -> tuple[Array, Float[Array, " 2"]]:
        """Begin a rollout at the start."""
        if self.starts == "task":
            return task[2:], task[2:]
        bound = SETTINGS[self.setting].start
        start = jax.random.uniform(key, (2,), minval=-bound, maxval=bound) if bound else jnp.zeros(2)
        return start, start

    def step(
        self, key: PRNGKeyArray, state: Array, action: Float[Array, " 2"], task: Array
    ) -> tuple[Array, Float[Array, " 2"], Float[Array, ""], Bool[Array, ""]]:
        """Make a move. The reward is that of the new place, also in the last step."""
        move = action * self.limit if self.action_form == "normalized" else action
        state = state + jnp.clip(move, -self.limit, self.limit)
        gap = state - task[:2]
        return state, state, -jnp.sqrt(jnp.sum(jnp.square(gap))), jnp.all(jnp.abs(gap) < NEAR)
