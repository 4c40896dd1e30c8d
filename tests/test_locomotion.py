"""Cheetah and ant: physics and rewards of gymnasium's own step, closed forms, and the contract of a host environment."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethax import hardware
from lethax.errors import DivergedError, EnvironmentFault, LethaxError, RecipeError
from lethax.rl import physics
from lethax.rl.aims import AIMS, Step
from lethax.rl.locomotion import Bodies, Locomotion

gymnasium = pytest.importorskip("gymnasium", reason='gymnasium is not installed: pip install "lethax[rl]"')
mujoco = pytest.importorskip("mujoco", reason='mujoco is not installed: pip install "lethax[rl]"')

PAID_AS_HERE = {
    "half_cheetah": ("HalfCheetah-v5", {"ctrl_cost_weight": 0.05}),
    "ant": (
        "Ant-v5",
        {"ctrl_cost_weight": 0.005, "contact_cost_weight": 5e-4, "healthy_reward": 0.05, "healthy_z_range": (0.2, 1.0)},
    ),
}
SUBSTEPS = [(robot, preset) for robot in PAID_AS_HERE for preset in ("gym", "rllab")]


def twin(robot: str, preset: str, seed: int) -> tuple[Any, Locomotion, Bodies]:
    """gymnasium's environment and ours in one state."""
    name, (ident, options) = "cheetah_dir" if robot == "half_cheetah" else "ant_dir", PAID_AS_HERE[robot]
    ours = Locomotion(name, preset, action_scale=1.0, use_contact=robot == "ant")
    with physics.quiet():  # half_cheetah.xml has an attribute that mujoco 4 warns of
        theirs = gymnasium.make(ident, frame_skip=ours.substeps, **options)
    theirs.reset(seed=seed)
    return theirs, ours, state_of(theirs, ours)


def state_of(theirs: Any, ours: Locomotion) -> Bodies:
    data = theirs.unwrapped.data
    row = np.concatenate([[data.time], data.qpos, data.qvel])[None]
    return Bodies(row, np.zeros((1, 6 * ours.robot.bodies * ours.use_contact)), np.zeros(1, bool))


@pytest.mark.parametrize(("robot", "preset"), SUBSTEPS)
def test_one_step_from_a_common_state_is_gymnasiums(robot: str, preset: str) -> None:
    """Fifty common states along gymnasium's rollout. Its solver starts where it stopped, ours cold, and both stop at a tolerance:
    1e-13 was seen in states; velocities, over dt, are 20 to 100 times as far."""
    theirs, ours, _ = twin(robot, preset, 1)
    rng, forward = np.random.default_rng(0), np.ones((1, 1))
    for _ in range(50):
        before, x = state_of(theirs, ours), theirs.unwrapped.data.qpos[0]
        controls = rng.uniform(-1.0, 1.0, ours.actions)
        seen, _, terminated, _, info = theirs.step(controls)
        state, observed, rewards, done = ours.step(before, controls[None], forward)
        np.testing.assert_allclose(state.physics[0], state_of(theirs, ours).physics[0], rtol=0, atol=1e-10)
        assert observed.dtype == np.float32 and observed.shape == (1, ours.observations)
        np.testing.assert_allclose(observed[0], seen.astype(np.float32), rtol=1e-6, atol=1e-6)
        # The ant's x_velocity in `info` is of the last stage of Runge and Kutta's step, ours of the state after it.
        velocity = info["x_velocity"] if robot == "half_cheetah" else (info["x_position"] - x) / ours.dt
        expected = velocity + sum(info.get(part, 0.0) for part in ("reward_ctrl", "reward_contact", "reward_survive"))
        assert rewards[0] == pytest.approx(expected, rel=0, abs=1e-9)
        assert done[0] == terminated
        if terminated:
            break


@pytest.mark.parametrize("robot", PAID_AS_HERE)
def test_fifty_steps_follow_gymnasium(robot: str) -> None:
    """A difference of 1e-14, from the solver's other start, grows where contacts open and close: after fifty steps 1e-13 (cheetah)
    and 3e-11 (ant) were seen with these mild controls, 4e-7 with full ones; after a hundred full ones nothing is left."""
    theirs, ours, state = twin(robot, "gym", 1)
    rng, worst = np.random.default_rng(0), []
    for _ in range(50):
        controls = rng.uniform(-0.5, 0.5, ours.actions)
        _, _, terminated, _, _ = theirs.step(controls)
        state, *_ = ours.step(state, controls[None], np.ones((1, 1)))
        worst.append(np.abs(state.physics - state_of(theirs, ours).physics).max())
        assert not terminated
    assert worst[0] < 1e-10 and worst[9] < 1e-10 and worst[-1] < 1e-6


