"""Landscape measures: closed forms on a quadratic, and the same numbers by hand on a small net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sinusoid_batches import drawn

import lethax
from lethax import trees
from lethax.analysis import landscape

STEPS = [0.01, 0.02, 0.05]


def test_a_quadratic_has_the_measures_of_its_hessian() -> None:
    """At ½ xᵀHx: the gradient difference of a step s is s ‖Hg‖, the loss falls by s gᵀg − s²/2 gᵀHg, smoothness is ‖Hg‖/‖g‖."""
    with jax.enable_x64(True):
        mixed = jax.random.normal(jax.random.key(0), (6, 6), float)
        hessian = mixed @ mixed.T
        x = jax.random.normal(jax.random.key(1), (6,), float)
        found = landscape.measure(jax.value_and_grad(lambda x: 0.5 * x @ hessian @ x), x, STEPS)
        g = np.asarray(hessian @ x)
        hg = np.asarray(hessian @ g)
        after = [0.5 * x @ hessian @ x - s * g @ g + s**2 / 2 * g @ hg for s in STEPS]
        norm = np.linalg.norm
        np.testing.assert_allclose(found.gradient_norm, norm(g), rtol=1e-12)
        np.testing.assert_allclose([found.loss_min, found.loss_max], [min(after), max(after)], rtol=1e-10)
        np.testing.assert_allclose(found.loss_variation, max(after) - min(after), rtol=1e-10)
        differences = np.array(STEPS) * norm(hg)
        np.testing.assert_allclose(found.difference_min, differences.min(), rtol=1e-10)
        np.testing.assert_allclose(found.difference_max, differences.max(), rtol=1e-10)
        np.testing.assert_allclose(found.difference_mean, differences.mean(), rtol=1e-10)
        np.testing.assert_allclose(found.smoothness, norm(hg) / norm(g), rtol=1e-10)


def test_where_the_gradient_is_zero_nothing_differs() -> None:
    found = landscape.measure(jax.value_and_grad(lambda x: jnp.sum(x**2)), jnp.zeros(3), STEPS)
    assert found.smoothness == found.difference_max == found.loss_variation == 0.0


def _learner(method: str) -> lethax.MAML:
    net = lethax.MLP(hidden=(6,))
    kind = lethax.L2F if method == "l2f" else lethax.MAML
    return kind(net, objective=lethax.SquaredError(), steps=2, rule=lethax.SGD(0.05))


@pytest.mark.numeric
@pytest.mark.parametrize("method", ["maml", "l2f"])
def test_inner_steps_are_measured_where_they_begin(method: str) -> None:
    with jax.enable_x64(True):
        learner = _learner(method)
        meta = learner.init(jax.random.key(3))
        episode = next(drawn(1).tasks())[0]
        found = landscape.of_inner_steps(learner, meta, episode.support, STEPS)
        path = learner.inner_path(meta, episode.support, 2)
        assert found.loss.shape == (2,)
        for step in range(2):
            at = path.stop(step)
            loss, g = jax.value_and_grad(path.loss)(at, step)
            np.testing.assert_allclose(found.loss[step], loss, rtol=1e-9)
            moved = jax.tree.map(lambda x, d: x - STEPS[-1] * d, at, g)
            away = trees.norm(jax.tree.map(jnp.subtract, jax.grad(path.loss)(moved, step), g))
            assert found.difference_min[step] <= float(away) * (1 + 1e-9) <= found.difference_max[step] * (1 + 2e-9)
        # The first stop of L2F is the attenuated initialisation.
        gated = path.stop(0)["layer0"]["weight"]
        assert bool(jnp.all(gated == meta["weights"]["layer0"]["weight"])) == (method == "maml")


@pytest.mark.numeric
def test_the_initialisation_is_measured_under_the_meta_gradient() -> None:
    with jax.enable_x64(True):
        learner, batch = _learner("l2f"), drawn(3)
        meta = learner.init(jax.random.key(3))
        found = landscape.of_initialisation(learner, meta, batch, STEPS)

        def outer(weights: object) -> jax.Array:
            one = lambda episode: learner.loss({**meta, "weights": weights}, episode)[0]  # noqa: E731
            return jnp.sum(jax.vmap(one)(batch.episodes))

        loss, g = jax.value_and_grad(outer)(meta["weights"])
        np.testing.assert_allclose(found.loss, loss, rtol=1e-9)
        np.testing.assert_allclose(found.gradient_norm, trees.norm(g), rtol=1e-9)
        losses = [outer(jax.tree.map(lambda x, d, s=s: x - s * d, meta["weights"], g)) for s in STEPS]
        np.testing.assert_allclose(found.loss_max, max(losses), rtol=1e-9)


def test_what_has_no_inner_path_is_refused() -> None:
    learner = lethax.LEO(lethax.MLP(hidden=(), inputs=4, outputs=2))
    with pytest.raises(TypeError, match="LEO has no inner_path"):
        landscape.of_inner_steps(learner, {}, lethax.Split(jnp.zeros((2, 4)), jnp.zeros(2, int)), STEPS)
