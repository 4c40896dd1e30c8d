"""Numeric cases with closed forms, computed independently by complex-step differentiation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import inner
from lethax.methods import L2F, MAML, Attenuator, MetaSGD
from lethax.objectives import SquaredError
from lethax.records import Episode, Split
from lethax.rules import SGD, SignSGD
from lethax.trees import map_named

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("x64")]


def scalar_descent(support_loss, query_loss, theta, rate, steps, order, loop):
    def outer(theta):
        def update(t, _):
            loss, g = inner.gradient(lambda w, c, d: support_loss(w), t, {}, (), order=order)
            return t - rate * g, loss

        last = inner.descend(update, theta, steps, loop=loop).last
        return query_loss(last), last

    (loss, last), grad = jax.jit(jax.value_and_grad(outer, has_aux=True))(jnp.asarray(theta))
    return float(last), float(loss), float(grad)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize(
    "steps,last,loss,second,first",
    [
        (1, 0.86, 2.7744, 3.264, 4.08),
        (2, 0.988, 3.321216, 2.85696, 4.464),
        (5, 1.237856, 4.530215215104, 1.70838196224, 5.213568),
    ],
)
def test_quadratic(steps, last, loss, second, first, loop):
    for order, grad in ((2, second), (1, first)):
        got = scalar_descent(lambda t: (t - 1.5) ** 2, lambda t: 1.5 * (t + 0.5) ** 2, 0.7, 0.1, steps, order, loop)
        np.testing.assert_allclose(got, (last, loss, grad), atol=1e-9)


def test_sign_step():
    """One step on the quadratic: w − α sign(g), whose exact meta-gradient is its first-order one."""
    square = Formula(lambda w, x: x * w["t"])
    episode = points((1,), (1.5,), (1.5**0.5,), (-0.5 * 1.5**0.5,))
    meta = {"weights": {"t": jnp.asarray(0.7)}, "rule": {}, "start": {}}
    fast, _, grads = differentiate(MAML(square, SquaredError(), SignSGD(0.1), steps=1), meta, episode)
    np.testing.assert_allclose((fast["t"], grads["weights"]["t"]), (0.8, 3 * (0.8 + 0.5)), atol=1e-9)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_changing_hessian(loop):
    cases = {1: (1.55635, 0.09841266125, -0.277946725, -0.44365),
             2: (1.461239480966, 0.145131448435, -0.235148157104, -0.538760519034)}  # fmt: skip
    for steps, (last, loss, second, first) in cases.items():
        for order, grad in ((2, second), (1, first)):
            got = scalar_descent(
                lambda t: t**4 / 4 - 0.6 * t**2, lambda t: (t - 2) ** 2 / 2, 1.7, 0.05, steps, order, loop
            )
            np.testing.assert_allclose(got, (last, loss, grad), atol=1e-9)


class Formula:
    """A net from a function of (weights, x), everything adapted."""

    def __init__(self, function, head=()):
        self.function, self.last = function, head

    def init(self, key):
        return {}

    def modulated(self):
        return {}

    def apply(self, weights, x, *, step=0, reference=0, mask=None):
        return self.function(weights, x)

    def adapted(self, weights):
        return jax.tree.map(lambda _: True, weights)

    def head(self, weights):
        return map_named(lambda name, _: name in self.last, weights)


TANH = Formula(lambda w, x: w["w2"] * jnp.tanh(w["w1"] * x), head=("w2",))


def points(sx, sy, qx, qy):
    column = lambda v: jnp.asarray(v, jnp.float64)[:, None]  # noqa: E731
    return Episode(Split(column(sx), column(sy)), Split(column(qx), column(qy)))


def h4():
    return points((0.5, -1), (0.6, -0.4), (1, -0.3), (0.8, -0.5)), {"w1": jnp.asarray(0.9), "w2": jnp.asarray(1.3)}


def differentiate(learner, meta, episode):
    (loss, _), grads = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(meta, episode)
    return jax.jit(learner.adapt)(meta, episode.support)[0].weights, loss, grads


@pytest.mark.parametrize(
    "moved,fast,loss,grad",
    [
        ("all", (0.869129564073, 1.264125271890), 0.019486073256, (-0.008863145321, 0.014686605217)),
        ("head", (0.9, 1.264125271890), 0.019466073416, (0.003194683857, 0.029420150858)),
        ("body", (0.869129564073, 1.3), 0.020383038366, (0.011834171375, 0.033873363627)),
    ],
)
def test_tanh_net(moved, fast, loss, grad):
    episode, weights = h4()
    learner = MAML(TANH, SquaredError(), SGD(0.1), steps=1, moved=moved)
    got, value, grads = differentiate(learner, {"weights": weights, "rule": {}, "start": {}}, episode)
    np.testing.assert_allclose((got["w1"], got["w2"]), fast, atol=1e-9)
    np.testing.assert_allclose(value, loss, atol=1e-9)
    np.testing.assert_allclose((grads["weights"]["w1"], grads["weights"]["w2"]), grad, atol=1e-9)


LINE = Formula(lambda w, x: w["w"] * x + w["b"])


def h3():
    return points((-1, 0.5, 2), (0.3, -0.2, 1.1), (1, -2), (0.4, 0.9))


@pytest.mark.parametrize(
    "steps,fast,loss,second,first",
    [
        (1, (0.26, -0.02), 1.0496, (1.928, -1.552), (2.72, -1.6)),
        (5, (0.310275375, 0.14056925), 0.953467058117, (0.618845339492, -0.903907560545),
         (2.810807625, -1.329136875)),
    ],
)  # fmt: skip
def test_linear_regression(steps, fast, loss, second, first):
    meta = {"weights": {"w": jnp.asarray(0.2), "b": jnp.asarray(-0.1)}, "rule": {}, "start": {}}
    learner = MAML(LINE, SquaredError())
    support = inner.gradient(
        learner.support_loss, meta["weights"], {"weights": {"w": None, "b": None}}, (h3().support, 0)
    )
    np.testing.assert_allclose((support[0], support[1]["w"], support[1]["b"]), (0.346666666667, -0.6, -0.8), atol=1e-9)
    for order, grad in ((2, second), (1, first)):
        learner = MAML(LINE, SquaredError(), SGD(0.1), steps=steps, order=order)
        got, value, grads = differentiate(learner, meta, h3())
        np.testing.assert_allclose((got["w"], got["b"]), fast, atol=1e-9)
        np.testing.assert_allclose(value, loss, atol=1e-9)
        np.testing.assert_allclose((grads["weights"]["w"], grads["weights"]["b"]), grad, atol=1e-9)


def test_meta_sgd():
    episode = h3()
    meta = {
        "weights": {"w": jnp.asarray(0.2), "b": jnp.asarray(-0.1)},
        "rule": {"w": jnp.asarray(0.07), "b": jnp.asarray(-0.02)},
        "start": {},
    }
    fast, loss, grads = differentiate(MAML(LINE, SquaredError(), MetaSGD(), steps=1), meta, episode)
    np.testing.assert_allclose((fast["w"], fast["b"]), (0.242, -0.116), atol=1e-9)
    np.testing.assert_allclose(loss, 1.162538, atol=1e-9)
    np.testing.assert_allclose((grads["weights"]["w"], grads["weights"]["b"]), (2.02265, -2.03578), atol=1e-9)
    np.testing.assert_allclose((grads["rule"]["w"], grads["rule"]["b"]), (1.6356, -1.4192), atol=1e-9)


L2F_CASES = {
    1: dict(fast=(0.620933161286, 0.876735471464), loss=0.107309319443, detached=(-0.174111132524, -0.146000427627),
            through=(-0.232138348963, -0.321982669799), w1=(-0.027090578331, -0.031482131780), b1=-0.087755736248,
            w2=(-0.045492333929, -0.056856669892), b2=(-0.050151645534, -0.062679913481)),
    2: dict(fast=(0.629230092893, 0.882229314808), loss=0.103725335513, detached=(-0.156339925352, -0.132750415083),
            through=(-0.208913370301, -0.292192712828), w1=(-0.024544431319, -0.028523238293), b1=-0.079507887017,
            w2=(-0.040849014003, -0.051696742613), b2=(-0.045032758132, -0.056991507951)),
}  # fmt: skip


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("detached", [True, False])
def test_l2f(steps, detached, loop):
    episode, weights = h4()
    start = {
        "layer0": {"weight": jnp.array([[0.5, -1], [2, 0.25]]), "bias": jnp.array([0.1, 0.2])},
        "layer1": {"weight": jnp.array([[1.5, 0.5], [-0.5, 1]]), "bias": jnp.array([0.3, -0.2])},
    }
    learner = L2F(
        TANH, attenuator=Attenuator(detached=detached), objective=SquaredError(), rule=SGD(0.1), steps=steps, loop=loop
    )
    meta = {"weights": weights, "rule": {}, "start": start}
    fast, loss, grads = differentiate(learner, meta, episode)
    info = jax.jit(learner.adapt)(meta, episode.support)[1]
    case = L2F_CASES[steps]
    close = lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-9)  # noqa: E731
    close(info["embedding"], (0.308704359275, 0.358747281098))
    close(info["gates"], (0.679951248461, 0.669759062725))
    first = jax.jit(learner.path, static_argnums=2)(meta, episode, 0)[0][0]
    close(first, TANH.apply({"w1": 0.611956123615, "w2": 0.870686781542}, episode.query.x))
    close((fast["w1"], fast["w2"]), case["fast"])
    close(loss, case["loss"])
    close((grads["weights"]["w1"], grads["weights"]["w2"]), case["detached" if detached else "through"])
    close(grads["start"]["layer0"]["weight"], ((0, 0), case["w1"]))
    close(grads["start"]["layer0"]["bias"], (0, case["b1"]))
    close(grads["start"]["layer1"]["weight"], np.array(((0, 0), case["w2"])).T)
    close(grads["start"]["layer1"]["bias"], case["b2"])
