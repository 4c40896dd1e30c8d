"""L2F's gates: which weights they scale, and derivatives where nothing moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import trees
from lethax.domains import Inputs, domain_of
from lethax.domains.supervised import blind
from lethax.errors import RecipeError
from lethax.methods import L2F, METHODS, Attenuator, build
from lethax.nets import MLP, Conv4
from lethax.nets.policy import GaussianPolicy
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.records import Episode, Split

pytestmark = pytest.mark.usefixtures("x64")

DEEP = MLP(inputs=6, hidden=(4,) * 11, outputs=3, spread=0.5)  # by name, layer11 stands before layer2 and layer9 last


def applied(learner, key):
    """(gates by the tensor that they scaled, gates as reported) of ones as weights."""
    weights = jax.eval_shape(learner.net.init, key)
    moving = trees.partition(weights, learner.mask(weights))[0]
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), moving)
    gated, info = jax.jit(lambda: learner.start.apply(learner.start.init(key, ones), ones, ones))()
    means = {name: float(leaf.mean()) for name, leaf in zip(trees.names(gated), jax.tree.leaves(gated), strict=True)}
    return means, dict(zip(learner.gate_names(), info["gates"].tolist(), strict=True))


@pytest.mark.parametrize("scope", ["network", "layer", "tensor", "filter", "parameter"])
def test_the_last_layer_can_keep_gate_1(scope, key):
    learner = build("l2f", DEEP, rate=0.1, attenuator={"exclude_head": True, "scope": scope}, steps=1)
    scaled, reported = applied(learner, key)
    assert {name for name, gate in scaled.items() if gate == 1} == {"layer11/weight", "layer11/bias"}
    whole = {name for name, gate in reported.items() if gate == 1}
    assert whole == {name for name in reported if name.startswith("layer11")}
    assert bool(whole) == (scope != "network")
    assert learner.exact is False and len(reported) == len(learner.gate_names())


def test_a_gated_log_std_is_not_the_last_layer(key):
    policy = GaussianPolicy(2, 2, (8, 8))
    scaled, reported = applied(build("l2f", policy, rate=0.1, attenuator={"exclude_head": True}, steps=1), key)
    assert {name for name, gate in scaled.items() if gate == 1} == {"layer2/weight", "layer2/bias"}
    assert 0 < reported["log_std"] < 1 and reported["layer2/bias"] == 1


def test_a_head_that_does_not_move_has_no_gate_to_exclude(key):
    scaled, reported = applied(build("boil+l2f", DEEP, rate=0.1, attenuator={"exclude_head": True}), key)
    assert len(reported) == 22 and not any(gate == 1 for gate in (*scaled.values(), *reported.values()))


def test_an_attenuator_without_gates_is_refused():
    with pytest.raises(RecipeError, match="anil.*moves only the last layer, and gate.exclude_head"):
        build("anil+l2f", DEEP, rate=0.1, attenuator={"exclude_head": True})


def test_norms_of_dead_filters_have_a_derivative(key):
    """A filter whose gradient is all zero made the norm's derivative, and with it the whole meta-gradient, NaN."""
    net = Conv4(way=2, image=8, channels=1, filters=4, stages=3)
    learner = L2F(net, attenuator=Attenuator("filter", embedding="norm", detached=False), steps=1)
    meta = jax.jit(learner.init)(key)
    meta["weights"]["head"]["weight"] = meta["weights"]["head"]["weight"].at[:2].set(0.0)
    x = jax.random.normal(key, (4, 8, 8, 1))
    examples = Split(x.at[:, :, :4].set(0.0), jnp.arange(4) % 2)
    gradient = jax.jit(jax.grad(lambda m: learner.loss(m, Episode(examples, examples))[0]))(meta)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient["start"]["layer1"]["bias"]).max()) > 0


