"""LEO: the numeric cases of its published model in float64, and what training adds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import inner
from lethax.errors import RecipeError
from lethax.methods import LEO, Attenuator, build, leo
from lethax.nets import MLP, Conv4
from lethax.optimizer import clip_tensor_norm
from lethax.records import Episode, Split

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("x64")]


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_deviations():
    learner = LEO(MLP(inputs=640, outputs=5))
    offset = (2 / 645) ** 0.5
    close(offset, 0.055684604639)
    u = jnp.array([-0.1, 0.0, 0.25, 1.0])
    close(learner.spread(u, 0.0), (1e-10, 1e-10, 0.284025416688, 1.718281828459))
    close(learner.spread(u, offset), (1e-10, 0.055684604639, 0.339710021327, 1.773966433098))
    assert jnp.all(jax.grad(lambda u: jnp.sum(dataclasses.replace(learner, sigma="softplus").spread(u, 0.0)))(u) > 0)


def test_divergence_of_the_codes():
    """The one-sample estimate, by hand from z, ε and σ."""
    mean, u, noise = jnp.array([0.3, -0.2]), jnp.array([0.25, 1.0]), jnp.array([0.5, -1.0])
    sigma = LEO(MLP()).spread(u, 0.0)
    z = mean + sigma * noise
    close(z, (0.442012708344, -1.918281828459))
    close(leo.divergence(noise, sigma, z), 1.014978449350)
    # Its mean over ε is the closed form; the estimate is a polynomial of degree 2, so that few nodes are exact.
    nodes, shares = np.polynomial.hermite_e.hermegauss(4)
    each = [leo.divergence(jnp.full(2, node), sigma, mean + sigma * node) for node in nodes]
    close(np.dot(each, shares) / shares.sum(), 0.649474067251)


def test_correlation_and_logits():
    close(leo.correlation(jnp.array([[1.0, 2, 0], [0, 1, -1]])), 0.2)
    weights = jnp.array([[[1.0, 0], [0.5, 0.5]], [[0, 1], [-0.5, 0.5]]])
    close(leo.logits(weights, jnp.array([[0.6, 0.8]])), [[0.65, 0.45]])


def test_steps_in_both_spaces():
    """w_n = z_n (0.8, −0.4), a code of one entry: the sum of the cross entropies and one step of either kind."""
    learner = LEO(MLP(inputs=2, outputs=2), latents=1)
    decoder = jnp.array([[0.8, -0.4, 0.0, 0.0]])
    support = Split(jnp.array([[1.0, 0.5], [-0.5, 1.0]]), jnp.array([0, 1]))
    z = jnp.array([[[0.2]], [[-0.3]]])
    loss, grads = inner.gradient(learner.latent_loss, z, decoder, (support, None))
    close(loss, 1.067370496868)
    close(grads.ravel(), (-0.576384361823, 0.576384361823))
    z = z - grads
    close(z.ravel(), (0.776384361823, -0.876384361823))
    loss, _ = inner.gradient(learner.latent_loss, z, decoder, (support, None))
    close(loss, 0.551803306282)
    weights = learner.decode(decoder, z, None)
    _, grads = inner.gradient(learner.support_loss, weights, {}, support)
    close((weights - 0.001 * grads)[:, 0], [(0.621483298544, -0.310628902705), (-0.701483298544, 0.350628902705)])


def test_clipping():
    by_value = jnp.clip(jnp.array([0.3, -0.05, 0.09]), -0.1, 0.1)
    close(jnp.linalg.norm(by_value), 0.143527000944)
    close(clip_tensor_norm(0.1)({"a": by_value})["a"], (0.069673301429, -0.034836650715, 0.062705971286))
    np.testing.assert_array_equal(clip_tensor_norm(0.1)({"a": by_value / 10})["a"], by_value / 10)


def episode(key, way=3, shot=2):
    a, b = jax.random.split(key)
    centres = 3 * jnp.eye(way, 6)[:, None]
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    make = lambda k, n: unit(centres + jax.random.normal(k, (way, n, 6))).reshape(-1, 6)  # noqa: E731
    labels = lambda n: jnp.repeat(jnp.arange(way), n)  # noqa: E731
    return Episode(Split(make(a, shot), labels(shot)), Split(make(b, 4), labels(4)))


def test_relations_are_over_all_pairs(key):
    """The first layer in two halves is the first layer on the joined pair."""
    learner = LEO(MLP(inputs=6, outputs=3), latents=4)
    weights = jax.jit(learner.init)(key)["weights"]
    x = jax.random.normal(key, (3, 2, 6))
    codes = (x @ weights["encoder"]).reshape(6, 4)
    pairs = jnp.stack([jnp.concatenate([a, b]) for a in codes for b in codes])
    for i in range(3):
        pairs = pairs @ weights[f"relation{i}"]
        pairs = jax.nn.relu(pairs) if i < 2 else pairs
    expected = pairs.reshape(6, 6, 8).mean(axis=1).reshape(3, 2, 8).mean(axis=1)
    mean, _ = learner.encode(weights, x)
    np.testing.assert_allclose(mean[:, 0], expected[:, :4], rtol=1e-10)
    np.testing.assert_array_equal(mean[:, 0], mean[:, 1])


def test_training_samples_and_testing_does_not(key):
    learner, e = LEO(MLP(inputs=6, outputs=3), latents=4, latent_steps=2, steps=1, dropout=0.5, rate=0.1), episode(key)
    meta = jax.jit(learner.init)(key)
    loss = jax.jit(learner.loss)
    sampled = [float(loss(meta, e, key=jax.random.key(seed))[0]) for seed in (0, 1)]
    assert np.isfinite(sampled).all() and sampled[0] != sampled[1]
    assert loss(meta, e)[0] == loss(meta, e)[0]
    plain, _ = jax.jit(dataclasses.replace(learner, l2=0.0, orthogonality=0.0).loss)(meta, e)
    matrices = [w for w in jax.tree.leaves(meta["weights"]) if w.ndim == 2]
    decay = sum(float(jnp.sum(w**2)) for w in matrices) / 2
    expected = plain + learner.l2 * decay + learner.orthogonality * leo.correlation(meta["weights"]["decoder"])
    np.testing.assert_allclose(loss(meta, e)[0], expected, rtol=1e-10)
    grads = jax.jit(jax.grad(lambda m: learner.loss(m, e, key=key)[0]))(meta)
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads))


def test_loops_are_the_same_and_do_not_grow_with_the_steps(key):
    episode = Episode(Split(jax.random.normal(key, (6, 4)), jnp.arange(6) % 3), Split(jnp.ones((3, 4)), jnp.arange(3)))
    net = MLP(inputs=4, outputs=3)

    def grad(learner):
        return jax.grad(lambda m: learner.loss(m, episode, key=key)[0])

    learner = build("leo+l2f", net, rate=0.1, attenuator={"embedding": "mean_abs"}, leo={"latents": 3}, loop="scan")
    meta = learner.init(key)
    unrolled = dataclasses.replace(learner, loop="unroll")
    jax.tree.map(close, jax.jit(grad(learner))(meta), jax.jit(grad(unrolled))(meta))
    sizes = [
        len(str(jax.make_jaxpr(grad(dataclasses.replace(learner, steps=n, latent_steps=n)))(meta))) for n in (2, 12)
    ]
    assert sizes[1] < 1.1 * sizes[0]


def test_gates_of_one_are_leo(key):
    e, net = episode(key), MLP(inputs=6, outputs=3)
    plain = LEO(net, latents=4, latent_steps=2, steps=1, rate=0.1)
    gated = dataclasses.replace(plain, start=Attenuator(scope="filter"))
    meta = jax.jit(gated.init)(key)
    assert meta["start"]["latent"]["layer0"]["weight"].shape == (4, 4)
    assert meta["start"]["weight"]["layer1"]["weight"].shape == (6, 6)
    start = jax.tree.map(jnp.zeros_like, meta["start"])
    for space in start.values():
        space["layer1"]["bias"] = space["layer1"]["bias"] + 40.0  # its sigmoid is exactly 1
    differentiate = lambda learner: jax.jit(jax.value_and_grad(learner.loss, has_aux=True))  # noqa: E731
    (loss, _), grads = differentiate(plain)(meta, e, key=key)
    (same, info), gated_grads = differentiate(gated)({**meta, "start": start}, e, key=key)
    np.testing.assert_allclose(same, loss, rtol=1e-12)
    assert info["gates"].tolist() == [1.0, 1.0] and gated.gate_names() == ["latent", "weight"]
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)  # noqa: E731
    jax.tree.map(near, grads["weights"], gated_grads["weights"])


def test_it_needs_features():
    with pytest.raises(RecipeError, match="not Conv4"):
        build("leo", Conv4(), rate=0.1, attenuator={})
    assert leo.published(False, 1)["kl"] == 0.756143 and leo.published(True, 10) == leo.published(True, 5)


def test_gates_of_a_class_are_read_from_its_gradients_alone(key):
    """Its gates stay when another class's examples change, but for what the loss itself couples; those of a task do not."""
    net = MLP(inputs=4, hidden=(), outputs=3)
    of_class = LEO(net, start=Attenuator(scope="filter"), latents=2, gates="class")
    meta = jax.jit(of_class.init)(key)
    value, grads = jnp.ones((3, 1, 4)), jnp.arange(12.0).reshape(3, 1, 4)
    loss = lambda w, constants, data: jnp.sum(w * data)  # noqa: E731  (whose gradient is `data`)
    gated, info = of_class._begin(meta, "weight", loss, value, {}, grads)
    assert info["gates"].shape == (3, 4) and info["embedding"].shape == (3, 4)
    other = grads.at[2].add(1.0)
    again, _ = of_class._begin(meta, "weight", loss, value, {}, other)
    np.testing.assert_array_equal(gated[:2], again[:2])
    assert np.any(np.asarray(gated[2] != again[2]))
    shared = dataclasses.replace(of_class, gates="task")._begin(meta, "weight", loss, value, {}, grads)[1]
    assert shared["gates"].shape == (4,)
