"""Reptile, iMAML and CAVIA: numeric cases with closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_inner import Formula, differentiate, h4

from lethax.conjugate import conjugate_gradients
from lethax.errors import RecipeError
from lethax.methods import MAML, Attenuator, Implicit, Reptile, build
from lethax.nets import MLP, Contextual, Conv4, ResNet12
from lethax.objectives import SquaredError
from lethax.records import Episode, Split
from lethax.rules import SGD

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("x64")]


def quadratic():
    """L_S = (t − 1.5)², L_Q = 1.5 (t + 0.5)²: the net is x t, so that x sets the curvature."""
    root = 1.5**0.5
    column = lambda *values: jnp.array(values)[:, None]  # noqa: E731
    episode = Episode(Split(column(1.0), column(1.5)), Split(column(root), column(-0.5 * root)))
    return Formula(lambda w, x: x * w["t"]), episode, {"weights": {"t": jnp.array(0.7)}, "rule": {}, "start": {}}


def test_reptile():
    net, episode, meta = quadratic()
    learner = MAML(net, SquaredError(), SGD(0.1), bridge=Reptile(0.1), steps=5, order=1)
    fast, loss, grads = differentiate(learner, meta, episode)
    np.testing.assert_allclose(fast["t"], 1.237856, atol=1e-9)
    np.testing.assert_allclose(loss, 4.530215215104, atol=1e-9)
    np.testing.assert_allclose(grads["weights"]["t"], -5.37856, atol=1e-9)
    np.testing.assert_allclose(0.7 - 0.25 * 0.1 * grads["weights"]["t"], 0.834464, atol=1e-9)
    assert not learner.exact


def test_implicit():
    """λ = 2: the inner optimum is 1.1, the meta-gradient λ/(λ + 2) of the query's."""
    net, episode, meta = quadratic()
    learner = MAML(net, SquaredError(), SGD(0.1), bridge=Implicit(2.0), steps=80, order=1, loop="scan")
    fast, _, grads = differentiate(learner, meta, episode)
    np.testing.assert_allclose(fast["t"], 1.1, atol=1e-9)
    np.testing.assert_allclose(grads["weights"]["t"], 2.4, atol=1e-8)


def test_implicit_is_of_first_order_where_nothing_can_be_solved():
    """L_S = exp(−2 t²): near its top the curvature is about −4, and 1 − 4/λ is negative."""
    _, episode, meta = quadratic()
    hill = Formula(lambda w, x: jnp.exp(-(w["t"] ** 2)) * jnp.ones_like(x))
    task = Episode(Split(jnp.ones((1, 1)), jnp.zeros((1, 1))), episode.query)
    meta["weights"]["t"] = jnp.array(0.2)
    found = []
    for bridge in (Implicit(0.1), None):
        learner = MAML(hill, SquaredError(), SGD(1e-12), bridge=bridge, steps=1, order=1)
        found.append(differentiate(learner, meta, task)[2]["weights"]["t"])
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert abs(found[0]) > 0.1


