"""Meta-reinforcement learning as a whole: what a step does, that it learns, resumes, trains together, and refuses."""

import functools
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from lethax import checkpoint, cli
from lethax.domains import domain_of
from lethax.errors import DivergedError, EnvironmentFault, RecipeError
from lethax.methods import MAML, Attenuator
from lethax.nets.policy import GaussianPolicy
from lethax.outer import begin, fit
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.rl import evaluate, locomotion
from lethax.rl.navigation import SETTINGS, Navigation
from lethax.rl.objective import PolicyGradient
from lethax.rl.outer import PolicyPlan, adapted, fisher, improve, mean_divergence, surrogate, travel
from lethax.rl.rollouts import collect, collect_batch, draw_tasks
from lethax.rules import SGD, Slower
from lethax.runs import evaluation as runs
from lethax.runs import folder as folders
from lethax.runs import making, training
from lethax.streams import validation_key

ENVIRONMENT = Navigation(horizon=6)
PLAN = PolicyPlan(3, batch=3, rollouts=4)


def learner_of(start=None, **options):
    policy = GaussianPolicy(2, 2, (5,), "tanh")
    return MAML(
        policy, objective=PolicyGradient(), rule=SGD(0.1), start=start, derivative="plain", **{"steps": 1, **options}
    )


travelled = jax.jit(travel, static_argnums=(0, 1, 3, 6))


@functools.cache
def travel_once():
    learner, key = learner_of(Attenuator(kept=("log_std",))), jax.random.key(0)
    meta = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(learner.init)(key))
    return learner, meta, travelled(learner, PLAN, meta, ENVIRONMENT, draw_tasks(ENVIRONMENT, key, 3), key, 1)


@pytest.fixture
def trip(x64):
    """Meta-parameters of MAML+L2F, and rollouts before and after adaptation, in float64."""
    return travel_once()


def test_outer_gradient_and_curvature(trip):
    """Finite differences of the surrogate, and the exact Hessian of the divergence, for every kind of meta-parameter."""
    learner, meta, seen = trip
    learner = replace(learner, start=replace(learner.start, detached=False))
    start, tree = ravel_pytree(meta)

    @jax.jit
    def policies(v):
        fast, _ = adapted(learner, tree(v), seen.supports)
        return jax.vmap(learner.net.apply)(fast, seen.last.x)

    old = policies(start)
    value = jax.jit(lambda v: surrogate(policies(v), old, seen.last))

    @jax.jit
    def derivatives(v):
        """The gradient, the curvature, and the curvature's product with a vector as the outer step computes it."""
        curvature = jax.hessian(lambda v: mean_divergence(policies(v), old, seen.last))(start)
        _, forward = jax.linearize(policies, start)
        backward = jax.linear_transpose(forward, start)
        return jax.grad(value)(start), curvature, backward(fisher(old, seen.last, forward(v)))[0]

    v = jnp.asarray(np.random.RandomState(1).normal(size=start.size))
    gradient, curvature, product = derivatives(v)
    for at in np.random.RandomState(0).choice(start.size, 12, replace=False):
        ends = [value(start.at[at].add(h)) for h in (1e-6, -1e-6)]
        np.testing.assert_allclose(gradient[at], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(product, curvature @ v, rtol=1e-6, atol=1e-9)


def test_a_step_improves_within_the_region(trip):
    learner, meta, seen = trip
    after, info = improve(learner, PLAN, meta, seen.supports, seen.last)
    assert bool(info["accepted"]) and 0 < float(info["kl"]) <= PLAN.region.max_kl and float(info["loss"]) < 0
    assert float(info["moved_start"]) > 0 and float(info["moved_weights"]) > 0
    assert bool(jnp.all(info["finite"])) and jax.tree.structure(after) == jax.tree.structure(meta)
    part, _ = improve(learner, replace(PLAN, share=1 / 3), meta, seen.supports, seen.last)
    assert not np.array_equal(ravel_pytree(after)[0], ravel_pytree(part)[0])  # the curvature of one task of three


def test_gates_of_one_are_maml(key):
    """γ ≡ 1 is MAML bit for bit: the rollouts, what is learnt from them, and the outer step."""
    plain, gated = learner_of(), learner_of(Attenuator(kept=("log_std",)))
    meta = jax.jit(plain.init)(key)
    params = jax.tree.map(jnp.zeros_like, jax.jit(gated.init)(key)["start"])
    params["layer1"]["bias"] += 40.0  # the sigmoid of 40 is exactly 1 in float32
    tasks = draw_tasks(ENVIRONMENT, key, 3)
    small, two = Navigation(horizon=2), replace(PLAN, rollouts=2)
    with jax.disable_jit():  # operation by operation: two programs that XLA fuses differently may round differently
        one, other = (travel(m, two, {**meta, "start": p}, small, tasks, key, 1)
                      for m, p in ((plain, {}), (gated, params)))  # fmt: skip
    np.testing.assert_array_equal(other.info["gates"], 1)
    jax.tree.map(
        np.testing.assert_array_equal,
        (one.supports, one.last, one.returns),
        (other.supports, other.last, other.returns),
    )


def test_resampling_draws_one_batch_more(key, x64):
    """The batch of the attenuated policy is counted, and is what the first update learns from."""
    learner, tasks = learner_of(Attenuator(kept=("log_std",))), draw_tasks(ENVIRONMENT, key, 3)
    meta = jax.jit(learner.init)(key)
    once = travelled(learner, PLAN, meta, ENVIRONMENT, tasks, key, 1)
    again = travelled(learner, replace(PLAN, resample=True), meta, ENVIRONMENT, tasks, key, 1)
    assert (len(once.supports), len(again.supports)) == (1, 2) and once.returns.shape == again.returns.shape == (3, 2)
    assert float(jnp.sum(again.steps)) == pytest.approx(1.5 * float(jnp.sum(once.steps)), rel=0.1)
    weights, _ = adapted(replace(learner, steps=0), meta, again.supports[:1])
    gate = again.info["gates"][:, 3, None, None]  # of layer1/weight, the fourth of four
    np.testing.assert_allclose(weights["layer1"]["weight"], gate * meta["weights"]["layer1"]["weight"], rtol=1e-10)
    fast, _ = adapted(learner, meta, again.supports)
    by_hand, _ = jax.jit(jax.vmap(lambda w, s: learner_of().adapt({**meta, "weights": w}, s)))(
        weights, again.supports[1]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), fast, by_hand.weights)


