"""Train a backbone by classifying the meta-training classes, and compute its features of any images. No files, no printing.

SGD with Nesterov momentum 0.9 and weight decay 5e-4 under a cosine rate; random crops of padded images and horizontal flips.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from lethax.data.source import normalised
from lethax.devices import in_calls
from lethax.objectives import CrossEntropy

REFERENCE = 256  # training images whose moments all batch norms use when features are made


@dataclass(frozen=True)
class Schooling:
    """How a backbone is trained: `steps` updates of `batch` images, with `rate` at first, on crops of images with `padding`."""

    steps: int = 10_000
    batch: int = 64
    rate: float = 0.1
    padding: int = 4
    decay: float = 5e-4

    def optimizer(self) -> optax.GradientTransformation:
        """SGD with Nesterov momentum 0.9 and weight decay, whose rate falls to 0 along a cosine."""
        rate = optax.cosine_decay_schedule(self.rate, self.steps)
        return optax.chain(optax.add_decayed_weights(self.decay), optax.sgd(rate, momentum=0.9, nesterov=True))


class Pupil(NamedTuple):
    """The state of training a backbone."""

    weights: Any
    optim: Any
    step: Array


@partial(jax.jit, static_argnums=(0, 3, 4))
def _draw(how: Schooling, images: Array, labels: Array, mean: Any, std: Any, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Draw a batch of images, with random crops and flips."""
    for_rows, for_crops, for_flips = jax.random.split(key, 3)
    rows = jax.random.randint(for_rows, (how.batch,), 0, images.shape[0])
    x, edge = normalised(images[rows], mean, std), how.padding
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    corners = jax.random.randint(for_crops, (how.batch, 2), 0, 2 * edge + 1)
    crop = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, image.shape[2]))  # noqa: E731
    x = jax.vmap(crop)(padded, corners)
    flips = jax.random.bernoulli(for_flips, 0.5, (how.batch, 1, 1, 1))
    return jnp.where(flips, x[:, :, ::-1], x), labels[rows]


@partial(jax.jit, static_argnums=(0, 1))
def _step(net: Any, how: Schooling, pupil: Pupil, x: Array, y: Array) -> tuple[Pupil, Array]:
    loss, grads = jax.value_and_grad(lambda w: CrossEntropy().loss(net.apply(w, x), y))(pupil.weights)
    updates, optim = how.optimizer().update(grads, pupil.optim, pupil.weights)
    return Pupil(optax.apply_updates(pupil.weights, updates), optim, pupil.step + 1), loss


def fit_classes(
    net: Any, how: Schooling, images: np.ndarray, labels: np.ndarray, mean: Any, std: Any, key: PRNGKeyArray
) -> Iterator[tuple[Pupil, Array]]:
    """Train a classifier, and yield (state, loss) after every step. Images are uint8 [n, h, w, c], labels [n]."""
    for_weights, for_batches = jax.random.split(key)
    weights = jax.jit(net.init)(for_weights)
    pupil = Pupil(weights, how.optimizer().init(weights), jnp.zeros((), jnp.int32))
    on_device, classes = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    for step in range(how.steps):
        x, y = _draw(how, on_device, classes, mean, std, jax.random.fold_in(for_batches, step))
        pupil, loss = _step(net, how, pupil, x, y)  # one step a call: a CPU's convolutions are slow inside a loop
        yield pupil, loss


@partial(jax.jit, static_argnums=(0, 1))
def _read(net: Any, head: bool, weights: Any, reference: Array, x: Array) -> Array:
    function = net.apply if head else net.features
    return function(weights, jnp.concatenate([reference, x]), reference=reference.shape[0])[reference.shape[0] :]


def read(
    net: Any, weights: Any, reference: np.ndarray, images: np.ndarray, mean: Any, std: Any, *, head: bool = False
) -> Iterator[np.ndarray]:
    """Compute features (with `head`: logits) of images in groups of 256. The norms take the moments of the `reference` images.

    The features of an image therefore do not depend on its neighbours.
    """
    fixed = normalised(jnp.asarray(reference), mean, std)
    made = lambda part: _read(net, head, weights, fixed, normalised(jnp.asarray(part), mean, std))  # noqa: E731
    yield from in_calls(made, images, REFERENCE)
