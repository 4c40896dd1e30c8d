"""Draw pictures of a rollout of `locomotion` offscreen: a GIF, or a strip of frames. This needs OpenGL, if only in software."""

import ctypes.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from lethax.errors import EnvironmentFault
from lethax.rl.locomotion import Locomotion
from lethax.rl.physics import model, need

Frames = UInt8[np.ndarray, "frames height width 3"]


def backend() -> str:
    """MUJOCO_GL if it is set; else EGL, then OSMesa on Linux, which need no screen; else the window system's own."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in ("egl", "osmesa", "glfw", "cgl"):
        return chosen
    if sys.platform.startswith("linux"):
        return "egl" if ctypes.util.find_library("EGL") else "osmesa"
    return "cgl" if sys.platform == "darwin" else "glfw"


@contextmanager
def _context(width: int, height: int) -> Iterator[None]:
    """Make an OpenGL context current. EnvironmentFault if there is no OpenGL."""
    need("mujoco")
    name = backend()
    try:
        context = import_module(f"mujoco.{name}").GLContext(width, height)
        context.make_current()
    except (
        Exception
    ) as error:  # each library fails in its own way: ImportError, AttributeError, RuntimeError, its own classes
        raise EnvironmentFault(
            f"no offscreen OpenGL by '{name}' ({type(error).__name__}: {error}): install libegl1 with Mesa's drivers, or "
            "libosmesa6 and set MUJOCO_GL=osmesa before Python starts."
        ) from error
    try:
        yield
    finally:
        context.free()


def frames(
    environment: Locomotion,
    positions: Float[np.ndarray, "steps qpos"],
    *,
    goal: Float[np.ndarray, "2"] | None = None,
    width: int = 240,
    height: int = 160,
) -> Frames:
    """One picture per row of positions: qpos of one rollout, `state.physics[row, 1 : 1 + robot.qpos]` of each step.

    The camera follows the robot, three metres to its side. goal: a red ball on the floor, for ant_goal.
    """
    positions = np.asarray(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != environment.robot.qpos or not np.isfinite(positions).all():
        raise EnvironmentFault(
            f"positions have shape {list(positions.shape)}; expected finite numbers [steps, {environment.robot.qpos}], the qpos "
            f"of one rollout of {environment.name}."
        )
    shared, mujoco = model(environment.robot), need("mujoco")
    widest, highest = shared.vis.global_.offwidth, shared.vis.global_.offheight
    if not (0 < width <= widest and 0 < height <= highest):
        raise EnvironmentFault(
            f"pictures of {width}x{height} pixels; expected at most {widest}x{highest}, the model's buffer."
        )
    data, pictures = mujoco.MjData(shared), np.empty((len(positions), height, width, 3), np.uint8)
    camera, scene = mujoco.MjvCamera(), mujoco.MjvScene(shared, 1000)
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, shared.camera("track").id
    with _context(width, height):
        painter = mujoco.MjrContext(shared, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, painter)
        view, kinds = mujoco.MjrRect(0, 0, width, height), mujoco.mjtCatBit.mjCAT_ALL
        for row, qpos in enumerate(positions):
            data.qpos[:] = qpos
            mujoco.mj_forward(shared, data)
            mujoco.mjv_updateScene(shared, data, mujoco.MjvOption(), None, camera, kinds, scene)
            if goal is not None:
                _ball(mujoco, scene, goal)
            mujoco.mjr_render(view, scene, painter)
            mujoco.mjr_readPixels(pictures[row], None, view, painter)
        painter.free()
    return pictures[:, ::-1]  # OpenGL's first row is the lowest


def _ball(mujoco: Any, scene: Any, goal: Float[np.ndarray, "2"]) -> None:
    place, shape = np.array([goal[0], goal[1], 0.1], np.float64), np.array([0.1, 0.1, 0.1])
    colour = np.array([0.9, 0.1, 0.1, 1.0], np.float32)
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE, shape, place, np.eye(3).ravel(), colour)
    scene.ngeom += 1


def gif(path: Path, pictures: Frames, seconds: float) -> None:
    """A GIF that shows each picture for that time (the format counts hundredths of a second) and starts again at the end."""
    first, *others = (Image.fromarray(picture) for picture in pictures)
    first.save(path, save_all=True, append_images=others, duration=max(20, round(1000 * seconds)), loop=0)


def strip(path: Path, pictures: Frames, count: int = 6) -> None:
    """A PNG of `count` pictures side by side, evenly spaced from the first to the last."""
    chosen = np.linspace(0, len(pictures) - 1, count).round().astype(int)
    Image.fromarray(np.concatenate(list(pictures[chosen]), axis=1)).save(path)