def test_implicit_is_the_derivative_of_the_optimum():
    """Where the inner loop converges, the implicit gradient is the one through it."""
    episode, weights = h4()
    net = Formula(lambda w, x: w["w2"] * jnp.tanh(w["w1"] * x))
    meta = {"weights": weights, "rule": {}, "start": {}}
    learner = MAML(net, SquaredError(), SGD(0.2), bridge=Implicit(1.0), steps=300, order=1, loop="scan")
    _, _, grads = differentiate(learner, meta, episode)
    for name in weights:
        ends = []
        for h in (1e-6, -1e-6):
            moved = {**meta, "weights": {**weights, name: weights[name] + h}}
            ends.append(float(jax.jit(learner.loss)(moved, episode)[0]))
        np.testing.assert_allclose(grads["weights"][name], (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("unroll", [True, False])
def test_conjugate_gradients_against_a_direct_solve(unroll):
    random = np.random.RandomState(0)
    root = random.randn(6, 6)
    matrix, b = jnp.asarray(root @ root.T + np.eye(6)), jnp.asarray(random.randn(6))
    both = {"a": b[:2], "b": b[2:]}
    flat = lambda tree: jnp.concatenate([tree["a"], tree["b"]])  # noqa: E731
    product = lambda v: {"a": (matrix @ flat(v))[:2], "b": (matrix @ flat(v))[2:]}  # noqa: E731
    found, image = conjugate_gradients(product, both, 6, unroll=unroll)
    np.testing.assert_allclose(flat(found), jnp.linalg.solve(matrix, b), rtol=1e-8)
    np.testing.assert_allclose(flat(image), b, rtol=1e-8)
    nothing, _ = conjugate_gradients(lambda v: v, jax.tree.map(jnp.zeros_like, both), 3, unroll=unroll)
    assert not np.any(flat(nothing))


@pytest.mark.parametrize(
    "steps,context,loss,gradient",
    [
        (1, 0.52, 0.221906, (0.03444, 0.70928, -0.19096)),
        (2, 0.3744, 0.1560342304, (-0.161877184, -0.261520896, 0.035204736)),
    ],
)
def test_context(steps, context, loss, gradient):
    """f(x) = w1 x + w2 c + b, c_0 = 0, rate 1."""
    episode, _ = h4()
    net = Contextual(MLP(1, (), 1), size=1)
    weights = {
        "layer0": {"weight": jnp.array([[0.5], [0.8]]), "bias": jnp.array([-0.1])},
        "context": {"value": jnp.zeros(1)},
    }
    learner = MAML(net, SquaredError(), SGD(1.0), steps=steps)
    fast, value, grads = differentiate(learner, {"weights": weights, "rule": {}, "start": {}}, episode)
    np.testing.assert_allclose(fast["context"]["value"], [context], atol=1e-9)
    np.testing.assert_allclose(value, loss, atol=1e-9)
    of_layer = grads["weights"]["layer0"]
    np.testing.assert_allclose((*of_layer["weight"][:, 0], of_layer["bias"][0]), gradient, atol=1e-9)
    np.testing.assert_array_equal(fast["layer0"]["weight"], weights["layer0"]["weight"])


def test_a_context_needs_the_stage_that_it_acts_in():
    with pytest.raises(RecipeError, match="the net has 2 stages; its context acts in the third"):
        Contextual(Conv4(image=16, stages=2))


@pytest.mark.parametrize("bridge", [Reptile(0.1), Implicit(2.0)])
def test_a_bridge_refuses_what_it_would_not_train(bridge):
    with pytest.raises(RecipeError, match="multi_step_until is set beside a bridge"):
        MAML(MLP(), SquaredError(), bridge=bridge, order=1, multi_step_until=10)
    with pytest.raises(RecipeError, match="every_step of the start is set beside a bridge"):
        MAML(MLP(), SquaredError(), bridge=bridge, order=1, start=Attenuator(every_step=True))


def test_context_of_images(key):
    net = Contextual(Conv4(way=2, image=16, channels=1, filters=4), size=3)
    weights = jax.jit(net.init)(key)
    x = jax.random.normal(key, (4, 16, 16, 1))
    apply = jax.jit(net.apply)
    inside = {name: part for name, part in weights.items() if not name.startswith("context")}
    np.testing.assert_allclose(apply(weights, x), jax.jit(net.net.apply)(inside, x), rtol=1e-10)
    moved = {**weights, "context": {"value": jnp.ones(3)}}
    assert not np.allclose(apply(weights, x), apply(moved, x))
    assert sum(jax.tree.leaves(net.adapted(weights))) == 1 and sum(jax.tree.leaves(net.head(weights))) == 2
    with pytest.raises(RecipeError, match="ResNet12 has no place for a context"):
        build("cavia", ResNet12(), rate=1.0, attenuator={})