def test_rollouts_end_at_the_goal(key):
    """After the step that ends it a rollout stays where it is, and nothing of it counts."""
    policy = GaussianPolicy(2, 2, ())
    weights = policy.init(key)
    weights = {"layer0": {"weight": jnp.zeros((2, 2)), "bias": jnp.array([0.5, 0.0])}, "log_std": jnp.full(2, -20.0)}
    rollouts = collect(Navigation(horizon=8), policy, weights, jnp.array([0.1, 0.0, 0.0, 0.0]), key, 3)
    np.testing.assert_array_equal(rollouts.alive[:, 0], [1, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(rollouts.observations[2:, 0], [[0.1, 0.0]] * 6, atol=1e-6)
    np.testing.assert_array_equal(rollouts.rewards[2:], 0)
    np.testing.assert_allclose(rollouts.returns(), -0.05, atol=1e-6)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_navigation(setting, key):
    """Goals and starts fill their squares; mean distances as computed independently."""
    environment = Navigation(setting)
    tasks = np.asarray(jax.jit(jax.vmap(environment.draw))(jax.random.split(key, 20_000)))
    goal, start = SETTINGS[setting].goal, SETTINGS[setting].start
    assert 0.98 * goal < np.abs(tasks[:, :2]).max() <= goal and np.abs(tasks[:, 2:]).max() <= start
    distance = np.linalg.norm(tasks[:, :2] - tasks[:, 2:], axis=1).mean()
    assert distance == pytest.approx({"a": 0.3826, "b": 0.5211, "c": 1.5306, "d": 2.0897}[setting], rel=0.02)
    environment.check(tasks)
    with pytest.raises(EnvironmentFault, match="coordinate of 2.5; expected at most"):
        environment.check(jnp.array([[2.5, 0, 0, 0]]))


def test_starts_of_every_rollout(key):
    task = jnp.zeros(4)
    starts = [Navigation("b", starts="rollout").reset(k, task)[1] for k in jax.random.split(key, 3)]
    assert len({tuple(map(float, s)) for s in starts}) == 3 and float(jnp.max(jnp.abs(jnp.stack(starts)))) <= 0.5


def test_slower_later_steps():
    rule, w, g = Slower(SGD(0.1), 0.5), {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    np.testing.assert_allclose(rule.apply({}, w, g, 0)["w"], 0.9)
    np.testing.assert_allclose(rule.apply({}, w, g, 1)["w"], 0.95)
    np.testing.assert_allclose(Slower(SGD(0.1), 0.5, since=2).apply({}, w, g, 1)["w"], 0.9)


@dataclass(frozen=True)
class Bandit:
    """One step, reward −(a − task)²: the best that can be done after seeing rewards is the task itself."""

    horizon: int = 1
    on_host: ClassVar[bool] = False
    observations: ClassVar[int] = 1
    actions: ClassVar[int] = 1

    def draw(self, key):
        return jax.random.choice(key, jnp.array([-1.0, 1.0]), (1,))

    def check(self, tasks):
        pass

    def reset(self, key, task):
        return jnp.ones(1), jnp.ones(1)

    def step(self, key, state, action, task):
        return state, state, -jnp.sum(jnp.square(action - task)), jnp.array(True)


def test_a_task_with_a_known_best_action_is_solved():
    """Tasks ±1: before it has seen one a policy of mean μ gets −1 − μ² − σ²; one update learnt to bring μ near the task."""
    learner = MAML(GaussianPolicy(1, 1, ()), objective=PolicyGradient(), rule=SGD(1.0), steps=1, derivative="plain")
    plan = PolicyPlan(40, batch=20, rollouts=40, chunk=10)
    state = begin(learner, plan, jax.random.key(1))
    *_, (state, _) = fit(learner, state, Bandit(), (), plan)
    tasks = jnp.array([[-1.0], [1.0]] * 10)
    many = replace(plan, rollouts=1000)
    ((returns, _),) = evaluate.evaluate(learner, many, state.meta, Bandit(), tasks, jax.random.key(2), 1, 1.0)
    before, after = returns.mean(axis=0)
    weights = state.meta["weights"]
    mean = float(weights["layer0"]["weight"][0, 0] + weights["layer0"]["bias"][0])
    spread = float(jnp.exp(2 * weights["log_std"][0]))
    assert before == pytest.approx(-1 - mean**2 - spread, rel=0.1)
    assert after > -1  # nearer than any policy that does not adapt


class Walker:
    """Navigation as a simulator of the host: what the device does, in NumPy."""

    on_host, observations, actions, horizon = True, 2, 2, 6

    def draw(self, rng, count, balanced=False):
        return np.concatenate([rng.uniform(-0.5, 0.5, (count, 2)), np.zeros((count, 2))], axis=1)

    def check(self, tasks):
        assert tasks.shape[1] == 4

    def reset(self, rng, tasks):
        return tasks[:, 2:].copy(), tasks[:, 2:].astype(np.float32)

    def step(self, state, actions, tasks):
        if not np.isfinite(actions).all():
            raise DivergedError("the actions are not finite.")
        state = state + np.clip(0.1 * actions, -0.1, 0.1)
        gap = state - tasks[:, :2]
        return state, state.astype(np.float32), -np.linalg.norm(gap, axis=1), (np.abs(gap) < 0.01).all(axis=1)


def test_a_simulator_of_the_host_trains_and_is_judged(key):
    learner = learner_of()
    state = begin(learner, PLAN, key)
    infos = [info for _, info in fit(learner, state, Walker(), (), PLAN)]
    assert len(infos) == 3 and all(info["score"].shape == (1,) for info in infos)
    tasks = evaluate.test_tasks(Walker(), key, 4)
    parts = list(evaluate.evaluate(learner, PLAN, state.meta, Walker(), tasks, key, 2, 0.5))
    assert np.concatenate([r for r, _ in parts]).shape == (4, 3)
    first = collect_batch(Walker(), learner.net, state.meta["weights"], tasks, key, 5, shared=True)
    again = collect_batch(Walker(), learner.net, state.meta["weights"], tasks, key, 5, shared=True)
    assert first.observations.shape == (4, 6, 5, 2) and first.alive.shape == (4, 6, 5)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    moved = first.observations[:, :-1] + jnp.clip(0.1 * first.actions[:, :-1], -0.1, 0.1)
    np.testing.assert_allclose(first.observations[:, 1:], moved, atol=1e-5)  # no rollout ends that soon
    broken = jax.tree.map(lambda w: w * jnp.nan, state.meta["weights"])
    with pytest.raises(DivergedError):
        collect_batch(Walker(), learner.net, broken, tasks, key, 5, shared=True)


TINY = Recipe.of(
    data="navigation", method="l2f", shot=3, batch=2, filters=5, depth=1, rl_horizon=5, steps=4, epoch=2, val_episodes=2
)


def key_of(recipe):
    """Equal where recipes train in one program."""
    return domain_of(recipe).together(recipe, None)


def trained(folder, recipe=TINY):
    run = making.create(resolve(recipe), folder)
    list(training.train(run))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("unbroken") / "run")


def final(run):
    return checkpoint.newest(run.folder / "checkpoints", begin(run.learner(), run.plan(), jax.random.key(0)))[0].meta


def test_resumes_to_the_same_bits(whole, tmp_path):
    part = making.create(resolve(TINY), tmp_path / "part")
    stopped = training.train(part)
    while next(stopped).step < 3:
        pass
    stopped.close()
    list(training.train(folders.open_run(part.folder)))
    jax.tree.map(np.testing.assert_array_equal, final(whole), final(part))
    lines = [
        [json.loads(line) for line in (r.folder / "metrics.jsonl").read_text().splitlines()] for r in (whole, part)
    ]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == [2, 4]
    assert {"before", "score", "kl", "accepted", "std", "env_steps", "gates", "val_score"} <= set(lines[0][0])


def test_seeds_train_together(tmp_path, x64):
    """Two steps in float64: conjugate gradients on a curvature that is nearly singular make 1e-8 of two programs' roundings in one
    step, and each step a hundred times as much of that."""
    brief = TINY.with_values(steps=2)
    recipes = [resolve(brief.with_values(seed=seed)) for seed in (0, 1)]
    assert key_of(recipes[0]) == key_of(recipes[1]) is not None
    both = [making.create(recipe, tmp_path / f"seed{recipe.seed}") for recipe in recipes]
    list(training.train_together(both))
    alone = final(trained(tmp_path / "alone", brief))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), final(both[0]), alone)


