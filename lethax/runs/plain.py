"""Predictions without training: a few labelled pictures, the features of a pretrained backbone, and a plain classifier of them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lethax.baselines import probe_logits, prototype_logits
from lethax.data.loose import Labelled, Pictures, pictures
from lethax.data.source import unit_length
from lethax.devices import in_calls
from lethax.pretrained import AT_ONCE, Embedder
from lethax.records import Split

Kind = Literal["prototype", "probe"]
SHARPNESS = 10.0  # τ: of the squared distances to prototypes, so that their softmax is about as sure as it is right
DECAY = 0.001  # of the probe


@dataclass(frozen=True)
class Plain:
    """A classifier of the features of `embedder`, scaled to length 1, that knows one support set.

        prototype: P(c | x) = softmax_c(−τ |x − p_c|²), p_c the mean of class c;   probe: logistic regression, see `LinearProbe`

    A picture's probabilities depend on no other picture that is predicted. support: features [n, d]. labels: positions in
    `classes`.
    """

    embedder: Embedder
    kind: Kind
    classes: tuple[str, ...]
    support: np.ndarray
    labels: np.ndarray

    @property
    def example(self) -> tuple[int, int, int]:
        """The shape of the pictures that it takes."""
        return self.embedder.size, self.embedder.size, 3

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Compute the probability of every class [n, classes] of pictures, uint8 [n, height, width, channels]."""
        way = len(self.classes)
        made = partial(_probabilities, self.kind, way, self.support, self.labels)
        return np.concatenate([np.zeros((0, way)), *in_calls(made, _unit(self.embedder, images), AT_ONCE)])

    def pictures(self, source: Path | str) -> Pictures:
        """Read the pictures of a folder or an archive in the size of the backbone, as `probabilities` takes them."""
        return pictures(Path(source), self.example, lambda *_: None)


def plain(embedder: Embedder, examples: Labelled, kind: Kind) -> Plain:
    """Make a classifier of labelled pictures, of which each class may have another number."""
    return Plain(embedder, kind, examples.classes, _unit(embedder, examples.images), examples.labels)


def _unit(embedder: Embedder, images: np.ndarray) -> np.ndarray:
    return np.asarray(unit_length(jnp.asarray(embedder.features(images))), np.float32)


@partial(jax.jit, static_argnums=(0, 1))
def _probabilities(kind: Kind, way: int, support: Array, labels: Array, query: Array) -> Array:
    known = Split(support, labels)
    if kind == "probe":
        return jax.nn.softmax(probe_logits(known, query, way, DECAY))
    return jax.nn.softmax(SHARPNESS * prototype_logits(known, query, way))
