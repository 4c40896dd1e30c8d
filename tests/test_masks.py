"""A task in arrays larger than it is: what pads it changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax.baselines import NearestPrototype
from lethax.errors import DataError
from lethax.methods import METHODS, build
from lethax.nets import MLP, Conv4
from lethax.objectives import CrossEntropy, SquaredError
from lethax.records import Episode, Split

WAY = 3
NETS = {"mlp": MLP(inputs=4, hidden=(5,), outputs=WAY, spread=0.5), "conv4": Conv4(WAY, 16, 1, 3)}
SHAPES = {"mlp": (4,), "conv4": (16, 16, 1)}


def padded(split):
    """The same examples among others that do not count."""
    n = split.x.shape[0]
    places = np.array([0, 2, 3, 6, 7, 8, 10, 11][:n])
    x = jnp.full((n + 5, *split.x.shape[1:]), 7.0).at[places].set(split.x)
    y = jnp.ones((n + 5, *split.y.shape[1:]), split.y.dtype).at[places].set(split.y)
    return Split(x, y, jnp.zeros(n + 5).at[places].set(1.0)), places


def episode_of(key, entry):
    a, b = jax.random.split(key)
    return Episode(Split(jax.random.normal(a, (6, *entry)), jnp.arange(6) % WAY),
                   Split(jax.random.normal(b, (4, *entry)), jnp.arange(4) % WAY))  # fmt: skip


def check(learner, episode):
    support, _ = padded(episode.support)
    query, places = padded(episode.query)
    larger = Episode(support, query)
    meta = jax.jit(learner.init)(jax.random.key(0))
    value = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))
    (loss, info), grads = value(meta, episode)
    (same, seen), others = value(meta, larger)
    np.testing.assert_allclose(same, loss, rtol=1e-10)
    np.testing.assert_allclose(seen["score"], info["score"], rtol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10), others, grads)
    outputs, _ = jax.jit(learner.path, static_argnums=2)(meta, larger, 2)
    expected, _ = jax.jit(learner.path, static_argnums=2)(meta, episode, 2)
    np.testing.assert_allclose(outputs[:, places], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", [m for m in METHODS if not m.startswith("leo") and m != "maml+l2f"])
def test_padding_changes_no_number(method, key, x64):
    learner = build(method, NETS["mlp"], rate=0.1, attenuator={}, objective=CrossEntropy(), steps=2)
    check(learner, episode_of(key, SHAPES["mlp"]))


@pytest.mark.parametrize("norm", ["batch", "support", "support+1"])
def test_moments_of_norms_pass_over_padding(norm, key, x64):
    learner = build(
        "mumomaml+l2f", NETS["conv4"], rate=0.1, attenuator={}, objective=CrossEntropy(), steps=1, norm=norm
    )
    check(learner, episode_of(key, SHAPES["conv4"]))


def test_regression(key, x64):
    net = MLP(inputs=2, hidden=(5,), outputs=1, spread=0.5)
    learner = build("mumomaml", net, rate=0.1, attenuator={}, objective=SquaredError(), steps=2)
    a, b = episode_of(key, (2,))
    make = lambda s: Split(s.x, s.x[:, :1] ** 2)  # noqa: E731
    check(learner, Episode(make(a), make(b)))


def test_prototypes_of_unequal_classes(key):
    support = Split(jnp.array([[0.0], [2.0], [9.0], [5.0]]), jnp.array([0, 0, 0, 1]), jnp.array([1.0, 1.0, 0.0, 1.0]))
    logits, _ = NearestPrototype(3).path({}, Episode(support, Split(jnp.array([[2.0]]), jnp.array([0]))), 0)
    np.testing.assert_array_equal(logits[0, 0], [-1.0, -9.0, -np.inf])


def test_leo_refuses_a_mask(key):
    learner = build("leo", MLP(inputs=4, hidden=(), outputs=WAY), rate=0.1, attenuator={}, steps=1)
    support, _ = padded(episode_of(key, (4,)).support)
    with pytest.raises(DataError, match="as many of each class"):
        learner.adapt(jax.jit(learner.init)(key), support)