def test_checkpoints_are_chosen_by_the_mean_after_updates_1_to_4(whole):
    """The best checkpoint has the highest of these means, and a checkpoint's mean is that of its adaptation curve."""
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    recipe = whole.recipe
    assert recipe.inner.steps == 1
    judged = whole.domain.judge(recipe, None, "val", [final(whole)], 2, 4, validation_key(recipe.seed), curve=True)
    after = np.concatenate([part.scores for part in judged])
    assert after.shape == (2, 5) and lines[-1]["step"] == 4
    np.testing.assert_allclose(lines[-1]["val_score"], after[:, 1:].mean(), rtol=1e-6)
    assert abs(lines[-1]["val_score"] - after[:, 1].mean()) > 1e-4
    _, info, _ = checkpoint.newest(
        whole.folder / "checkpoints", begin(whole.learner(), whole.plan(), jax.random.key(0))
    )
    best = max(lines, key=lambda line: line["val_score"])
    assert info["best"][0] == [best["val_score"], best["step"]]


def test_updates_that_are_judged_can_have_more_rollouts(whole, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluate, "evaluate", lambda learner, plan, *others: seen.append(plan.rollouts) or [])
    for wanted in (0, 7):
        recipe = resolve(TINY.with_values(**{"control.eval_rollouts": wanted}))
        domain = domain_of(recipe)
        list(domain.judge(recipe, None, "val", [{}], 2, 1, jax.random.key(0), curve=False))
        seen.append(domain.episodes_hash(recipe, "test", 2, jax.random.key(0)))
        assert domain.plan(recipe).rollouts == 3
    assert seen[::2] == [3, 7] and seen[1] != seen[3]


