"""Pictures that stay on the disk: episodes are gathered on the host from a mapped file, ahead of the step that uses them.

They are the very episodes that `source.ImageTasks` draws on the device, so that a run has the same bits either way.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from lethax.data.ahead import Ahead
from lethax.data.source import ImageTasks, Pixels, on_device, sizes_of
from lethax.data.store import ClassSplit
from lethax.errors import RecipeError
from lethax.hardware import memory
from lethax.learner import EpisodeKeys
from lethax.records import Episode, EpisodeShape
from lethax.text import shown

LIMIT = "LETHAX_DEVICE_DATA"  # MiB of pictures of a split that are moved to the device
_SHARE = 4  # of the device's memory, unless LIMIT says otherwise


class HostEpisodes(NamedTuple):
    """Pixels of episodes, and by how many times 90° their classes are turned."""

    support: UInt8[np.ndarray, "episodes way shot h w c"]
    query: UInt8[np.ndarray, "episodes way query h w c"]
    turns: Int[np.ndarray, "episodes way"]


@dataclass(frozen=True)
class HostImages:
    """The episodes of `tasks`, of pictures that are read on the host: a `learner.HostFamily`."""

    tasks: ImageTasks

    def fetch(
        self, source: "HostPixels", shape: EpisodeShape, key: PRNGKeyArray, first: int, count: int, keys: EpisodeKeys
    ) -> HostEpisodes:
        """Read episodes."""
        return source.read(_Stream(self.tasks, shape, _bytes(key), keys), first, count)

    def episodes(self, arrays: HostEpisodes) -> Episode:
        """The episodes, as `tasks.draw` would make them on the device."""
        support, query, turns = map(jnp.asarray, arrays)
        shape = EpisodeShape(support.shape[1], support.shape[2], query.shape[2])
        chosen = jnp.concatenate([support, query], axis=2)
        return jax.vmap(lambda x, t: self.tasks.made(x, t, shape))(chosen, turns)


class _Stream(NamedTuple):
    """What the numbers of episodes count: equal streams have equal episodes."""

    tasks: ImageTasks
    shape: EpisodeShape
    key: bytes
    keys: EpisodeKeys


class HostPixels:
    """A split of images on the disk, whose next episodes are gathered while others are used."""

    def __init__(self, split: ClassSplit) -> None:
        self._images, self._starts = split.images, jnp.asarray(split.starts, jnp.int32)
        self._ahead = Ahead(self._from)

    def read(self, stream: _Stream, first: int, count: int) -> HostEpisodes:
        """The episodes `first` … `first` + `count` − 1 of a stream."""
        return self._ahead.take(stream, first, count)

    def _from(self, stream: _Stream, first: int, count: int) -> Iterator[HostEpisodes]:
        shot = stream.shape.shot
        while True:
            drawn = _drawn(stream.tasks, stream.shape, stream.keys, count, self._starts, _key(stream.key), first)
            places, turns = map(np.asarray, drawn)
            found = self._images[places]
            yield HostEpisodes(found[:, :, :shot], found[:, :, shot:], turns)
            first += count


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _drawn(
    tasks: ImageTasks,
    shape: EpisodeShape,
    keys: EpisodeKeys,
    count: int,
    starts: Array,
    key: PRNGKeyArray,
    first: Array,
) -> tuple[Array, Array]:
    """The rows of the pictures of each episode [count, way, shot + query], and the turns of its classes."""
    of_each = keys(key, first, count)
    return jax.vmap(lambda k: (tasks.places(starts, shape, k), tasks.turns(shape, k)))(of_each)


def _bytes(key: PRNGKeyArray) -> bytes:
    return np.asarray(jax.random.key_data(key)).tobytes()


def _key(content: bytes) -> PRNGKeyArray:
    return jax.random.wrap_key_data(jnp.asarray(np.frombuffer(content, np.uint32)))


def images_of(
    split: ClassSplit, mean: tuple[float, ...], std: tuple[float, ...], rotate: bool
) -> tuple[ImageTasks | HostImages, Pixels | HostPixels]:
    """The task family of a split and what it draws from: arrays on the device, or on the host if they are too large for it.

    They are too large if they take more than a quarter of its memory, or than $LETHAX_DEVICE_DATA MiB. Arguments are those of
    `on_device`. RecipeError if the variable is no number.
    """
    if split.images.nbytes <= limit():
        return on_device(split, mean, std, rotate)
    return HostImages(ImageTasks(tuple(mean), tuple(std), sizes_of(split), rotate)), HostPixels(split)


def limit() -> float:
    """The largest split, in bytes, that is moved to the device."""
    given = os.environ.get(LIMIT)
    if given:
        try:
            mib = float(given)
        except ValueError:
            mib = -1
        if not mib >= 0:  # nan is no number either
            raise RecipeError(
                f"${LIMIT} is {shown(given, 40)}; expected a number of MiB, 0 or more: set another, or none."
            )
        return mib * 2**20
    device: Any = jax.devices()[0]
    room = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else memory().usable
    return room / _SHARE if room else float("inf")
