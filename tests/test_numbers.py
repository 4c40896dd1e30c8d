"""Closed-form numbers of norms, intervals and function families."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax.data.curves import FORMS, family
from lethax.evaluation import bernoulli_std, by_repeats, paired, score
from lethax.nets import MLP
from lethax.nets.layers import batch_norm
from lethax.objectives import CrossEntropy
from lethax.records import EpisodeShape

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("x64")]


def test_whose_moments_a_norm_uses():
    support, query = jnp.array([[1.0], [2.0], [3.0], [6.0]]), jnp.array([[0.0], [4.0]])
    scale, shift = jnp.ones(1), jnp.zeros(1)
    own = batch_norm(support, scale, shift)[:, 0]  # of mean 3 and biased variance 3.5
    np.testing.assert_allclose(own * (3.5 + 1e-5) ** 0.5 + 3, support[:, 0], atol=1e-11)
    joined = batch_norm(jnp.concatenate([support, query]), scale, shift, reference=4)
    np.testing.assert_allclose(joined[4:, 0], (-1.603565160669, 0.534521720223), atol=1e-11)
    alone = batch_norm(query, scale, shift)
    np.testing.assert_allclose(alone[:, 0], (-0.999998750002, 0.999998750002), atol=1e-11)


def test_intervals():
    result = score(np.array([0.4, 0.6, 0.8, 0.2, 0.5]))
    np.testing.assert_allclose((result.mean, result.std, result.ci95), (0.5, 0.2, 0.175307729436), atol=1e-11)
    assert [round(bernoulli_std(p), 2) for p in (0.6938, 0.5210, 0.3946)] == [0.46, 0.50, 0.49]
    assert paired(np.array([2.0, 4.0]), np.array([1.0, 1.0])).per_task.tolist() == [1.0, 3.0]
    halves = np.array([1.0, 3.0, 0.0, 0.0])
    np.testing.assert_allclose(by_repeats(halves, 2), (1.0, (1.96 / 2**0.5) / 2))


@pytest.mark.parametrize(
    "form,parameters,values",
    [
        ("sine", (2, 1.1, 0.4, 1), (-1.947695261756, 1.626831009579, -1.059672281817)),
        ("sine", (2, 1, -0.4, 1), (-1.350926361102, 0.199666833294, 1.031002743643)),
        ("linear", (-1.5, 0.7, 0, 1), (3.7, -0.05, -3.8)),
        ("quadratic", (0.1, 1, 0.5, -1), (-0.4, 0.475, 0.1)),
        ("tanh", (2, -0.5, 1, 1), (-0.810296507290, 2.523188311912, 2.996355795222)),
        ("abs", (-1.2, 0.3, -2, 1), (-4.76, -2.24, -5.24)),
    ],
)
def test_function_families(form, parameters, values):
    got = FORMS[form](jnp.array(parameters, jnp.float64), jnp.array([-2.0, 0.5, 3.0]))
    np.testing.assert_allclose(got, values, atol=1e-11)


def test_ranges_of_the_shifted_sinusoids(key):
    """Test curves come from ranges that no training curve has."""
    tasks, training, evaluation = family("sinusoid_shift")
    assert training.high[0, :3].tolist() == evaluation.low[0, :3].tolist() != training.low[0, :3].tolist()
    shape = EpisodeShape(1, 5, 100)
    draw = jax.jit(jax.vmap(lambda ranges, k: tasks.draw(ranges, shape, k), in_axes=(None, 0)), static_argnums=())
    keys = jax.random.split(key, 200)
    heights = [np.abs(np.asarray(draw(ranges, keys).query.y)).max(axis=(1, 2)) for ranges in (training, evaluation)]
    assert heights[0].max() <= 3.0 and heights[1].max() <= 5.0 and heights[1].min() > 2.5


def test_mixtures_have_all_their_families_and_noise(key):
    tasks, ranges, _ = family("modes5")
    episodes = jax.jit(jax.vmap(lambda k: tasks.draw(ranges, EpisodeShape(1, 5, 5), k)))(jax.random.split(key, 50))
    assert episodes.support.x.shape == (50, 5, 1) and tasks.forms == tuple(FORMS) and float(ranges.noise) > 0.29
    quiet = tasks.__class__(tasks.forms, noisy=False)
    same = jax.jit(jax.vmap(lambda k: quiet.draw(ranges, EpisodeShape(1, 5, 5), k)))(jax.random.split(key, 50))
    np.testing.assert_allclose(same.support.x, episodes.support.x, rtol=1e-12)
    assert 0.25 < float(jnp.std(episodes.support.y - same.support.y)) < 0.35


def test_first_weights(key):
    normal, uniform = MLP(hidden=(400, 400)).init(key), MLP(hidden=(400, 400), spread=0.0).init(key)
    assert jnp.abs(normal["layer1"]["weight"]).max() <= 0.02 and not jnp.any(normal["layer1"]["bias"])
    for part in uniform["layer1"].values():
        assert 0.045 < float(jnp.abs(part).max()) <= 0.05  # 1/√400
    assert (
        uniform["layer0"]["weight"].shape == (1, 400) and 0.9 < float(jnp.abs(uniform["layer0"]["weight"]).max()) <= 1
    )


def test_accuracy_of_outputs_that_are_no_numbers():
    """A learner that broke is not one that guesses: NaN is the largest "logit" to argmax, and counted as class 0."""
    labels = jnp.array([0, 1, 0])
    good = jnp.array([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(CrossEntropy().score(good, labels), 2 / 3, rtol=1e-12)
    for bad in (good.at[0, 0].set(jnp.nan), good.at[0, 0].set(jnp.inf), good.at[0].set(-jnp.inf)):
        assert np.isnan(CrossEntropy().score(bad, labels))
    np.testing.assert_allclose(CrossEntropy().score(good.at[1, 0].set(-jnp.inf), labels), 2 / 3, rtol=1e-12)
    assert np.isnan(score(np.array([0.5, np.nan])).mean)
