"""Episodes of images: what is drawn, from which classes, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax.data.source import check_shape, class_split, on_device
from lethax.errors import DataError
from lethax.methods import MAML
from lethax.nets import Conv4
from lethax.records import EpisodeShape

COUNTS = [6, 9, 7, 12, 8, 6]  # images of the classes
SHAPE = EpisodeShape(way=4, shot=2, query=4)


@pytest.fixture(scope="module")
def drawn():
    """Two hundred episodes; the first pixel of an image is its class, the second its place in it."""
    labels = np.repeat(np.arange(6), COUNTS)
    places = np.concatenate([np.arange(n) for n in COUNTS])
    images = np.stack([labels, places, labels * 0, labels * 0 + 255], 1).astype(np.uint8).reshape(-1, 2, 2)
    tasks, source = on_device(class_split(images, labels), mean=(0.0,), std=(1.0,), rotate=False)
    keys = jax.random.split(jax.random.key(0), 200)
    draw = jax.jit(jax.vmap(lambda key: tasks.draw(source, SHAPE, key)))
    return tasks, source, draw(keys), draw(keys)


def test_examples_are_of_their_class_and_differ(drawn):
    tasks, source, episodes, again = drawn
    jax.tree.map(np.testing.assert_array_equal, episodes, again)
    assert episodes.support.x.shape == (200, 8, 2, 2, 1) and episodes.query.x.shape == (200, 16, 2, 2, 1)
    np.testing.assert_array_equal(episodes.support.y[7], np.repeat(np.arange(4), 2))
    np.testing.assert_array_equal(episodes.query.y[7], np.repeat(np.arange(4), 4))
    seen = set()
    for e in range(200):
        pictures = [np.round(np.asarray(part.x[e]) * 255).astype(int) for part in (episodes.support, episodes.query)]
        classes, places = (np.concatenate([p[:, 0, k, 0].reshape(4, -1) for p in pictures], 1) for k in (0, 1))
        assert (classes == classes[:, :1]).all() and len(set(classes[:, 0])) == 4  # one class a label, no class twice
        assert all(len(set(row)) == 6 for row in places.tolist())  # support and query share nothing
        assert all(max(row) < COUNTS[c] for row, c in zip(places.tolist(), classes[:, 0], strict=True))
        seen |= set(zip(classes.ravel().tolist(), places.ravel().tolist(), strict=True))
    assert len(seen) == sum(COUNTS)


def test_labels_are_places_and_not_classes(drawn):
    """Each label meets each class about equally often."""
    classes = np.round(np.asarray(drawn[2].support.x[:, ::2, 0, 0, 0]) * 255).astype(int)
    for label in range(4):
        assert np.bincount(classes[:, label], minlength=6).min() > 200 / 6 / 2


def test_pixels_are_scaled_and_classes_turned_as_one(drawn, key):
    tasks, source, _, _ = drawn
    scaled = dataclasses.replace(tasks, mean=(0.5,), std=(0.25,))
    assert float(scaled.draw(source, SHAPE, key).query.x.max()) == 2.0
    turned = jax.jit(dataclasses.replace(tasks, rotate=True).draw, static_argnums=1)
    corners = set()
    for k in jax.random.split(key, 20):  # the white corner shows the turn
        episode = turned(source, SHAPE, k)
        both = jnp.concatenate([part.x.reshape(4, -1, 4) for part in (episode.support, episode.query)], 1)
        corner = np.asarray(jnp.argmax(both, axis=2))
        assert (corner == corner[:, :1]).all()
        corners |= set(corner.ravel().tolist())
    assert corners == {0, 1, 2, 3}


@pytest.mark.parametrize("change", [{"way": 7}, {"query": 5}, {"shot": 3}])
def test_what_the_classes_do_not_allow_is_said_before_anything_compiles(change, drawn, key):
    tasks, source, _, _ = drawn
    with pytest.raises(DataError, match="6 classes, and the smallest has 6 examples: lower way, shot or query"):
        tasks.draw(source, SHAPE._replace(**change), key)
    labels = np.repeat(np.arange(6), COUNTS)
    split = class_split(np.zeros((len(labels), 2, 2), np.uint8), labels)
    with pytest.raises(
        DataError, match="needs 7|2 classes of own have fewer than the 7 examples .*: 0 .6., 5 .6.. Lower"
    ):
        check_shape(split, SHAPE._replace(**change), "own")


@pytest.mark.parametrize("images,labels", [
    (np.zeros((3, 2, 2), np.float32), [0, 1, 2]), (np.zeros((3, 2, 2), np.uint8), [0, 1]),
    (np.zeros((0, 2, 2), np.uint8), []), (np.zeros((3, 2), np.uint8), [0, 1, 2]),
])  # fmt: skip
def test_arrays_that_are_no_images(images, labels):
    with pytest.raises(DataError, match="expected uint8"):
        class_split(images, np.asarray(labels))


def test_examples_have_the_precision_of_the_weights(x64):
    """Under JAX_ENABLE_X64 images and features are float64, and a net takes them."""
    images, labels = np.zeros((12, 16, 16, 1), np.uint8), np.repeat(np.arange(2), 6)
    tasks, source = on_device(class_split(images, labels), mean=(0.5,), std=(0.5,), rotate=False)
    shape = EpisodeShape(2, 1, 2)
    learner = MAML(Conv4(way=2, image=16, channels=1, filters=2), steps=1)

    def outputs(key):
        episode = tasks.draw(source, shape, key)
        return learner.predict(learner.adapt(learner.init(key), episode.support)[0], episode.query.x)

    assert jax.eval_shape(outputs, jax.random.key(0)).dtype == np.float64