def test_a_validation_that_diverges_in_a_simulator_ends_no_training(monkeypatch):
    recipe = resolve(TINY)

    def diverges(*_):
        raise DivergedError("the actions are not finite.")
        yield

    monkeypatch.setattr(evaluate, "evaluate", diverges)
    ask = functools.partial(domain_of(recipe).judge, recipe, None, "val", [{}], 2, 1, jax.random.key(0))
    (judged,) = ask(curve=False)
    assert np.isnan(judged.scores).all() and judged.scores.shape == (2, 1)
    with pytest.raises(DivergedError):
        list(ask(curve=True))


def test_evaluation_and_settings(whole, capsys):
    run = whole
    results = [
        runs.evaluate_run(run, episodes=3, ensemble=1, steps=2, seed=0, data=data) for data in (None, "navigation_c")
    ]
    assert len({result.record["episodes_hash"] for result in results}) == 2
    for result in results:
        runs.write_evaluation(result)
        record = result.record
        assert np.shape(record["returns"]) == (3, 3) and record["score"] == "return" and len(record["gates"]) == 4
        seen = runs.read_kept(result.path)
        assert seen["observations"].shape == (3, 3, 5, 2) and seen["alive"].shape == (3, 3, 5)
        assert np.abs(seen["tasks"]).max() <= (0.5 if record["data"] == "navigation" else 2)
    again = runs.evaluate_run(run, episodes=3, ensemble=1, steps=2, seed=0)
    assert again.record["returns"] == results[0].record["returns"]
    with pytest.raises(RecipeError, match="cannot be judged on sinusoid"):
        runs.evaluate_run(run, episodes=3, ensemble=1, steps=1, seed=0, data="sinusoid")
    with pytest.raises(RecipeError, match="control judges one"):
        runs.evaluate_run(run, episodes=3, ensemble=2, steps=1, seed=0)
    assert cli.main(["evaluate", str(run.folder), "--episodes", "1", "--steps", "2", "--pictures"]) == 0
    assert "return" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"method": "leo"}, "method 'leo' does not fit data 'navigation'"),
        ({"method": "mumomaml+l2f"}, "control takes maml, "),
        ({"inner_steps": 0}, "inner.steps is 0; in control a policy takes one update or more"),
        ({"method": "l2f", "gate_every_step": True, "rl_resample": True}, "leave one of them out"),
        ({"net": "conv4"}, "net.kind is conv4; data 'navigation' does not have that choice"),
        ({"query": 7}, "episode.query is 7; data"),
        ({"rl_max_kl": 0.0}, "control.max_kl is 0.0"),
        ({"rl_loss": "lgo"}, "control.loss is 'lgo'. Did you mean 'log'"),
        ({"rl_cg_share": 1.5}, "control.cg_share is 1.5"),
    ],
)
def test_recipes_that_cannot_be(changes, message):
    with pytest.raises(RecipeError, match=message):
        resolve(TINY.with_values(**changes))


