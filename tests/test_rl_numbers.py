"""Meta-reinforcement learning against numbers worked out by hand or independently, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from lethax.conjugate import conjugate_gradients
from lethax.gaussian import Normal, divergence, log_density
from lethax.methods import MAML, Attenuator
from lethax.nets.policy import GaussianPolicy
from lethax.records import Split
from lethax.rl.advantages import advantages, discounted, features, fit_baseline, normalised
from lethax.rl.navigation import Navigation
from lethax.rl.objective import PolicyGradient, Steps
from lethax.rl.outer import PolicyPlan, adapted, fisher, improve, mean_divergence, surrogate
from lethax.rl.rollouts import Rollouts
from lethax.rl.trpo import TrustRegion, line_search, natural_step
from lethax.rules import SGD

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("x64")]


def walk(environment, task, actions):
    key = jax.random.key(0)
    state, _ = environment.reset(key, task)
    seen = []
    for action in actions:
        state, observation, reward, done = environment.step(key, state, jnp.array(action, float), task)
        np.testing.assert_array_equal(state, observation)
        seen.append((state, float(reward), bool(done)))
    return seen


MOVES = [(0.05, -0.2), (0.3, -0.02), (-0.15, 0.1), (1, -1), (0.08, -0.3)]


@pytest.mark.parametrize(
    "limit,places,rewards,discounts",
    [
        (
            0.1, [(0.05, -0.1), (0.15, -0.12), (0.05, -0.02), (0.15, -0.12), (0.23, -0.22)],
            [-0.3905124838, -0.3176476035, -0.4548626166, -0.3176476035, -0.1931320792],
            {0.99: -1.6445295185, 0.95: -1.5324416182},
        ),
        (
            0.2, [(0.05, -0.2), (0.25, -0.22), (0.1, -0.12), (0.3, -0.32), (0.38, -0.52)],
            [-0.3201562119, -0.1868154169, -0.3440930107, -0.0800000000, -0.1442220510],
            {0.99: -1.0585120812, 0.95: -0.9942345620},
        ),
    ],
)  # fmt: skip
def test_navigation_moves(limit, places, rewards, discounts):
    seen = walk(Navigation(limit=limit, action_form="raw"), jnp.array([0.3, -0.4, 0, 0]), MOVES)
    np.testing.assert_allclose([state for state, *_ in seen], places, atol=1e-12)
    np.testing.assert_allclose([reward for _, reward, _ in seen], rewards, atol=1e-10)
    assert not any(done for *_, done in seen)
    for discount, total in discounts.items():
        np.testing.assert_allclose(discounted(jnp.array(rewards)[:, None], discount)[0, 0], total, atol=1e-9)


def test_navigation_scales_normalized_actions():
    seen = walk(Navigation(), jnp.array([0.3, -0.4, 0, 0]), [(0.5, -2), (3, -0.2), (-1.5, 1)])
    np.testing.assert_allclose(seen[-1][0], (0.05, -0.02), atol=1e-12)
    np.testing.assert_allclose(sum(reward for _, reward, _ in seen), -1.1630227039, atol=1e-10)


def test_navigation_ends_at_the_goal():
    seen = walk(Navigation(action_form="raw"), jnp.array([0.2, 0.1, 0, 0]), [(0.1, 0.05)] * 2)
    np.testing.assert_allclose([reward for _, reward, _ in seen], [-0.1118033989, 0], atol=1e-10)
    assert [done for *_, done in seen] == [False, True]


def column(*values):
    return jnp.array(values, jnp.float64)[:, None]


def test_returns_and_advantages():
    r, v = column(1, -0.5, 2, 0.25), column(0.4, 0.1, -0.3, 0.8)
    np.testing.assert_allclose(discounted(r, 0.99)[:, 0], [2.70777475, 1.725025, 2.2475, 0.25], atol=1e-12)
    for discount, smoothing, expected in (
        (0.99, 1.0, [2.30777475, 1.625025, 2.5475, -0.55]),
        (0.99, 0.95, [2.1328193952, 1.5245288625, 2.574725, -0.55]),
        (0.99, 0.0, [0.699, -0.897, 3.092, -0.55]),
        (0.95, 1.0, [2.14434375, 1.525625, 2.5375, -0.55]),
    ):
        gaps = r + discount * jnp.concatenate([v[1:], jnp.zeros((1, 1))]) - v
        np.testing.assert_allclose(discounted(gaps, discount * smoothing)[:, 0], expected, atol=1e-9)
    got = normalised(column(2.30777475, 1.625025, 2.5475, -0.55), jnp.ones((4, 1)))[:, 0]
    np.testing.assert_allclose(got, [0.6756518862, 0.1166343617, 0.8719326111, -1.6642188590], atol=1e-7)


def test_padding_is_no_part_of_the_normalisation():
    x = jnp.array([[1, -1], [-0.5, 3], [2, 99.0], [0.25, -99.0]])
    alive = jnp.array([[1, 1], [1, 1], [1, 0], [1, 0.0]])
    expected = [[0.1501427023, -1.2912272398], [-0.9308847543, 1.5915126444], [0.8708276734, 0], [-0.3903710260, 0]]
    np.testing.assert_allclose(normalised(x, alive), expected, atol=1e-7)


A = [(0, 0), (0.1, -0.1), (0.2, -0.2), (0.3, -0.3)]
B = [(0, 0), (0.1, 0.1), (0.2, 0.1), (0.2, 0.2)]
REWARDS = jnp.array(
    [[-0.3605551275, -0.5385164807], [-0.2236067977, -0.5099019514], [-0.1, -0.6082762530], [-0.2236067977, -0.7]]
)


def observed():
    return jnp.stack([jnp.array(A), jnp.array(B)], axis=1)


def test_features():
    phi = features(jnp.array([(0, 0), (0.1, -0.1), (0.2, -0.2), (15, -12.0)])[:, None])[:, 0]
    np.testing.assert_allclose(phi[0], [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(phi[1], [0.1, -0.1, 0.01, 0.01, 0.01, 1e-4, 1e-6, 1], atol=1e-15)
    np.testing.assert_allclose(phi[3], [10, -10, 100, 100, 0.03, 9e-4, 2.7e-5, 1], atol=1e-15)


def test_baseline_and_advantages():
    returns, alive = discounted(REWARDS, 0.99), jnp.ones((4, 2))
    w = fit_baseline(features(observed()), returns, alive)
    expected = [
        -4.6038900885,
        -4.2350601564,
        -13.3890228364,
        -7.5915502345,
        113.3956915397,
        5.5589137991,
        0.2016840442,
        -1.6137223228,
    ]
    np.testing.assert_allclose(w, expected, atol=1e-6)
    values = features(observed()) @ w
    np.testing.assert_allclose(values[:, 0], [-1.6137223228, -0.7258980383, -0.2565722223, -0.2057436647], atol=1e-6)
    rollouts = Rollouts(observed(), jnp.zeros((4, 2, 2)), REWARDS, alive)
    got = jax.jit(advantages)(rollouts, 0.99, 1.0)
    np.testing.assert_allclose(got[:, 0], [1.9218426574, 0.4936795507, -0.1737230166, -0.0478866512], atol=1e-6)
    np.testing.assert_allclose(got[:, 1], [-1.8900799134, -0.6039168502, -0.0051757081, 0.3052599314], atol=1e-6)


def test_padding_never_changes_a_number():
    """Rollouts with what follows their end, whatever it is, have the advantages that they have without it."""
    short = Rollouts(observed(), jnp.zeros((4, 2, 2)), REWARDS, jnp.ones((4, 2)))
    junk = lambda leaf: jnp.concatenate([leaf, jnp.full((3, *leaf.shape[1:]), 7.5)])  # noqa: E731
    padded = Rollouts(*map(junk, short[:3]), jnp.concatenate([jnp.ones((4, 2)), jnp.zeros((3, 2))]))
    whole, alone = (jax.jit(advantages)(rollouts, 0.99, 0.97) for rollouts in (padded, short))
    np.testing.assert_allclose(whole[:4], alone, rtol=1e-9)
    np.testing.assert_array_equal(whole[4:], 0)
    assert padded.returns() == short.returns()


def test_padding_is_no_part_of_the_losses():
    """Steps that do not count may hold anything finite: in the inner loss, the surrogate, the divergence and the curvature."""
    split = steps(*BEFORE)
    junk = lambda leaf: jnp.concatenate([leaf, jnp.full((2, *leaf.shape[1:]), 3.5)])  # noqa: E731
    behaviour = Normal(junk(split.y.behaviour.mean), split.y.behaviour.log_std)
    y = Steps(junk(split.y.actions), junk(split.y.advantages), jnp.array([1.0, 1, 1, 1, 0, 0]), behaviour)
    padded = Split(junk(split.x), y)
    other = weights(0.7, 0.1, -0.3)

    @jax.jit
    def numbers(data):
        loss, grads = jax.value_and_grad(lambda w: PolicyGradient().loss(POLICY.apply(w, data.x), data.y))(other)
        many = batched(data)
        new, old = (batched(POLICY.apply(w, data.x)) for w in (other, weights()))
        products = fisher(old, many, jax.tree.map(jnp.ones_like, old))
        kept = jnp.sum(products.mean), products.log_std
        return loss, grads, surrogate(new, old, many), mean_divergence(new, old, many), kept

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), numbers(split), numbers(padded))


def test_gaussians():
    p, q = (Normal(jnp.array([m]), jnp.array(s)) for m, s in (((0.1, -0.2), (0.0, -0.5)), ((0.3, 0.1), (-0.2, 0.1))))
    np.testing.assert_allclose(divergence(p, q)[0], 0.3631888326, atol=1e-10)
    np.testing.assert_allclose(divergence(q, p)[0], 0.7375411667, atol=1e-10)
    a = jnp.array([[0.5, -0.7]])
    np.testing.assert_allclose((log_density(p, a)[0], log_density(q, a)[0]), (-1.7576622950, -2.0297074013), atol=1e-10)


def test_natural_step_and_line_search():
    f, g = jnp.array([[2, 0.5], [0.5, 1]]), jnp.array([1.0, -2.0])
    damped = lambda v: f @ v + 1e-5 * v  # noqa: E731
    np.testing.assert_allclose(conjugate_gradients(damped, g, 1)[0], (1.2499843752, -2.4999687504), atol=1e-10)
    np.testing.assert_allclose(conjugate_gradients(damped, g, 10)[0], (1.1428432655, -2.5713959188), atol=1e-9)
    step = natural_step(TrustRegion(), lambda v: f @ v, g)
    np.testing.assert_allclose(step, (-0.0644654604, 0.1450472053), atol=1e-9)
    at = jnp.array([0.2, 0.3])
    np.testing.assert_allclose(at + step, (0.1355345396, 0.4450472053), atol=1e-9)

    def judge(t):
        return g @ (t - at) + 40 * jnp.sum((t - at) ** 2), 0.575 * (t - at) @ f @ (t - at)

    after, outcome = line_search(TrustRegion(), judge, at, step, judge(at)[0])
    np.testing.assert_allclose(after, (0.1788759579, 0.3475290682), atol=1e-9)
    assert bool(outcome.accepted) and int(outcome.backtracks) == 5
    np.testing.assert_allclose((outcome.gain, outcome.kl), (0.0079726793, 0.0012347875), atol=1e-9)


def test_a_step_that_helps_nowhere_is_not_taken():
    at = jnp.array([0.2, 0.3])
    hopeless = lambda t: (jnp.sum((t - at) ** 2), jnp.zeros(()))  # noqa: E731
    after, outcome = line_search(TrustRegion(), hopeless, at, jnp.ones(2), jnp.zeros(()))
    np.testing.assert_array_equal(after, at)
    assert not bool(outcome.accepted) and float(outcome.gain) == 0
    broken = natural_step(TrustRegion(), lambda v: v * jnp.nan, jnp.ones(2))
    np.testing.assert_array_equal(broken, 0)


def test_conjugate_gradient_solves():
    random = np.random.RandomState(0)
    root = jnp.asarray(random.normal(size=(8, 8)))
    matrix, b = root @ root.T + jnp.eye(8), jnp.asarray(random.normal(size=8))
    got, image = conjugate_gradients(lambda v: matrix @ v, b, 8)
    np.testing.assert_allclose(got, jnp.linalg.solve(matrix, b), rtol=1e-8)
    np.testing.assert_allclose(image, matrix @ got, rtol=1e-8)
    short, image = conjugate_gradients(lambda v: matrix @ v, b, 3)
    np.testing.assert_allclose(image, matrix @ short, rtol=1e-8)
    early, _ = conjugate_gradients(lambda v: matrix @ v, b, 50, residual=1e-10)
    assert float(jnp.sum((matrix @ early - b) ** 2)) <= 1e-10


POLICY = GaussianPolicy(1, 1, ())
BEFORE = ((0, 0.1, 0.2, 0.3), (0.4, -0.2, 0.7, 0.1), (1.2, -0.8, 0.3, -0.7))
AFTER = ((0, 0.2, 0.4, 0.1), (0.3, -0.5, 0.2, 0.6), (0.9, -1.1, 0.7, -0.5))


def weights(w=0.5, b=-0.1, log_std=0.0):
    return {"layer0": {"bias": jnp.array([b]), "weight": jnp.array([[w]])}, "log_std": jnp.array([log_std])}


def steps(states, actions, gains, at=None):
    x = column(*states)
    return Split(x, Steps(column(*actions), jnp.array(gains), jnp.ones(4), POLICY.apply(at or weights(), x)))


def of(tree):
    """(w, b, log σ)."""
    return tree["layer0"]["weight"][0, 0], tree["layer0"]["bias"][0], tree["log_std"][0]


def linear(rate=0.1, form="log", **options):
    return MAML(POLICY, objective=PolicyGradient(form), rule=SGD(rate), steps=1, derivative="plain", **options)


def test_policy_gradient_step():
    split = steps(*BEFORE)
    loss = lambda form: lambda t: PolicyGradient(form).loss(POLICY.apply(weights(*t), split.x), split.y)  # noqa: E731
    t = jnp.array([0.5, -0.1, 0.0])
    np.testing.assert_allclose(loss("log")(t), 0.05340625, atol=1e-12)

    @jax.jit
    def derivatives(t):
        curvatures = jax.hessian(loss("log"))(t), jax.hessian(loss("ratio"))(t)
        return [jax.grad(loss(form))(t) for form in ("log", "ratio", "importance")], *curvatures

    gradients, of_log, of_ratio = derivatives(t)
    for gradient in gradients:  # one, for the policy that drew the actions
        np.testing.assert_allclose(gradient, (-0.010875, -0.22375, -0.1068125), atol=1e-12)
    np.testing.assert_allclose(
        of_log,
        [(-0.01475, -0.0575, 0.02175), (-0.0575, 0, 0.4475), (0.02175, 0.4475, 0.213625)], atol=1e-12,
    )  # fmt: skip
    ratio = [
        (-0.0161356250, -0.0642687500, 0.0274190625),
        (-0.0642687500, -0.1068125000, 0.6073718750),
        (0.0274190625, 0.6073718750, 0.3905948438),
    ]
    np.testing.assert_allclose(of_ratio, ratio, atol=1e-10)
    far = split.y._replace(behaviour=split.y.behaviour._replace(mean=split.y.behaviour.mean + 1e3))
    cut = lambda t: PolicyGradient("importance").loss(POLICY.apply(weights(*t), split.x), far)  # noqa: E731
    np.testing.assert_array_equal(jax.grad(cut)(t), 0.0)  # of ratios beyond every number, which are cut
    for rate, expected in ((0.1, (0.5010875, -0.077625, 0.01068125)), (0.01, (0.50010875, -0.0977625, 0.001068125))):
        fast, _ = linear(rate).adapt({"weights": weights(), "rule": {}}, split)
        np.testing.assert_allclose(of(fast.weights), expected, atol=1e-12)


def test_gated_policy_gradient_step():
    start = Attenuator(fixed=(0.8, 0.9), kept=("log_std",))
    fast, info = linear(start=start).adapt({"weights": weights(), "rule": {}, "start": {}}, steps(*BEFORE))
    np.testing.assert_allclose(of(fast.weights), (0.45112875, -0.0579125, 0.0099028125), atol=1e-12)
    np.testing.assert_array_equal(info["gates"], (0.8, 0.9))


def batched(split):
    return jax.tree.map(lambda leaf: leaf[None], split)


def test_outer_step():
    meta = {"weights": weights(), "rule": {}, "start": {}, "encoder": {}}
    supports, query = [batched(steps(*BEFORE))], batched(steps(*AFTER))
    vector, tree = ravel_pytree(meta)  # bias, weight, log σ

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(learner, v):
        fast, _ = jax.vmap(lambda mine: learner.adapt(tree(v), mine))(supports)
        return jax.vmap(POLICY.apply)(fast.weights, query.x)

    def gradient(learner):
        old = outputs(learner, vector)
        b, w, s = jax.jit(jax.grad(lambda v: surrogate(outputs(learner, v), old, query)))(vector)
        return w, b, s

    second = (-0.0268998023, -0.1644292006, 0.0945917729)
    np.testing.assert_allclose(gradient(linear()), second, atol=1e-10)
    np.testing.assert_allclose(gradient(linear(order=1)), (-0.0257460183, -0.1602863289, 0.0892699923), atol=1e-10)
    np.testing.assert_allclose(gradient(linear(form="ratio")), (-0.0270624713, -0.1675858619, 0.0955890864), atol=1e-10)

    old = outputs(linear(), vector)

    @jax.jit
    def curvatures(v):
        """The curvature, and its rows as the outer step computes products with it."""
        _, forward = jax.linearize(lambda v: outputs(linear(), v), v)
        backward = jax.linear_transpose(forward, v)
        products = [backward(fisher(old, query, forward(unit)))[0] for unit in jnp.eye(3)]
        return jax.hessian(lambda v: mean_divergence(outputs(linear(), v), old, query))(v), jnp.stack(products)

    curvature, products = curvatures(vector)
    expected = np.array([(0.0535567712, 0.1776786051, -0.0123000645), (0.1776786051, 0.9848408500, -0.1318095238),
                         (-0.0123000645, -0.1318095238, 1.9174565383)])  # fmt: skip
    order = np.array([1, 0, 2])
    np.testing.assert_allclose(curvature, expected[np.ix_(order, order)], atol=1e-9)
    np.testing.assert_allclose(products, curvature, atol=1e-10)

    after, info = improve(linear(), PolicyPlan(1, batch=1), meta, supports, query)
    np.testing.assert_allclose(of(after["weights"]), (0.4296843282, 0.0176262871, -0.0243346049), atol=1e-7)
    assert bool(info["accepted"]) and int(info["backtracks"]) == 1
    np.testing.assert_allclose((info["loss"], info["kl"]), (-0.0207350631, 0.0067595914), atol=1e-8)


def test_a_list_of_support_sets_is_one_for_each_step():
    """Two steps on two sets are two steps taken one by one; one set more is read by the start alone."""
    first, second = steps(*BEFORE), steps(*AFTER)
    meta = {"weights": weights(), "rule": {}, "start": {}}
    one = linear().adapt(meta, first)[0].weights
    expected = linear().adapt({**meta, "weights": one}, second)[0].weights
    two = MAML(POLICY, objective=PolicyGradient(), rule=SGD(0.1), steps=2, derivative="plain")
    np.testing.assert_allclose(of(two.adapt(meta, [first, second])[0].weights), of(expected), rtol=1e-12)
    start = Attenuator(fixed=(0.8, 0.9), kept=("log_std",))
    gated = MAML(POLICY, objective=PolicyGradient(), rule=SGD(0.1), steps=1, derivative="plain", start=start)
    theta_bar = weights(0.45, -0.08)
    expected = linear().adapt({**meta, "weights": theta_bar}, second)[0].weights
    np.testing.assert_allclose(of(gated.adapt(meta, [first, second])[0].weights), of(expected), rtol=1e-12)
    assert adapted(two, meta, [batched(first), batched(second)])[0]["log_std"].shape == (1, 1)
