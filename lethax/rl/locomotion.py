"""Half-cheetah and ant with tasks: a direction, a velocity or a goal, on gymnasium's models. Finn et al. 2017, Baik et al. 2020.

An environment on the host: n rollouts in NumPy, float64 physics, float32 observations. `reset` and `step` are functions of their
arguments alone, so a state can be kept, stepped again, or cut out of a batch.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from lethax.errors import DivergedError, EnvironmentFault, RecipeError, did_you_mean
from lethax.rl.aims import AIMS, Aim, Rewards, Step, Tasks
from lethax.rl.physics import ROBOTS, Controls, Forces, Robot, States, advance, model
from lethax.text import counted

Observations = Float32[np.ndarray, "n observation"]
Done = Bool[np.ndarray, " n"]


class Physics(NamedTuple):
    """substeps of 0.01 s: a cheetah's, an ant's; action_scale: K; noise: of the first positions, uniform or normal."""

    substeps: dict[str, int]
    action_scale: float
    noise: float
    uniform: bool


PRESETS = {
    "gym": Physics({"half_cheetah": 5, "ant": 5}, 10.0, 0.1, True),
    # rllab's ant takes one substep of 0.02 s; two of the 0.01 s of gymnasium's file are the same time, integrated finer.
    "rllab": Physics({"half_cheetah": 1, "ant": 2}, 1.0, 0.01, False),
}


class Bodies(NamedTuple):
    """State of n rollouts. physics: time, qpos, qvel; forces: cfrc_ext, no columns without contacts; done: has ended."""

    physics: States
    forces: Forces
    done: Done


@dataclass(frozen=True)
class Locomotion:
    """One family of tasks. v: (x(t+1) − x(t))/dt; u: clip(a/K, −1, 1), a the policy's action; d, g: the task.

        cheetah_dir  d v − 0.05 |u|²                 ant_dir   d v + 0.05 − 0.005 |u|² − c
        cheetah_vel  −|v − g| − 0.05 |u|²            ant_vel   1 − |v − g| + 0.05 − 0.005 |u|² − c
        ant_goal     4 − |x − g₁| − |y − g₂| + 0.05 − 0.005 |u|² − c,    c = 0.0005 |clip(contact forces, −1, 1)|²

    These are the rewards of rllab's and pytorch-maml-rl's environments. An ant's rollout ends when its torso leaves the
    heights [0.2, 1] m or its physics break down; a cheetah's never does. The horizon is for the caller to count.

    name: cheetah_dir, cheetah_vel, ant_dir, ant_goal or ant_vel. preset: "gym" (dt 0.05 s) or "rllab" (dt 0.01 s for the
    cheetah and 0.02 s for the ant, starts nearer to rest). action_scale: K, None for the preset's 10 or 1. use_contact: the
    ant feels and pays for contact forces, as Ant-v5 does. threads: 0 for one per core; results do not depend on it.
    Differs: without use_contact c = 0, and 78 observations less. Ant-v5 reads v off the last stage of its integrator (0.004 m/s
    away on average, 0.05 at footfalls) and pays 0.05 only while healthy. rllab's v is that of the centre of mass, its
    observations are 20 and 125 numbers.
    """

    name: str = "cheetah_vel"
    preset: str = "gym"
    horizon: int = 200
    action_scale: float | None = None
    use_contact: bool = False
    threads: int = field(default=0, compare=False)

    on_host: ClassVar[Literal[True]] = True

    def __post_init__(self) -> None:
        for given, known, what in ((self.name, AIMS, "task"), (self.preset, PRESETS, "preset")):
            if given not in known:
                hint = did_you_mean(given, known)
                raise RecipeError(f"locomotion {what} '{given}' does not exist; choose {', '.join(known)}.{hint}")
        if self.use_contact and self.aim.robot != "ant":
            raise RecipeError(f"{self.name} has no contact forces: use_contact is for the ant's tasks alone.")
        if self.horizon < 1 or self.threads < 0 or not 0 < self.scale < np.inf:
            raise RecipeError(
                f"horizon {self.horizon}, threads {self.threads}, action_scale {self.scale}: expected a horizon of 1 or "
                "more, threads of 0 or more, and a positive scale."
            )

    @property
    def aim(self) -> Aim:
        """The aim of the tasks, and their robot."""
        return AIMS[self.name]

    @property
    def robot(self) -> Robot:
        """The sizes of the robot."""
        return ROBOTS[self.aim.robot]

    @property
    def scale(self) -> float:
        """K: the policy's action at which an actuator gives all it has."""
        return PRESETS[self.preset].action_scale if self.action_scale is None else self.action_scale

    @property
    def substeps(self) -> int:
        """The number of steps of the physics in one step of the environment."""
        return PRESETS[self.preset].substeps[self.aim.robot]

    @property
    def dt(self) -> float:
        """The seconds of one step of the environment."""
        return self.substeps * self.robot.timestep

    @property
    def observations(self) -> int:
        """17 of the cheetah, 27 of the ant or 29 with a goal (which then sees x and y), 78 more with contacts."""
        return self.robot.qpos - self._hidden + self.robot.qvel + 6 * (self.robot.bodies - 1) * self.use_contact

    @property
    def actions(self) -> int:
        """One per actuator: 6 of the cheetah, 8 of the ant."""
        return self.robot.actuators

    @property
    def task_size(self) -> int:
        """How many numbers a task has: 2 for a goal, else 1."""
        return self.aim.size

    def draw(self, rng: np.random.Generator, count: int, balanced: bool = False) -> Float64[np.ndarray, "count task"]:
        """Tasks: directions of −1 or 1 (balanced: first half forward, second half backward, for tests), else uniform."""
        return self.aim.draw(rng, count, balanced)

    def check(self, tasks: Tasks) -> None:
        """Raise EnvironmentFault for the first task that `draw` cannot give."""
        self.aim.check(tasks)

    def reset(self, rng: np.random.Generator, tasks: Tasks) -> tuple[Bodies, Observations]:
        """One rollout per task. qpos: at rest + U(−0.1, 0.1), or + 0.01 N(0, 1) in rllab; qvel: 0.1 N(0, 1)."""
        self.check(tasks)
        n, preset, rest = len(tasks), PRESETS[self.preset], np.array(model(self.robot).qpos0)
        if self.preset == "rllab" and self.aim.robot == "ant":
            rest = np.array(model(self.robot).numeric("init_qpos").data)  # knees bent; in the file, unused by gymnasium
        shape = (n, self.robot.qpos)
        noise = rng.uniform(-1.0, 1.0, shape) if preset.uniform else rng.standard_normal(shape)
        speeds = 0.1 * rng.standard_normal((n, self.robot.qvel))
        physics = np.concatenate([np.zeros((n, 1)), rest + preset.noise * noise, speeds], 1)
        state = Bodies(physics, np.zeros((n, 6 * self.robot.bodies * self.use_contact)), np.zeros(n, bool))
        return state, self._observe(state)

    def step(
        self, state: Bodies, actions: Float[np.ndarray, "n action"], tasks: Tasks
    ) -> tuple[Bodies, Observations, Rewards, Done]:
        """State, observations, rewards and done after the policy's own actions, which are scaled and clipped here.

        Rollouts that had ended stay as they are, with reward 0. DivergedError if an action of another is not finite.
        """
        if np.shape(actions) != (len(state.done), self.actions) or len(tasks) != len(state.done):
            raise EnvironmentFault(
                f"{counted(len(state.done), 'rollout')} of {self.name} got actions of shape {list(np.shape(actions))} and "
                f"{counted(len(tasks), 'task')}; expected [{len(state.done)}, {self.actions}] and {len(state.done)}."
            )
        live = np.flatnonzero(~state.done)
        rewards, physics, forces, done = np.zeros(len(state.done)), *(part.copy() for part in state)
        if len(live):
            before, controls = physics[live], self._controls(actions, live)
            physics[live], felt, sound = self._advance(before, controls, live)
            if self.use_contact:
                forces[live] = felt
            place, velocity = physics[live, 1:3], (physics[live, 1] - before[:, 1]) / self.dt
            rewards[live] = self.aim.rewards(np.asarray(tasks)[live], Step(place, velocity, controls, forces[live]))
            done[live] = ~sound | self.aim.ended(physics[live, 3])
        state = Bodies(physics, forces, done)
        return state, self._observe(state), rewards, done

    @property
    def _hidden(self) -> int:
        """Leading positions that are not observed: where on the ground the robot is."""
        return 0 if self.aim.kind == "goal" else self.robot.places

    def _observe(self, state: Bodies) -> Observations:
        felt = np.clip(state.forces[:, 6:], -1.0, 1.0)  # those on the world are not felt
        return np.concatenate([state.physics[:, 1 + self._hidden :], felt], 1, dtype=np.float32, casting="same_kind")

    def _controls(self, actions: Float[np.ndarray, "all action"], live: np.ndarray) -> Controls:
        """u of the live rollouts. The actuators of both robots reach from −1 to 1."""
        wanted = np.asarray(actions, np.float64)[live]
        if not np.isfinite(wanted).all():
            row = int(live[np.argmin(np.isfinite(wanted).all(1))])
            raise DivergedError(
                f"the action of rollout {row} of {self.name} is not finite, so the policy has diverged: lower its step sizes, "
                "or go on from the last good checkpoint."
            )
        return np.clip(wanted / self.scale, -1.0, 1.0)

    def _advance(self, before: States, controls: Controls, live: np.ndarray) -> tuple[States, Forces, Done]:
        """`physics.advance`, where broken rollouts stay as they were; an error for the cheetah, which has no such end."""
        after, forces, sound = advance(self.robot, before, controls, self.substeps, self.threads, self.use_contact)
        if not sound.all() and self.aim.robot != "ant":
            row = int(live[np.argmin(sound)])
            raise EnvironmentFault(
                f"the physics of rollout {row} of {self.name} broke down (NaN or huge numbers): expected a state that came "
                "from `reset` or `step`; start from one."
            )
        return np.where(sound[:, None], after, before), np.where(sound[:, None], forces, 0.0), sound
