"""What every method has to satisfy, without exceptions; exact, so in float64."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import trees
from lethax.methods import L2F, MAML, METHODS, Attenuator, build
from lethax.nets import MLP, Conv4
from lethax.objectives import CrossEntropy, SquaredError
from lethax.records import Episode, Split

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("x64")]

WAY = 3


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def smooth_episode(key, way=WAY, shot=2, query=2):
    """Points of `way` clusters as 1 px images of no kinks: an MLP is enough."""
    a, b, c = jax.random.split(key, 3)
    centres = jax.random.normal(a, (way, 1, 6))
    labels = lambda n: jnp.repeat(jnp.arange(way), n)  # noqa: E731
    make = lambda k, n: (centres + 0.3 * jax.random.normal(k, (way, n, 6))).reshape(-1, 6)  # noqa: E731
    return Episode(Split(make(b, shot), labels(shot)), Split(make(c, query), labels(query)))


@functools.cache
def learner_of(name, **options):
    net = MLP(inputs=6, hidden=(7, 5), outputs=WAY, spread=0.5)
    # Gates are differentiated through their embedding: without that, which is the default, no gradient is exact.
    return build(name, net, rate=0.1, attenuator={"detached": False}, objective=CrossEntropy(), steps=2, **options)


class Seen(NamedTuple):
    """What a method makes of an episode."""

    loss: jax.Array
    support_losses: jax.Array
    path: jax.Array  # of three steps, one more than adaptation has
    predicted: jax.Array  # after adaptation


start_of = functools.cache(lambda name: jax.jit(learner_of(name).init)(jax.random.key(0)))


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


# METHODS has one learner under two names.


@pytest.fixture(params=[name for name in METHODS if name != "maml+l2f"], scope="module")
def method(request):
    return request.param


def test_shapes_and_paths(method, key):
    """Two steps along the path stands what adaptation gives."""
    seen = program_of(method)(start_of(method), smooth_episode(key))
    assert seen.loss.shape == () and seen.support_losses.shape == (2,) and seen.path.shape == (4, WAY * 2, WAY)
    np.testing.assert_allclose(seen.path[2], seen.predicted, rtol=1e-10, atol=1e-12)
    if method == "maml":
        unmoved = learner_of(method).net.apply(start_of(method)["weights"], smooth_episode(key).query.x)
        np.testing.assert_allclose(seen.path[0], unmoved, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["l2f", "mumomaml", "cavia", "imaml", "leo+l2f"])
def test_no_steps_leave_the_start(name, key):
    """An adaptation of no steps, and a path of none, stand where a longer path begins."""
    learner, meta, episode = dataclasses.replace(learner_of(name), steps=0), start_of(name), smooth_episode(key)

    @jax.jit
    def program(meta, episode):
        fast, _ = learner.adapt(meta, episode.support)
        return learner.predict(fast, episode.query.x), learner.path(meta, episode, 0)[0]

    unmoved, start = program(meta, episode)
    np.testing.assert_allclose(start[0], unmoved, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(start[0], program_of(name)(meta, episode).path[0], rtol=1e-10, atol=1e-12)


def test_jit_changes_nothing(key):
    meta, episode = start_of("l2f"), smooth_episode(key)
    loss, _ = learner_of("l2f").loss(meta, episode)
    np.testing.assert_allclose(loss, program_of("l2f")(meta, episode).loss, rtol=1e-10)


@functools.cache
def batch_of(name):
    """Eight tasks, and (sum of losses, losses), gradients of the meta-parameters: compiled once for two tests."""
    learner, episodes = learner_of(name), jax.vmap(smooth_episode)(jax.random.split(jax.random.key(0), 8))

    def together(meta):
        losses = jax.vmap(lambda e: learner.loss(meta, e)[0])(episodes)
        return jnp.sum(losses), losses

    return episodes, jax.jit(jax.value_and_grad(together, has_aux=True))


def test_vmap_equals_loop_and_no_leaf_is_dead(method):
    """Over a few tasks every meta-parameter has a gradient, relu units that are off for all of them aside."""
    meta, (episodes, differentiate) = start_of(method), batch_of(method)
    (_, losses), grads = differentiate(meta)
    alone = [program_of(method)(meta, jax.tree.map(lambda leaf, i=i: leaf[i], episodes)).loss for i in range(8)]
    np.testing.assert_allclose(losses, np.stack(alone), rtol=1e-10)
    for name, leaf in zip(trees.names(grads), jax.tree.leaves(grads), strict=True):
        assert jnp.any(leaf != 0), name


def test_finite_differences(method):
    """On a coordinate of every tensor: `exact` says the truth."""
    learner, (_, differentiate) = learner_of(method), batch_of(method)
    # With biases of 0 a unit all of whose inputs are off would stand on the kink of its relu.
    meta = jax.tree.map(lambda leaf: leaf + 0.02, start_of(method))
    grads = differentiate(meta)[1]
    leaves, structure = jax.tree.flatten(meta)
    random = np.random.RandomState(0)
    wrong = []
    for number, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        at = tuple(random.randint(extent) for extent in leaf.shape)
        moved = [[x.at[at].add(h) if i == number else x for i, x in enumerate(leaves)] for h in (1e-6, -1e-6)]
        ends = [differentiate(structure.unflatten(part))[0][0] for part in moved]
        if not np.isclose(grad[at], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7):
            wrong.append(trees.names(meta)[number])
    assert not wrong if learner.exact else wrong, (learner.exact, wrong)


def test_first_order():
    """The first-order meta-gradient is the query gradient at the adapted weights."""
    key = jax.random.key(1)
    learner, episode = learner_of("fomaml"), smooth_episode(key)
    meta = jax.jit(learner.init)(key)
    grads = jax.jit(jax.grad(lambda m: learner.loss(m, episode)[0]))(meta)["weights"]
    fast, _ = jax.jit(learner.adapt)(meta, episode.support)
    query = lambda w: learner.objective.loss(learner.net.apply(w, episode.query.x), episode.query.y)  # noqa: E731
    expected = jax.jit(jax.grad(query))(fast.weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), grads, expected)


def test_support_order_and_class_names(method, key):
    meta, episode, program = start_of(method), smooth_episode(key), program_of(method)
    loss = program(meta, episode).loss
    turned = episode._replace(support=jax.tree.map(lambda leaf: leaf[::-1], episode.support))
    np.testing.assert_allclose(loss, program(meta, turned).loss, rtol=1e-10)
    new = jnp.array([2, 0, 1])  # class c is called new[c]; what the head has for it moves along
    old = jnp.argsort(new)
    renamed = jax.tree.map(lambda y: new[y] if y.ndim == 1 else y, episode)
    of_class = lambda name, leaf: "layer2/" in name and leaf.shape[-1:] == (WAY,)  # noqa: E731
    moved = trees.map_named(lambda name, leaf: leaf[..., old] if of_class(name, leaf) else leaf, meta)
    np.testing.assert_allclose(loss, program({**moved, "start": meta["start"]}, renamed).loss, rtol=1e-10)


@pytest.mark.parametrize("base", ["maml", "boil"])
def test_gates_of_one_change_nothing(base, key):
    """γ ≡ 1 is the method without L2F, bit for bit, in the loss and in the meta-gradient."""
    plain, episode = learner_of(base), smooth_episode(key)
    meta = jax.jit(plain.init)(key)
    with_gates = learner_of(f"{base}+l2f")
    params = jax.jit(with_gates.init)(key)["start"]
    params = jax.tree.map(jnp.zeros_like, params)
    params["layer1"]["bias"] = params["layer1"]["bias"] + 40.0  # the sigmoid of 40 is exactly 1
    # Operation by operation: two programs that XLA fuses differently may round differently.
    value, grads = jax.value_and_grad(lambda m: plain.loss(m, episode)[0])(meta)
    same, gated = jax.value_and_grad(lambda m: with_gates.loss({**m, "start": params}, episode)[0])(meta)
    assert value == same
    jax.tree.map(np.testing.assert_array_equal, grads["weights"], gated["weights"])


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
        {"embedding": "mean_abs"}, {"embedding": "norm"}, {"layers": 3}, {"ungated": ("layer2",)}, {"every_step": True},
        {"fixed": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)},
    ],
)  # fmt: skip
def test_attenuator_options(options, key):
    net = MLP(inputs=6, hidden=(7, 5), outputs=WAY, spread=0.5)
    steps = 2 if options.get("every_step") else 1
    learner, episode = L2F(net, attenuator=Attenuator(**options), steps=steps), smooth_episode(key)
    meta = jax.jit(learner.init)(key)
    (loss, info), grads = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(meta, episode)
    assert jnp.isfinite(loss) and all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    if options.get("every_step"):
        assert learner.path(meta, episode, 2)[0].shape[0] == 3
    else:
        assert info["gates"].shape == (6,)
    if "fixed" in options:
        np.testing.assert_allclose(loss, MAML(net, steps=1).loss(meta, episode)[0], rtol=1e-10)


def test_fresh_attenuator_halves(key):
    """Untrained gates at a zero embedding are around a half: the "struggle at the start" of the paper."""
    like = {f"layer{i}": {"weight": jnp.ones((2, 2))} for i in range(6)}
    start = Attenuator()
    fresh = jax.jit(lambda k: start.apply(start.init(k, like), jax.tree.map(jnp.zeros_like, like), like)[1]["gates"])
    gates = [fresh(k)
             for k in jax.random.split(key, 40)]  # fmt: skip
    assert 0.45 < np.mean(gates) < 0.55 and 0.3 < np.min(gates) and np.max(gates) < 0.7
    assert trees.size(start.init(key, like)) == 84


def test_squared_error_learner(key):
    learner = build("l2f", MLP(), rate=0.01, attenuator={}, objective=SquaredError(), steps=1)
    episode = Episode(Split(jnp.ones((5, 1)), jnp.ones((5, 1))), Split(jnp.ones((3, 1)), jnp.ones((3, 1))))
    assert learner.loss(jax.jit(learner.init)(key), episode)[0].shape == ()
