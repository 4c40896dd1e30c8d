"""What every method has to satisfy, without exceptions; exact, so in float64."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import trees
from lethax.errors import DataError
from lethax.methods import L2F, MAML, METHODS, Attenuator, build
from lethax.nets import MLP, Conv4
from lethax.objectives import CrossEntropy, SquaredError
from lethax.records import Episode, Split

pytestmark = pytest.mark.usefixtures("x64")

WAY = 3
NET = MLP(inputs=6, hidden=(7, 5), outputs=WAY, spread=0.5)


def smooth_episode(seed=0):
    """Two points and two queries of every cluster, without kinks: an MLP is enough. In NumPy, which compiles nothing."""
    random, labels = np.random.RandomState(seed), np.repeat(np.arange(WAY), 2)
    centres = random.randn(WAY, 1, 6)
    points = lambda: (centres + 0.3 * random.randn(WAY, 2, 6)).reshape(-1, 6)  # noqa: E731
    return Episode(Split(points(), labels), Split(points(), labels))


@functools.cache
def learner_of(name, **options):
    # Gates are differentiated through their embedding: without that, which is the default, no gradient is exact.
    return build(name, NET, rate=0.1, attenuator={"detached": False}, objective=CrossEntropy(), steps=2, **options)


class Seen(NamedTuple):
    """What a method makes of an episode."""

    loss: jax.Array
    support_losses: jax.Array
    path: jax.Array  # of three steps, one more than adaptation has
    predicted: jax.Array  # after adaptation


start_of = functools.cache(lambda name: jax.device_get(jax.jit(learner_of(name).init)(jax.random.key(0))))


@functools.cache
def program_of(name):
    """One program a method for several tests: compilation is what they take."""
    learner = learner_of(name)

    @jax.jit
    def program(meta, episode):
        loss, info = learner.loss(meta, episode)
        predicted = learner.predict(learner.adapt(meta, episode.support)[0], episode.query.x)
        return Seen(loss, info["support_losses"], learner.path(meta, episode, 3)[0], predicted)

    return program


# A gate, a rule, a latent space and a bridge: these are tested under another instruction set too.
NUMERIC = ("l2f", "alfa", "leo+l2f", "imaml")
MARKED = [pytest.param(name, marks=[pytest.mark.numeric] if name in NUMERIC else []) for name in METHODS]


@pytest.fixture(
    params=[case for case in MARKED if case.values != ("maml+l2f",)], scope="module"
)  # "l2f" by another name
def method(request):
    return request.param


def test_shapes_and_paths(method):
    """Two steps along the path stands what adaptation gives."""
    seen = program_of(method)(start_of(method), smooth_episode())
    assert seen.loss.shape == () and seen.support_losses.shape == (2,) and seen.path.shape == (4, WAY * 2, WAY)
    np.testing.assert_allclose(seen.path[2], seen.predicted, rtol=1e-10, atol=1e-12)
    if method == "maml":
        unmoved = jax.jit(learner_of(method).net.apply)(start_of(method)["weights"], smooth_episode().query.x)
        np.testing.assert_allclose(seen.path[0], unmoved, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"attenuator": {"task_dependent": False}}])
def test_no_meta_parameter_has_a_weak_type(method, options):
    """The type of a Python number, which an outer step makes a real one: the second call would compile the program again."""
    learner = build(method, NET, **{"rate": 0.1, "attenuator": {}, **options})
    meta = jax.eval_shape(learner.init, jax.random.key(0))
    weak = [name for name, leaf in zip(trees.names(meta), jax.tree.leaves(meta), strict=True) if leaf.weak_type]
    assert not weak


@pytest.mark.parametrize("name", ["l2f", "mumomaml", "cavia", "imaml", "leo+l2f"])
def test_no_steps_leave_the_start(name):
    """An adaptation of no steps, and a path of none, stand where a longer path begins."""
    learner, meta, episode = dataclasses.replace(learner_of(name), steps=0), start_of(name), smooth_episode()

    @jax.jit
    def program(meta, episode):
        fast, _ = learner.adapt(meta, episode.support)
        return learner.predict(fast, episode.query.x), learner.path(meta, episode, 0)[0]

    unmoved, start = program(meta, episode)
    np.testing.assert_allclose(start[0], unmoved, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(start[0], program_of(name)(meta, episode).path[0], rtol=1e-10, atol=1e-12)


@functools.cache
def batch_of(name):
    """Eight tasks, and (sum of losses, losses), gradients of the meta-parameters: compiled once for two tests."""
    learner, episodes = learner_of(name), jax.tree.map(lambda *tasks: np.stack(tasks), *map(smooth_episode, range(8)))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def together(meta, episodes):
        losses = jax.vmap(lambda e: learner.loss(meta, e)[0])(episodes)
        return jnp.sum(losses), losses

    return lambda meta: together(meta, episodes)


def test_vmap_equals_loop_and_no_leaf_is_dead(method):
    """Over a few tasks every meta-parameter has a gradient, relu units that are off for all of them aside."""
    meta, differentiate = start_of(method), batch_of(method)
    (_, losses), grads = differentiate(meta)
    alone = [program_of(method)(meta, smooth_episode(i)).loss for i in range(8)]
    np.testing.assert_allclose(losses, np.stack(alone), rtol=1e-10)
    for name, leaf in zip(trees.names(grads), jax.tree.leaves(grads), strict=True):
        assert np.any(np.asarray(leaf) != 0), name


def test_finite_differences(method):
    """On a coordinate of every tensor: `exact` says the truth."""
    learner, differentiate = learner_of(method), batch_of(method)
    # With biases of 0 a unit all of whose inputs are off would stand on the kink of its relu.
    meta = jax.tree.map(lambda leaf: leaf + 0.02, start_of(method))
    grads = differentiate(meta)[1]
    leaves, structure = jax.tree.flatten(meta)
    random = np.random.RandomState(0)
    wrong = []
    for number, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        at = tuple(random.randint(extent) for extent in leaf.shape)
        step = np.zeros(leaf.shape)
        step[at] = 1e-6
        moved = [[x + sign * step if i == number else x for i, x in enumerate(leaves)] for sign in (1, -1)]
        ends = [differentiate(structure.unflatten(part))[0][0] for part in moved]
        if not np.isclose(np.asarray(grad)[at], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7):
            wrong.append(trees.names(meta)[number])
    assert not wrong if learner.exact else wrong, (learner.exact, wrong)


def test_first_order():
    """The first-order meta-gradient is the query gradient at the adapted weights."""
    learner, episode, meta = learner_of("fomaml"), jax.device_put(smooth_episode()), start_of("fomaml")
    grads = jax.jit(jax.grad(lambda m: learner.loss(m, episode)[0]))(meta)["weights"]
    fast, _ = jax.jit(learner.adapt)(meta, episode.support)
    query = lambda w: learner.objective.loss(learner.net.apply(w, episode.query.x), episode.query.y)  # noqa: E731
    expected = jax.jit(jax.grad(query))(fast.weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), grads, expected)


def test_support_order_and_class_names(method):
    meta, episode, program = start_of(method), smooth_episode(), program_of(method)
    loss = program(meta, episode).loss
    turned = episode._replace(support=jax.tree.map(lambda leaf: leaf[::-1], episode.support))
    np.testing.assert_allclose(loss, program(meta, turned).loss, rtol=1e-10)
    new = np.array([2, 0, 1])  # class c is called new[c]; what the head has for it moves along
    old = np.argsort(new)
    renamed = jax.tree.map(lambda y: new[y] if y.ndim == 1 else y, episode)
    of_class = lambda name, leaf: "layer2/" in name and leaf.shape[-1:] == (WAY,)  # noqa: E731
    moved = trees.map_named(lambda name, leaf: leaf[..., old] if of_class(name, leaf) else leaf, meta)
    np.testing.assert_allclose(loss, program({**moved, "start": meta["start"]}, renamed).loss, rtol=1e-10)


@pytest.mark.parametrize("base", ["maml", "boil"])
def test_gates_of_one_change_nothing(base):
    """γ ≡ 1 is the method without L2F, bit for bit, in the loss and in the meta-gradient. A program has the same loss."""
    plain, episode, meta = learner_of(base), jax.device_put(smooth_episode()), jax.device_put(start_of(base))
    with_gates = learner_of(f"{base}+l2f")
    params = jax.tree.map(np.zeros_like, start_of(f"{base}+l2f")["start"])
    params["layer1"]["bias"] = params["layer1"]["bias"] + 40.0  # the sigmoid of 40 is exactly 1
    # Operation by operation: two programs that XLA fuses differently may round differently.
    value, grads = jax.value_and_grad(lambda m: plain.loss(m, episode)[0])(meta)
    same, gated = jax.value_and_grad(lambda m: with_gates.loss({**m, "start": params}, episode)[0])(meta)
    assert value == same
    jax.tree.map(np.testing.assert_array_equal, grads["weights"], gated["weights"])
    together = program_of("l2f" if base == "maml" else f"{base}+l2f")({**meta, "start": params}, episode)
    np.testing.assert_allclose(together.loss, value, rtol=1e-10)


@pytest.mark.parametrize("scope,count", [("network", 1), ("layer", 3), ("tensor", 4), ("filter", 2 * 4 + 5 + 5)])
def test_gate_scopes(scope, count, key):
    net = Conv4(image=8, channels=1, filters=4, stages=2)
    learner = L2F(net, attenuator=Attenuator(scope=scope), steps=1)
    meta = jax.jit(learner.init)(key)
    x = jax.random.normal(key, (5, 8, 8, 1))
    _, info = jax.jit(learner.adapt)(meta, Split(x, jnp.arange(5)))
    assert info["gates"].shape == (count,)
    assert bool(jnp.all((info["gates"] > 0) & (info["gates"] < 1)))
    assert len(learner.start.groups(trees.partition(meta["weights"], net.adapted(meta["weights"]))[0])) == count


@pytest.mark.parametrize(
    "options",
    [
        {"scope": "parameter"}, {"activation": "identity"}, {"activation": "twice_sigmoid"}, {"task_dependent": False},
        {"embedding": "mean_abs"}, {"embedding": "norm"}, {"layers": 3}, {"ungated": ("layer1",)}, {"every_step": True},
        {"fixed": (1.0, 1.0, 1.0, 1.0)},
    ],
)  # fmt: skip
def test_attenuator_options(options, key):
    net = MLP(inputs=6, hidden=(5,), outputs=WAY, spread=0.5)
    steps = 2 if options.get("every_step") else 1
    learner, episode = L2F(net, attenuator=Attenuator(**options), steps=steps), jax.device_put(smooth_episode())
    meta = jax.jit(learner.init)(key)
    (loss, info), grads = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(meta, episode)
    assert jnp.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    if options.get("every_step"):
        assert jax.eval_shape(lambda: learner.path(meta, episode, 2)[0]).shape[0] == 3
        once = L2F(net, attenuator=Attenuator(), steps=2)  # of the first step, whose gates are told, the same
        np.testing.assert_array_equal(info["gates"], jax.jit(once.loss)(meta, episode)[1]["gates"])
    assert info["gates"].shape == (4,)
    if "fixed" in options:
        np.testing.assert_allclose(loss, jax.jit(MAML(net, steps=1).loss)(meta, episode)[0], rtol=1e-10)


def test_fresh_attenuator_halves(key):
    """Untrained gates at a zero embedding are around a half: the "struggle at the start" of the paper."""
    like = {f"layer{i}": {"weight": jnp.ones((2, 2))} for i in range(6)}
    start = Attenuator()
    fresh = jax.jit(lambda k: start.apply(start.init(k, like), jax.tree.map(jnp.zeros_like, like), like)[1]["gates"])
    gates = [fresh(k) for k in jax.random.split(key, 40)]
    assert 0.45 < np.mean(gates) < 0.55 and 0.3 < np.min(gates) and np.max(gates) < 0.7
    assert trees.size(start.init(key, like)) == 84


def test_squared_error_learner(key):
    learner = build("l2f", MLP(), rate=0.01, attenuator={}, objective=SquaredError(), steps=1)
    episode = Episode(Split(jnp.ones((5, 1)), jnp.ones((5, 1))), Split(jnp.ones((3, 1)), jnp.ones((3, 1))))
    assert jnp.isfinite(jax.jit(lambda: learner.loss(learner.init(key), episode)[0])())
    with pytest.raises(DataError, match=r"outputs have the shape \[5, 1\], but targets \[5\]: give targets \[n, out\]"):
        SquaredError().loss(jnp.ones((5, 1)), jnp.ones(5))
