"""The degree of conflict: angles that are known, random directions, and the examples of a task."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sinusoid_batches import drawn

import lethax
from lethax import trees
from lethax.analysis import conflict, gradients


def test_angles_that_are_known() -> None:
    vectors = jnp.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    found = conflict.angles(vectors)
    np.testing.assert_allclose(
        found, [(math.pi / 2 + math.pi) / 2, math.pi / 2, (math.pi / 2 + math.pi) / 2], rtol=1e-6
    )
    to_others = conflict.angles(vectors[:2], "to_mean_of_others")
    np.testing.assert_allclose(to_others, [math.pi / 2] * 2, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_to_the_mean_of_all_orthogonal_vectors_agree(count: int) -> None:
    """The angle to a mean that includes the vector itself is arccos(1/√B), which says nothing of conflict."""
    found = conflict.angles(jnp.eye(count), "to_mean")
    np.testing.assert_allclose(found, math.acos(count**-0.5), rtol=1e-5)


def test_angles_do_not_depend_on_lengths_or_rotations() -> None:
    vectors = jax.random.normal(jax.random.key(0), (5, 7))
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (7, 7)))[0]
    scaled = (vectors * jnp.array([[1.0], [2.0], [0.5], [10.0], [3.0]])) @ rotation
    np.testing.assert_allclose(conflict.angles(scaled), conflict.angles(vectors), rtol=1e-4)


def test_a_vector_of_length_zero_has_no_angle() -> None:
    found = np.asarray(conflict.angles(jnp.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])))
    assert np.isnan(found[1]) and np.allclose(found[[0, 2]], 0.0, atol=1e-3)


@pytest.mark.parametrize("size", [2, 3, 10, 1000])
def test_random_directions(size: int) -> None:
    """On the circle angles are uniform in [0, π]; in many dimensions their deviation is about 1/√n."""
    mean, std = conflict.random_angle(size)
    assert mean == math.pi / 2
    vectors = np.random.default_rng(0).normal(size=(600, size))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    drawn = np.arccos(np.clip(np.sum(unit[::2] * unit[1::2], axis=1), -1, 1))
    assert abs(drawn.std() - std) < 5 * std / math.sqrt(2 * 300)
    if size == 2:
        assert abs(std - math.pi / math.sqrt(12)) < 1e-3
    if size == 1000:
        assert abs(std * math.sqrt(size) - 1) < 1e-2


def test_one_dimension_has_two_directions() -> None:
    assert conflict.random_angle(1) == (math.pi / 2, math.pi / 2)


@pytest.mark.numeric
def test_gradients_of_examples_have_the_support_gradient_as_their_mean() -> None:
    with jax.enable_x64(True):
        learner = lethax.L2F(lethax.MLP(hidden=(6,)), objective=lethax.SquaredError(), steps=1)
        meta = learner.init(jax.random.key(0))
        support = next(drawn(1).tasks())[0].support
        each = gradients.example_gradients(learner, meta, support)
        first = trees.at(gradients.inner_stops(learner, meta, support, 0), 0)
        _, whole = gradients.support_gradient(learner, meta, support, first, 0)
        jax.tree.map(
            lambda one, all_: np.testing.assert_allclose(np.mean(one, axis=0), all_, rtol=1e-9, atol=1e-12), each, whole
        )


@pytest.mark.numeric
def test_under_batch_norm_the_mean_of_the_examples_is_the_support_gradient_too() -> None:
    """Each example is differentiated within the whole support set: forwarded alone, its batch norm would have other moments."""
    with jax.enable_x64(True):
        learner = lethax.MAML(lethax.Conv4(way=2, image=8, channels=1, filters=3, stages=2), steps=1)
        meta = learner.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1), float)
        support = lethax.Split(x, jnp.array([0, 1, 0, 1]))
        each = gradients.example_gradients(learner, meta, support)
        first = trees.at(gradients.inner_stops(learner, meta, support, 0), 0)
        _, whole = gradients.support_gradient(learner, meta, support, first, 0)
        jax.tree.map(
            lambda one, all_: np.testing.assert_allclose(np.mean(one, axis=0), all_, rtol=1e-8, atol=1e-12), each, whole
        )
        padded = support._replace(
            x=jnp.concatenate([x, x]), y=jnp.tile(support.y, 2), mask=jnp.repeat(jnp.array([1.0, 0.0]), 4)
        )
        jax.tree.map(  # examples that do not count have no gradient of their own
            lambda one, also: np.testing.assert_allclose(one, also, rtol=1e-8, atol=1e-12),
            each, gradients.example_gradients(learner, meta, padded),
        )  # fmt: skip
        found = conflict.within_task(learner, meta, support)
        assert found.angles.shape == (4, 4) and found.tensors[0] == "conv0/weight"


@pytest.mark.parametrize("of", ["meta", "support"])
def test_equal_tasks_have_no_conflict_and_others_have(of: str) -> None:
    learner = lethax.L2F(lethax.MLP(hidden=(6,)), objective=lethax.SquaredError(), steps=1)
    meta = learner.init(jax.random.key(0))
    batch = drawn(3)
    same = gradients.Batch(
        jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 3), batch.episodes), batch.keys, batch.progress
    )
    assert float(np.nanmax(conflict.between_tasks(learner, meta, same, of).angles)) < 2e-3
    assert float(np.nanmax(conflict.between_tasks(learner, meta, batch, of).angles)) > 0.1
