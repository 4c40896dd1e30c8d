"""Pictures of rollouts, where there is an offscreen OpenGL."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lethax.errors import EnvironmentFault
from lethax.rl import render
from lethax.rl.locomotion import Locomotion

for simulator in ("gymnasium", "mujoco"):
    pytest.importorskip(simulator, reason=f'{simulator} is not installed: pip install "lethax[rl]"')


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, rng = Locomotion("ant_goal"), np.random.default_rng(0)
    state, _ = environment.reset(rng, np.zeros((1, 2)))
    positions = state.physics[:, 1:16].repeat(3, 0)
    positions[1:, 2] += 0.5
    with pytest.raises(EnvironmentFault, match="expected finite numbers"):
        render.frames(environment, positions[:, :7])
    with pytest.raises(EnvironmentFault, match="at most 640x480"):
        render.frames(environment, positions, width=1000)
    with monkeypatch.context() as without, pytest.raises(EnvironmentFault, match="no offscreen OpenGL by 'egl'"):
        without.setenv("MUJOCO_GL", "egl")
        without.setitem(sys.modules, "mujoco.egl", None)
        render.frames(environment, positions)
    try:
        pictures = render.frames(environment, positions, goal=np.array([0.5, -0.5]), width=120, height=80)
    except EnvironmentFault as error:
        pytest.skip(str(error))
    assert pictures.shape == (3, 80, 120, 3) and (pictures[0] != pictures[1]).any() and pictures[0].std() > 10
    np.testing.assert_array_equal(pictures[1], pictures[2])
    red = (pictures[0, ..., 0] > 120) & (pictures[0, ..., 1] < 60)
    assert red.any() and red[40:].sum() == red.sum()  # the goal lies on the floor, in the lower half
    render.gif(tmp_path / "ant.gif", pictures, environment.dt)
    render.strip(tmp_path / "ant.png", pictures, 2)
    with render.Image.open(tmp_path / "ant.gif") as moving, render.Image.open(tmp_path / "ant.png") as still:
        assert moving.n_frames >= 2 and moving.info["duration"] == 50 and still.size == (240, 80)
