"""Many copies of one MuJoCo robot, stepped together: all that `locomotion` needs of mujoco and of gymnasium's files.

mujoco and gymnasium are imported when first used; no other module has to know that they may be missing.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from lethax import hardware
from lethax.errors import EnvironmentFault

States = Float64[np.ndarray, "n state"]  # a row: time, qpos, qvel
Controls = Float64[np.ndarray, "n actuators"]
Forces = Float64[np.ndarray, "n forces"]  # a row: cfrc_ext of every body, the world first


class Robot(NamedTuple):
    """Sizes of a model, known without mujoco. timestep: seconds; places: leading qpos that say where it is."""

    file: str
    qpos: int
    qvel: int
    actuators: int
    bodies: int
    timestep: float
    places: int


ROBOTS = {
    "half_cheetah": Robot("half_cheetah.xml", 9, 9, 6, 8, 0.01, 1),
    "ant": Robot("ant.xml", 15, 14, 8, 14, 0.01, 2),
}

_ONE_USER = threading.Lock()  # the copies of a model below are shared by the whole process


def need(module: str) -> Any:
    """Import a module of the extra `rl`. EnvironmentFault if it is not installed."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise EnvironmentFault(
            f"this environment needs {module.split('.')[0]}, which cannot be imported ({error}): "
            'pip install "gymnasium[mujoco]" mujoco, or lethax with its extra [rl].'
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without this, MuJoCo's warnings (half_cheetah.xml has a deprecated attribute) go to a MUJOCO_LOG.TXT where we run."""
    mujoco = need("mujoco")
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@cache
def model(robot: Robot) -> Any:
    """Load the robot's MjModel, from the file that comes with gymnasium."""
    from importlib.resources import as_file, files

    mujoco = need("mujoco")
    with as_file(files(need("gymnasium")) / "envs" / "mujoco" / "assets" / robot.file) as path, quiet():
        return mujoco.MjModel.from_xml_path(str(path))


@cache
def _copies(robot: Robot, count: int) -> list[Any]:
    """Make one MjData for each thread. Nothing in them outlives a call."""
    return [need("mujoco").MjData(model(robot)) for _ in range(count)]


def advance(
    robot: Robot, states: States, controls: Controls, substeps: int, threads: int, with_forces: bool = False
) -> tuple[States, Forces, Bool[np.ndarray, " n"]]:
    """The states `substeps` later under constant controls, the forces on all bodies, and which rows stayed sound.

    A row is a function of its state and its controls alone: not of the other rows, the number of threads (0: one for each
    core) or earlier calls. A row that is not sound (MuJoCo met NaN or huge numbers) holds MuJoCo's reset state.

    Differs: the constraint solver starts cold at each call, while gymnasium's starts from its last substep, which is no part of
    the state. Both stop at the solver's tolerance: one step agrees to 1e-13; contacts then drive the two apart.
    """
    begun = states.copy()
    begun[:, 0] = 1.0  # no force depends on the time; MuJoCo starts a row anew at time 0 after NaN or huge numbers
    copies = _copies(robot, threads or hardware.cores())[: max(len(states), 1)]
    with _ONE_USER, quiet():
        if with_forces:
            after, forces = _advance_with_forces(robot, begun, controls, substeps, copies)
        else:
            rollout = need("mujoco.rollout").rollout
            path, _ = rollout(model(robot), copies, begun, controls[:, None], nstep=substeps, persistent_pool=True)
            after, forces = path[:, -1], np.zeros((len(states), 0))
    sound = np.isfinite(after).all(1) & (after[:, 0] >= 1.0)
    after[:, 0] = states[:, 0] + substeps * robot.timestep
    return after, forces, sound


def _advance_with_forces(
    robot: Robot, states: States, controls: Controls, substeps: int, copies: list[Any]
) -> tuple[States, Forces]:
    """As `mujoco.rollout`, which does not return contact forces; gymnasium too has them computed after its last substep."""
    mujoco, shared = need("mujoco"), model(robot)
    after, forces = np.empty_like(states), np.empty((len(states), robot.bodies * 6))

    def walk(data: Any, rows: range) -> None:
        for row in rows:
            mujoco.mj_setState(shared, data, states[row], mujoco.mjtState.mjSTATE_FULLPHYSICS)
            data.qacc_warmstart[:] = 0.0
            data.ctrl[:] = controls[row]
            mujoco.mj_step(shared, data, substeps)
            mujoco.mj_rnePostConstraint(shared, data)
            mujoco.mj_getState(shared, data, after[row], mujoco.mjtState.mjSTATE_FULLPHYSICS)
            forces[row] = data.cfrc_ext.ravel()

    with ThreadPoolExecutor(len(copies)) as pool:  # mj_step releases the interpreter lock
        shares = [range(first, len(states), len(copies)) for first in range(len(copies))]
        list(pool.map(walk, copies, shares))
    return after, forces
