"""The aims of the locomotion tasks and their rewards: a direction, a velocity or a goal, for a cheetah or an ant. In NumPy."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from lethax.errors import EnvironmentFault

Tasks = Float[np.ndarray, "n task"]
Rewards = Float64[np.ndarray, " n"]

CONTROL_COST = {"half_cheetah": 0.05, "ant": 0.005}
CONTACT_COST, SURVIVAL, HEIGHTS = 5e-4, 0.05, (0.2, 1.0)
BONUS = {"direction": 0.0, "velocity": 1.0, "goal": 4.0}  # of an ant, which otherwise had better fall at once


class Step(NamedTuple):
    """What a reward depends on. place: after the step; velocity: along x, over the step; controls: u; forces: cfrc_ext."""

    place: Float64[np.ndarray, "n 2"]
    velocity: Float64[np.ndarray, " n"]
    controls: Float64[np.ndarray, "n actuators"]
    forces: Float64[np.ndarray, "n forces"]


class Aim(NamedTuple):
    """One family of tasks. low, high: range of a task's numbers, uniform; a direction is one of the two."""

    name: str
    robot: Literal["half_cheetah", "ant"]
    kind: Literal["direction", "velocity", "goal"]
    low: float
    high: float

    @property
    def size(self) -> int:
        """How many numbers a task has."""
        return 2 if self.kind == "goal" else 1

    def draw(self, rng: np.random.Generator, count: int, balanced: bool) -> Float64[np.ndarray, "count task"]:
        """Independent tasks; balanced directions are forward in the first half and backward in the second, with no draw."""
        if self.kind != "direction":
            return rng.uniform(self.low, self.high, (count, self.size))
        if balanced:
            return np.where(np.arange(count) < (count + 1) // 2, 1.0, -1.0)[:, None]
        return 2.0 * rng.integers(0, 2, (count, 1)) - 1.0

    def check(self, tasks: Tasks) -> None:
        """Raise EnvironmentFault that names the first task outside the range."""
        tasks = np.asarray(tasks)
        if tasks.ndim != 2 or tasks.shape[1] != self.size:
            raise EnvironmentFault(f"tasks of {self.name} have shape {list(tasks.shape)}; expected [n, {self.size}].")
        good, expected = (tasks >= self.low) & (tasks <= self.high), f"numbers from {self.low:g} to {self.high:g}"
        if self.kind == "direction":
            good, expected = np.abs(tasks) == 1.0, "-1 or 1"
        if not good.all():
            row = int(np.argmin(good.all(1)))
            raise EnvironmentFault(
                f"task {row} of {self.name} is {tasks[row].tolist()}; expected {expected}: take tasks from `draw`."
            )

    def rewards(self, tasks: Tasks, step: Step) -> Rewards:
        """Rewards by the equations of `locomotion.Locomotion`."""
        if self.kind == "direction":
            earned = tasks[:, 0] * step.velocity
        elif self.kind == "velocity":
            earned = -np.abs(step.velocity - tasks[:, 0])
        else:
            earned = -np.abs(step.place - tasks).sum(1)
        paid = earned - CONTROL_COST[self.robot] * np.square(step.controls).sum(1)
        if self.robot == "ant":
            paid += BONUS[self.kind] + SURVIVAL - CONTACT_COST * np.square(np.clip(step.forces, -1.0, 1.0)).sum(1)
        return paid

    def ended(self, heights: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether the torso of an ant is too low or too high. A cheetah's rollout never ends so."""
        low, high = HEIGHTS
        return (self.robot == "ant") & ((heights < low) | (heights > high))


AIMS = {
    aim.name: aim
    for aim in (
        Aim("cheetah_dir", "half_cheetah", "direction", -1.0, 1.0),
        Aim("cheetah_vel", "half_cheetah", "velocity", 0.0, 2.0),
        Aim("ant_dir", "ant", "direction", -1.0, 1.0),
        Aim("ant_goal", "ant", "goal", -3.0, 3.0),
        Aim("ant_vel", "ant", "velocity", 0.0, 3.0),
    )
}