def test_the_norm_of_a_column_is_exact_and_flat_at_zero():
    start = Attenuator("filter", embedding="norm")
    tree = {"a": {"weight": jnp.array([[3.0, 0.0], [4.0, 0.0]])}}
    np.testing.assert_array_equal(start.embed(tree), [5.0, 0.0])
    slope = jax.grad(lambda t: start.embed(t).sum())(tree)["a"]["weight"]
    np.testing.assert_allclose(slope, [[0.6, 0.0], [0.8, 0.0]], rtol=1e-12)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].full.endswith("+l2f")])
def test_the_gates_of_every_method_read_something(method):
    """With the usual values of classification. A mean over classes of softmax gradients would be 0, whatever the task."""
    net = {} if "leo" in method else {"net": "mlp", "filters": 5, "depth": 1}
    recipe = resolve(Recipe.of(data="vectors", method=method, way=3, **net))
    learner = domain_of(recipe).learner(recipe, Inputs("vectors", None, (6,)))
    random, labels = np.random.RandomState(0), np.repeat(np.arange(3), 2)
    support = Split(jnp.asarray(random.randn(6, 6)), labels)
    meta = jax.jit(learner.init)(jax.random.key(0))
    read = np.abs(jax.jit(learner.adapt)(meta, support)[1]["embedding"])
    parts = np.split(read, [64]) if "leo" in method else [read]  # of the code, and of the weights
    assert all(part.max() > 1e-4 for part in parts)


def test_the_share_of_live_units_is_told():
    like = {"a": {"weight": jnp.ones((2, 2))}, "b": {"weight": jnp.ones(2)}}
    start = Attenuator()
    params = start.init(jax.random.key(0), like)
    for bias, share in (([1.0, -1.0], 0.5), ([-1.0, -1.0], 0.0), ([1.0, 1.0], 1.0)):
        params["layer0"]["bias"] = jnp.array(bias)
        still = jax.tree.map(jnp.zeros_like, like)  # an embedding of zeros: a unit lives where its bias is above 0
        assert float(start.apply(params, still, like)[1]["live"]) == share
    assert "live" not in Attenuator(fixed=(1.0, 1.0)).apply({}, still, like)[1]
    deep = Attenuator(layers=3)
    params = deep.init(jax.random.key(0), like)
    params["layer0"]["bias"], params["layer1"]["bias"] = jnp.array([1.0, 1.0]), jnp.array([-9.0, -9.0])
    assert float(deep.apply(params, still, like)[1]["live"]) == 0.0  # the second hidden layer is dead


@pytest.mark.parametrize("fixed", [(0.5,), (0.5, 1.0, 1.0)])
def test_fixed_gates_are_as_many_as_the_weights_need(fixed):
    like = {"a": {"weight": jnp.ones((2, 2))}, "b": {"weight": jnp.ones(2)}}
    with pytest.raises(RecipeError, match=f"there are {len(fixed)} gates, but the weights need 2"):
        Attenuator(fixed=fixed).apply({}, like, like)


@pytest.mark.parametrize("scope", ["network", "layer", "tensor", "filter", "parameter"])
def test_the_scale_of_what_is_read_acts_in_every_scope(scope):
    like = {"a": {"weight": jnp.ones((2, 2))}, "b": {"weight": jnp.ones(2)}}
    gates = []
    for scale in (1.0, 10.0):
        start = Attenuator(scope=scope, embedding_scale=scale)
        gates.append(start.apply(start.init(jax.random.key(1), like), like, like)[1]["gates"])
    assert not np.allclose(*gates)


@pytest.mark.parametrize(
    "options, remark",
    [
        ({}, True), ({"gate_embedding": "mean_abs"}, False), ({"gate_scope": "filter"}, False),
        ({"gate_task_dependent": False}, False), ({"method": "anil+l2f"}, False), ({"inner_head": "prototypes"}, False),
        ({"method": "anil+l2f", "gate_embedding": "mean", "inner_head": "trained"}, True),
    ],
)  # fmt: skip
def test_gates_that_read_nothing_of_the_task_are_remarked(options, remark):
    recipe = Recipe.of(**{"data": "birds", "method": "l2f", "inner_head": "zero", **options})
    assert bool(blind(resolve(recipe))) == remark
