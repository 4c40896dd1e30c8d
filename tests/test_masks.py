"""A task in arrays larger than it is: what pads it changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax.baselines import NearestPrototype
from lethax.errors import DataError
from lethax.methods import build
from lethax.nets import MLP, Conv4
from lethax.objectives import CrossEntropy, SquaredError
from lethax.records import Episode, Split

WAY = 3
# Every kind of part that reads a split: starts, rules, encoders, contexts, bridges.
METHODS = ("l2f", "maml_pp", "alfa+l2f", "mumomaml+l2f", "cavia", "reptile", "imaml")
NETS = {"mlp": MLP(inputs=4, hidden=(5,), outputs=WAY, spread=0.5), "conv4": Conv4(WAY, 8, 1, 3, stages=2)}
SHAPES = {"mlp": (4,), "conv4": (8, 8, 1)}


def padded(split):
    """The same examples among others that do not count."""
    n = split.x.shape[0]
    places = np.array([0, 2, 3, 5][:n])
    x = jnp.full((n + 3, *split.x.shape[1:]), 7.0).at[places].set(split.x)
    y = jnp.ones((n + 3, *split.y.shape[1:]), split.y.dtype).at[places].set(split.y)
    return Split(x, y, jnp.zeros(n + 3).at[places].set(1.0)), places


def episode_of(key, entry):
    a, b = jax.random.split(key)
    return Episode(Split(jax.random.normal(a, (4, *entry)), jnp.arange(4) % WAY),
                   Split(jax.random.normal(b, (3, *entry)), jnp.arange(3) % WAY))  # fmt: skip


def check(learner, episode):
    support, _ = padded(episode.support)
    query, places = padded(episode.query)
    meta = jax.jit(learner.init)(jax.random.key(0))

    @jax.jit  # all in one program: what its parts have in common is compiled once
    def program(meta, episode):
        seen = jax.value_and_grad(learner.loss, has_aux=True)(meta, episode)
        return seen, learner.path(meta, episode, learner.steps)[0]

    ((loss, info), grads), expected = program(meta, episode)
    ((same, seen), others), outputs = program(meta, Episode(support, query))
    np.testing.assert_allclose(same, loss, rtol=1e-10)
    np.testing.assert_allclose(seen["score"], info["score"], rtol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10), others, grads)
    np.testing.assert_allclose(outputs[:, places], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_no_number(method, key, x64):
    learner = build(method, NETS["mlp"], rate=0.1, attenuator={}, objective=CrossEntropy(), steps=1)
    check(learner, episode_of(key, SHAPES["mlp"]))


@pytest.mark.parametrize("norm", ["batch", "support", "support+1"])
def test_moments_of_norms_pass_over_padding(norm, key, x64):
    learner = build("maml", NETS["conv4"], rate=0.1, attenuator={}, objective=CrossEntropy(), steps=1, norm=norm)
    check(learner, episode_of(key, SHAPES["conv4"]))


def test_an_encoder_of_images_passes_over_padding(key, x64):
    """Without labels; its norms and its mean over the support set pass over what pads."""
    support = episode_of(key, SHAPES["conv4"]).support
    encoder = build("mumomaml", NETS["conv4"], rate=0.1, attenuator={}, objective=CrossEntropy(), steps=1).encoder
    params, apply = jax.jit(encoder.init)(key), jax.jit(encoder.apply)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)  # noqa: E731
    jax.tree.map(near, apply(params, padded(support)[0]), apply(params, support))


def test_regression(key, x64):
    net = MLP(inputs=2, hidden=(5,), outputs=1, spread=0.5)
    learner = build("mumomaml", net, rate=0.1, attenuator={}, objective=SquaredError(), steps=1)
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
    with pytest.raises(DataError, match="support examples are not as many of each"):
        learner.adapt(jax.jit(learner.init)(key), Split(support.x[: WAY + 1], support.y[: WAY + 1]))
    with pytest.raises(DataError, match="support examples are not as many of each"):
        learner.adapt(jax.jit(learner.init)(key), Split(support.x[:6], jnp.array([0, 0, 0, 1, 1, 2])))
