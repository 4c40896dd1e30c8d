"""Any gymnasium environment under the contract of `locomotion`: Pendulum with a gravity, CartPole with a limit."""

from typing import Any

import jax
import numpy as np
import pytest

from lethax.errors import DivergedError, EnvironmentFault
from lethax.methods import MAML
from lethax.nets.policy import GaussianPolicy
from lethax.outer import begin, fit
from lethax.rl import evaluate
from lethax.rl.gym_adapter import GymEnvironment
from lethax.rl.objective import PolicyGradient
from lethax.rl.outer import PolicyPlan
from lethax.rules import SGD

gymnasium = pytest.importorskip("gymnasium", reason='gymnasium is not installed: pip install "lethax[rl]"')


def gravity(env: Any, task: np.ndarray) -> None:
    env.unwrapped.g = float(task[0])


def pendulum(**options: Any) -> GymEnvironment:
    return GymEnvironment(
        "Pendulum-v1", lambda rng, count: rng.uniform(5.0, 15.0, (count, 1)), gravity, horizon=20, **options
    )


def test_any_gymnasium_environment_with_a_task() -> None:
    environment, rng = pendulum(action_scale=2.0), np.random.default_rng(0)
    assert (environment.observations, environment.actions, environment.task_size, environment.horizon) == (3, 1, 1, 20)
    tasks = environment.draw(rng, 3)
    state, observed = environment.reset(rng, tasks)
    angle = np.arctan2(observed[:, 1], observed[:, 0], dtype=np.float64)
    after, seen, rewards, done = environment.step(state, np.array([[0.5], [-9.0], [2.0]]), tasks)
    torque = np.array([0.5, -2.0, 2.0])  # K = 2 and a box of ±2
    speed = observed[:, 2] + (1.5 * tasks[:, 0] * np.sin(angle) + 3.0 * torque) * 0.05
    np.testing.assert_allclose(seen[:, 2], speed, rtol=1e-5)
    np.testing.assert_allclose(rewards, -(angle**2 + 0.1 * observed[:, 2] ** 2 + 0.001 * torque**2), rtol=1e-5)
    assert seen.dtype == np.float32 and not done.any()
    with pytest.raises(EnvironmentFault, match="newest state"):
        environment.step(state, np.zeros((3, 1)), tasks)
    with pytest.raises(DivergedError, match="policy has diverged"):
        environment.step(after, np.full((3, 1), np.inf), tasks)
    environment.close()


def test_policies_train_and_are_judged_in_one(key: jax.Array) -> None:
    environment = pendulum()
    learner = MAML(GaussianPolicy(3, 1, (8,)), objective=PolicyGradient(), rule=SGD(0.1), steps=1, derivative="plain")
    plan = PolicyPlan(2, batch=3, rollouts=4)
    start = begin(learner, plan, key)
    (_, first), (last, second) = fit(learner, start, environment, (), plan)
    for info in (first, second):
        assert info["env_steps"] == 2 * 4 * 20 and info["score"] < 0 and bool(info["finite"].all())
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start.meta, last.meta)
    assert max(jax.tree.leaves(moved)) > 0 and int(last.step) == 2
    ((returns, seen),) = evaluate.evaluate(
        learner, plan, last.meta, environment, environment.draw(np.random.default_rng(1), 3), key, 2, 0.5
    )
    assert returns.shape == (3, 3) and seen["observations"].shape == (3, 3, 20, 3)
    environment.close()


def test_ended_gymnasium_environments_stay() -> None:
    """CartPole steered by a number: truncated after its third step, or terminated when the pole falls; never reset."""

    class Pushes(gymnasium.ActionWrapper):
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

        def action(self, action: np.ndarray) -> int:
            return int(action[0] > 0)

    def tilt(env: Any, task: np.ndarray) -> None:
        env.unwrapped.theta_threshold_radians = float(task[0])

    environment = GymEnvironment(
        lambda: Pushes(gymnasium.make("CartPole-v1", max_episode_steps=3)),
        lambda rng, count: rng.uniform(0.0, 1.0, (count, 1)),
        tilt,
        horizon=5,
        check_task=lambda task: 0 <= task[0] <= 1,
    )
    rng, tasks = np.random.default_rng(0), np.array([[1.0], [1e-9], [1.0]])
    state, _ = environment.reset(rng, tasks)
    history = []
    for _ in range(5):
        state, seen, rewards, done = environment.step(state, np.ones((3, 1)), tasks)
        history.append((rewards.tolist(), done.tolist(), seen))
    assert history[0][:2] == ([1.0, 1.0, 1.0], [False, True, False])
    assert history[2][:2] == ([1.0, 0.0, 1.0], [True, True, True]) and not any(history[4][0])
    np.testing.assert_array_equal(history[4][2], history[2][2])
    with pytest.raises(EnvironmentFault, match="out of its range"):
        environment.check(np.full((1, 1), 2.0))
    with pytest.raises(EnvironmentFault, match="expected a Box"):
        GymEnvironment("CartPole-v1", lambda rng, count: np.zeros((count, 1)), tilt, horizon=5)