def test_presets_of_control():
    """MAML's code and the paper's table."""
    code, paper = (resolve(Recipe.of(data="navigation", method="l2f", preset=preset)) for preset in ("code", "paper"))
    assert (
        code.inner.rate,
        code.navigation.limit,
        code.outer.batch,
        code.episode.shot,
        code.control.horizon,
        code.outer.steps,
    ) == (
        0.1,
        0.1,
        20,
        20,
        100,
        500,
    )
    assert (paper.inner.rate, paper.navigation.limit) == (0.01, 0.2)
    cheetah = resolve(Recipe.of(data="cheetah_vel", method="maml"))
    assert (cheetah.outer.batch, cheetah.episode.shot, cheetah.control.horizon, cheetah.locomotion.action_scale) == (
        40,
        40,
        200,
        10.0,
    )
    assert domain_of(cheetah).environment(cheetah) == locomotion.Locomotion("cheetah_vel", action_scale=10.0)
    assert key_of(cheetah) is None


def metrics_of(run):
    return (run.folder / "metrics.jsonl").read_text().splitlines()


def test_a_diverged_policy_is_one_sentence(tmp_path):
    run = making.create(resolve(TINY.with_values(inner_rate=1e30, method="maml")), tmp_path / "run")
    with pytest.raises(DivergedError, match="outer step 0 of .* is not finite; .* Try a smaller --inner-rate, or"):
        list(training.train(run))
    skipping = making.create(
        resolve(TINY.with_values(inner_rate=1e30, non_finite="skip", method="maml")), tmp_path / "skipping"
    )
    with pytest.raises(DivergedError, match="has learned nothing: all outer steps were skipped"):
        list(training.train(skipping))  # every step is passed over and counted
    assert sum(json.loads(line).get("skipped", 0) for line in metrics_of(skipping)) == TINY.get("outer.steps")


def test_a_simulator_that_is_not_installed_is_one_sentence(tmp_path):
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "from lethax import cli\n"
        "sys.exit(cli.main(['train', 'cheetah_vel', '--method', 'maml', '--steps', '1', '--out', 'run']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "its extra [rl]" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
