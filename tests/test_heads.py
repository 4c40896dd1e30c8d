"""Where the last layer starts in a task, for as many classes as the task has: closed forms, and what follows for L2F."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_masks import check, episode_of

from lethax.errors import RecipeError
from lethax.methods import MAML, build
from lethax.nets import MLP
from lethax.nets.heads import started
from lethax.records import Split
from lethax.rules import MetaSGD

pytestmark = pytest.mark.usefixtures("x64")

THREE, TWO, FIVE = (MLP(inputs=4, hidden=(6,), outputs=way, spread=0.5) for way in (3, 2, 5))
X = np.random.RandomState(0).randn(6, 4)
SUPPORT = Split(X, np.array([0, 0, 0, 1, 1, 0]))


@functools.cache
def weights():
    return jax.jit(THREE.init)(jax.random.key(0))


def start(head, net):
    return started(head, net, weights(), SUPPORT, {})


def test_trained_columns_serve_any_number_of_classes():
    head = weights()["layer1"]["weight"]
    assert start("trained", THREE)["layer1"] is weights()["layer1"]
    np.testing.assert_array_equal(start("trained", TWO)["layer1"]["weight"], head[:, :2])
    np.testing.assert_array_equal(start("trained", FIVE)["layer1"]["weight"], head[:, [0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(start("trained", FIVE)["layer0"]["weight"], weights()["layer0"]["weight"])


def test_zero_and_vector_treat_classes_alike():
    assert not np.any(start("zero", FIVE)["layer1"]["weight"])
    of_all = weights()["layer1"]["weight"].mean(axis=1)
    for column in start("vector", FIVE)["layer1"]["weight"].T:
        np.testing.assert_allclose(column, of_all, rtol=1e-12)


def test_the_first_outputs_of_prototypes_are_those_of_the_nearest_prototype():
    """W = 2 μ, b = −‖μ‖²: the logits differ from minus the squared distances by ‖x‖², which is equal for all classes."""
    x = jnp.asarray(X)
    made = started("prototypes", TWO, weights(), SUPPORT._replace(x=x), {})
    features = np.asarray(TWO.features(weights(), x))
    means = np.stack([features[[0, 1, 2, 5]].mean(0), features[[3, 4]].mean(0)])
    distances = np.sum(np.square(features[:, None] - means), axis=-1)
    expected = np.sum(np.square(features), axis=1)[:, None] - distances
    np.testing.assert_allclose(TWO.apply(made, x), expected, rtol=1e-10, atol=1e-12)
    by_hand = Split(jnp.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0, 1]))  # p = (1, 2) and (0, −1) at x = (0.5, 0.25)
    net = MLP(inputs=2, hidden=(), outputs=2, spread=0.5)
    head = started("prototypes", net, net.init(jax.random.key(0)), by_hand, {})
    np.testing.assert_allclose(net.apply(head, jnp.array([[0.5, 0.25]]))[0], [-3.0, -1.5], rtol=1e-12)


@pytest.mark.parametrize("head, reads", [("zero", False), ("vector", False), ("prototypes", True), ("trained", True)])
def test_what_l2f_reads_of_the_body(head, reads):
    """Where the outputs of all classes are equal, the loss does not depend on the features: the body's gradient is 0.

    Of the head L2F never reads anything: Σ_c (p_c − y_c) = 0, so that the mean of its gradient over the classes is 0.
    """
    learner = build("l2f", FIVE, rate=0.1, attenuator={}, steps=1, head=head)
    meta = jax.jit(build("l2f", THREE, rate=0.1, attenuator={}, steps=1).init)(jax.random.key(0))
    support = Split(X, np.array([0, 1, 2, 3, 4, 0]))
    _, info = jax.jit(learner.adapt)(meta, support)
    read = dict(zip(learner.gate_names(), np.abs(info["embedding"]), strict=True))
    assert (read["layer0/weight"] > 1e-8) == reads and read["layer1/weight"] < 1e-15 and read["layer1/bias"] < 1e-15


@pytest.mark.parametrize("head", ["vector", "prototypes"])
def test_the_meta_gradient_passes_through_the_start(head):
    """Finite differences of every tensor, and padding that changes no number."""
    learner = MAML(THREE, rule=build("maml", THREE, rate=0.1, attenuator={}).rule, steps=2, head=head)
    episode = episode_of(jax.random.key(3), (4,))
    meta = jax.jit(learner.init)(jax.random.key(1))
    loss = jax.jit(lambda m: learner.loss(m, episode)[0])
    grads = jax.jit(jax.grad(lambda m: learner.loss(m, episode)[0]))(meta)
    for layer in ("layer0", "layer1"):
        leaf = np.asarray(meta["weights"][layer]["weight"])
        step = np.zeros_like(leaf)
        step[1, 1] = 1e-6
        ends = [
            loss({**meta, "weights": {**meta["weights"], layer: {**meta["weights"][layer], "weight": leaf + s * step}}})
            for s in (1, -1)
        ]
        got = grads["weights"][layer]["weight"][1, 1]
        np.testing.assert_allclose(got, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)
    assert np.any(grads["weights"]["layer1"]["weight"]) == (head == "vector")  # prototypes take the place of the head
    if head == "prototypes":
        check(learner, episode)


def test_what_has_no_such_start_is_refused():
    metas = jax.jit(MAML(THREE, rule=MetaSGD(0.01)).init)(jax.random.key(0))
    with pytest.raises(RecipeError, match="learned values for the classes that it was trained on"):
        jax.eval_shape(MAML(TWO, rule=MetaSGD(0.01)).adapt, metas, SUPPORT)
    with pytest.raises(RecipeError, match="does not move the last layer"):
        build("boil", THREE, rate=0.1, attenuator={}, head="zero")
    with pytest.raises(RecipeError, match="'cavia' does not move the last layer"):
        build("cavia", THREE, rate=0.1, attenuator={}, head="vector")
    assert build("boil", THREE, rate=0.1, attenuator={}, head="prototypes").head == "prototypes"
    assert jnp.isfinite(
        jax.jit(MAML(TWO, head="zero", steps=1).adapt)({**metas, "rule": {}}, SUPPORT)[1]["support_losses"]
    ).all()