def test_rewards_are_the_closed_forms() -> None:
    """place (0.5, −1), v 1.5, |u|² 0.3, clipped contacts 1 and 0.5."""
    step = Step(np.array([[0.5, -1.0]]), np.array([1.5]), np.array([[0.5, -0.2, 0.1]]), np.array([[7.0, -0.5, 0.0]]))
    contact, ant = 5e-4 * 1.25, 0.05 - 0.005 * 0.3
    cases = [
        ("cheetah_dir", [-1.0], -1.5 - 0.05 * 0.3),
        ("cheetah_vel", [0.25], -1.25 - 0.05 * 0.3),
        ("ant_dir", [1.0], 1.5 + ant - contact),
        ("ant_vel", [3.0], 1.0 - 1.5 + ant - contact),
        ("ant_goal", [-2.0, 0.5], 4.0 - 2.5 - 1.5 + ant - contact),
    ]
    for name, task, expected in cases:
        assert AIMS[name].rewards(np.array([task]), step)[0] == pytest.approx(expected, abs=1e-12), name


def test_velocity_and_goal_are_of_the_state_after_the_step() -> None:
    rng = np.random.default_rng(2)
    cheetah, ant = Locomotion("cheetah_vel"), Locomotion("ant_goal")
    for environment in (cheetah, ant):
        tasks = environment.draw(rng, 5)
        state, _ = environment.reset(rng, tasks)
        actions = rng.standard_normal((5, environment.actions))
        after, observed, rewards, _ = environment.step(state, actions, tasks)
        cost = np.square(actions / 10).sum(1)
        if environment is cheetah:
            velocity = (after.physics[:, 1] - state.physics[:, 1]) / 0.05
            np.testing.assert_allclose(rewards, -np.abs(velocity - tasks[:, 0]) - 0.05 * cost, rtol=0, atol=1e-12)
        else:
            away = np.abs(after.physics[:, 1:3] - tasks).sum(1)
            np.testing.assert_allclose(rewards, 4.05 - away - 0.005 * cost, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(
                observed[:, :2], after.physics[:, 1:3].astype(np.float32)
            )  # it sees where it is


@pytest.mark.parametrize(
    ("name", "sizes"), [("cheetah_dir", (17, 6, 1)), ("ant_dir", (27, 8, 1)), ("ant_goal", (29, 8, 2))]
)
def test_sizes_are_the_models(name: str, sizes: tuple[int, int, int]) -> None:
    environment = Locomotion(name)
    assert (environment.observations, environment.actions, environment.task_size) == sizes
    shared, robot = physics.model(environment.robot), environment.robot
    assert (shared.nq, shared.nv, shared.nu, shared.nbody) == (robot.qpos, robot.qvel, robot.actuators, robot.bodies)
    assert shared.opt.timestep == robot.timestep
    np.testing.assert_array_equal(shared.actuator_ctrlrange, [[-1.0, 1.0]] * shared.nu)  # what `_controls` relies on
    assert {preset: round(Locomotion(name, preset).dt, 9) for preset in ("gym", "rllab")} == {
        "gym": 0.05,
        "rllab": 0.01 if name.startswith("cheetah") else 0.02,
    }


def test_actions_are_scaled_then_clipped() -> None:
    tasks, rng = np.ones((1, 1)), np.random.default_rng(0)
    for preset, scale in (("gym", 10.0), ("rllab", 1.0)):
        environment = Locomotion("cheetah_dir", preset)
        assert environment.scale == scale
        state, _ = environment.reset(rng, tasks)
        inside = rng.uniform(-1.0, 1.0, (1, 6)) * scale
        raw = dataclasses.replace(environment, action_scale=1.0)
        a, b = environment.step(state, inside, tasks), raw.step(state, inside / scale, tasks)
        np.testing.assert_array_equal(a[0].physics, b[0].physics)
        a, b = environment.step(state, 100 * np.sign(inside), tasks), raw.step(state, np.sign(inside), tasks)
        np.testing.assert_array_equal(a[0].physics, b[0].physics)
        assert a[2] == b[2]


@pytest.mark.parametrize("name", ["cheetah_vel", "ant_goal"])
def test_threads_batches_and_contacts_do_not_move_a_bit(name: str) -> None:
    variants = [Locomotion(name, threads=threads) for threads in (1, 2, 0)]
    assert len(set(variants)) == 1  # compared by value, less what cannot change numbers
    if name == "ant_goal":
        variants += [Locomotion(name, use_contact=True, threads=threads) for threads in (1, 2)]
    paths = []
    for environment in variants:
        rng = np.random.default_rng(3)
        tasks = environment.draw(rng, 12)
        state, _ = environment.reset(rng, tasks)
        first = state
        for _ in range(5):
            actions = 5 * rng.standard_normal((12, environment.actions))
            state, *_ = environment.step(state, actions, tasks)
        paths.append(state.physics)
    for path in paths[1:]:
        np.testing.assert_array_equal(path, paths[0])
    # A row alone, and a state stepped a second time: `step` depends on its arguments only.
    one = Bodies(*(part[4:5] for part in first))
    alone, *_ = environment.step(one, actions[4:5], tasks[4:5])
    together, *_ = environment.step(first, actions, tasks)
    np.testing.assert_array_equal(alone.physics[0], together.physics[4])


def test_fallen_ants_end_and_stay() -> None:
    environment, rng = Locomotion("ant_dir"), np.random.default_rng(0)
    tasks = environment.draw(rng, 6, balanced=True)
    state, _ = environment.reset(rng, tasks)
    state.physics[:, 3] = [0.75, 1.5, 0.75, 1.4, 0.75, 0.75]  # torso heights
    state.physics[4, 1 + environment.robot.qpos] = 1e11  # MuJoCo gives up on this one
    actions = rng.standard_normal((6, 8))
    ended, observed, rewards, done = environment.step(state, actions, tasks)
    assert done.tolist() == [False, True, False, True, True, False]
    assert AIMS["ant_vel"].ended(np.array([0.19, 0.2, 1.0, 1.01])).tolist() == [True, False, False, True]
    assert rewards[[1, 3]].all() and np.isfinite(rewards).all() and np.isfinite(observed).all()
    np.testing.assert_array_equal(ended.physics[4, 1:], state.physics[4, 1:])
    actions[done] = np.nan  # of rollouts that have ended, actions may be anything
    later, seen, paid, still = environment.step(ended, actions, tasks)
    assert still[done].all() and not paid[done].any()
    np.testing.assert_array_equal(later.physics[done], ended.physics[done])
    np.testing.assert_array_equal(seen[done], observed[done])
    assert (later.physics[~done] != ended.physics[~done]).any(1).all()
    over = ended._replace(done=np.ones(6, bool))
    assert environment.step(over, actions, tasks)[3].all()


def test_cheetahs_never_end() -> None:
    environment, rng = Locomotion("cheetah_dir"), np.random.default_rng(0)
    tasks = environment.draw(rng, 4)
    state, _ = environment.reset(rng, tasks)
    state.physics[:, 2] = [-0.5, 2.0, 0.0, 5.0]
    assert not environment.step(state, np.zeros((4, 6)), tasks)[3].any()


@pytest.mark.parametrize("name", AIMS)
def test_drawn_tasks_are_in_range(name: str) -> None:
    environment, aim = Locomotion(name), AIMS[name]
    tasks = environment.draw(np.random.default_rng(0), 400)
    environment.check(tasks)
    environment.check(tasks.astype(np.float32))
    assert tasks.shape == (400, environment.task_size) and tasks.min() >= aim.low and tasks.max() <= aim.high
    assert abs(tasks.mean() - (aim.low + aim.high) / 2) < 4 * tasks.std() / 20  # four standard errors
    balanced = environment.draw(np.random.default_rng(0), 40, balanced=True)
    environment.check(balanced)
    if aim.kind == "direction":
        assert balanced[:, 0].tolist() == [1.0] * 20 + [-1.0] * 20 and set(tasks[:, 0]) == {-1.0, 1.0}


def test_starts_are_near_rest() -> None:
    rng = np.random.default_rng(0)
    for name, preset, spread, height in [
        ("cheetah_dir", "gym", 0.2 / 12**0.5, 0.0),
        ("cheetah_dir", "rllab", 0.01, 0.0),
        ("ant_dir", "gym", 0.2 / 12**0.5, 0.75),
        ("ant_dir", "rllab", 0.01, 0.55),
    ]:
        environment = Locomotion(name, preset)
        state, observed = environment.reset(rng, np.ones((500, 1)))
        qpos, qvel = np.split(state.physics[:, 1:], [environment.robot.qpos], axis=1)
        assert qpos.std(0).mean() == pytest.approx(spread, rel=0.05) and qvel.std() == pytest.approx(0.1, rel=0.05)
        assert qpos[:, 2 if name == "ant_dir" else 1].mean() == pytest.approx(height, abs=0.01)
        places = environment.robot.places
        np.testing.assert_array_equal(observed, state.physics[:, 1 + places :].astype(np.float32))


def test_what_does_not_fit_is_named() -> None:
    direction, goal = Locomotion("cheetah_dir"), Locomotion("ant_goal")
    rng = np.random.default_rng(0)
    state, _ = direction.reset(rng, np.ones((3, 1)))
    nowhere = np.zeros((3, 6))
    nowhere[1, 2] = np.nan
    broken = state._replace(physics=np.where(np.arange(19) == 12, np.inf, state.physics))
    cases: list[tuple[type[LethaxError], str, Any]] = [
        (
            EnvironmentFault,
            r"task 1 of cheetah_dir is \[0.5\]; expected -1 or 1",
            lambda: direction.check(np.array([[1.0], [0.5]])),
        ),
        (EnvironmentFault, "numbers from 0 to 2", lambda: Locomotion("cheetah_vel").reset(rng, np.full((1, 1), 2.5))),
        (EnvironmentFault, r"shape \[3, 1\]; expected \[n, 2\]", lambda: goal.check(np.ones((3, 1)))),
        (EnvironmentFault, "task 0 of ant_goal", lambda: goal.check(np.array([[np.nan, 0.0]]))),
        (
            EnvironmentFault,
            r"expected \[3, 6\] and 3",
            lambda: direction.step(state, np.zeros((3, 8)), np.ones((3, 1))),
        ),
        (
            DivergedError,
            "rollout 1 of cheetah_dir is not finite",
            lambda: direction.step(state, nowhere, np.ones((3, 1))),
        ),
        (
            EnvironmentFault,
            "rollout 0 of cheetah_dir broke",
            lambda: direction.step(broken, np.zeros((3, 6)), np.ones((3, 1))),
        ),
        (RecipeError, "Did you mean 'cheetah_dir'", lambda: Locomotion("cheetah_dirs")),
        (RecipeError, "choose gym, rllab", lambda: Locomotion(preset="brax")),
        (RecipeError, "ant's tasks alone", lambda: Locomotion("cheetah_dir", use_contact=True)),
        (RecipeError, "positive scale", lambda: Locomotion(action_scale=0.0)),
    ]
    for error, words, act in cases:
        with pytest.raises(error, match=words):
            act()


def test_rollouts_that_end_leave_the_same_copies_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: 3)
    physics._copies.cache_clear()
    environment, rng = Locomotion("cheetah_dir"), np.random.default_rng(0)
    for live in (5, 2, 1):
        state, _ = environment.reset(rng, np.ones((live, 1)))
        environment.step(state, np.zeros((live, 6)), np.ones((live, 1)))
    assert physics._copies.cache_info().currsize == 1 and len(physics._copies(environment.robot, 3)) == 3


def test_loading_leaves_no_log_and_a_missing_simulator_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    physics.model.cache_clear()
    physics._copies.cache_clear()
    physics.model(physics.ROBOTS["half_cheetah"])
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")
    physics.model.cache_clear()
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(
        EnvironmentFault, match=r'pip install "gymnasium\[mujoco\]" mujoco, or lethax with its extra \[rl\]'
    ):
        Locomotion("cheetah_dir").reset(np.random.default_rng(0), np.ones((1, 1)))
