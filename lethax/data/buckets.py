"""Put episodes of any shape into arrays of a few shapes, so that few programs are compiled, and read them ahead in a thread."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.data.ahead import Ahead
from lethax.data.source import normalised
from lethax.data.store import ClassSplit
from lethax.data.variable_episodes import BENCHMARK, DrawnEpisode, EpisodeRules, Pool, VariableEpisodes
from lethax.learner import EpisodeKeys
from lethax.records import Episode, EpisodeShape, Split

# Of support and of query sets: 45 shapes. Support sets go through the network in every inner step, so theirs are finer. Over the
# eight training sources of Meta-Dataset a step takes 8 % more work than without padding: docs/results/meta-dataset-episodes.json.
SUPPORT = (25, 50, 75, 100, 150, 200, 300, 400, 500)
QUERY = (100, 200, 300, 400, 500)


class PaddedExamples(NamedTuple):
    """Examples of some episodes, and what pads them.

    pixels: uint8 [episodes, n, h, w, c]; labels: int32 [episodes, n]; mask: float32 [episodes, n], 1 for examples that count. What
    pads them is black, with label 0.
    """

    pixels: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


class PaddedEpisodes(NamedTuple):
    """A meta-batch on the host."""

    support: PaddedExamples
    query: PaddedExamples


def bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the sizes that has room for so many examples; the number itself where it is larger than all of them."""
    return next((size for size in sizes if size >= count), count)


def padded(drawn: Sequence[DrawnEpisode], splits: Sequence[ClassSplit]) -> PaddedEpisodes:
    """Read the examples of one or more episodes into arrays of one shape, in which all of them have room.

    Arguments:
        drawn: from `VariableEpisodes.draw`.
        splits: the split of each pool, in the order of the pools. Pictures of all of them have one shape.
    """
    images = [splits[one.sizes.source].images for one in drawn]
    ways = [len(one.sizes.classes) for one in drawn]
    shots = [np.repeat(np.arange(way), one.sizes.shots) for way, one in zip(ways, drawn, strict=True)]
    queries = [np.repeat(np.arange(way), one.sizes.query) for way, one in zip(ways, drawn, strict=True)]
    return PaddedEpisodes(
        _examples(images, [one.support for one in drawn], shots, SUPPORT),
        _examples(images, [one.queries for one in drawn], queries, QUERY),
    )


def _examples(
    images: list[np.ndarray], rows: list[np.ndarray], labels: list[np.ndarray], sizes: Sequence[int]
) -> PaddedExamples:
    size = bucket(max(map(len, rows)), sizes)
    pixels = np.zeros((len(rows), size, *images[0].shape[1:]), images[0].dtype)
    numbers = np.zeros((len(rows), size), np.int32)
    mask = np.zeros((len(rows), size), np.float32)
    for i, (source, places) in enumerate(zip(images, rows, strict=True)):
        n = len(places)
        np.take(source, places, axis=0, out=pixels[i, :n], mode="clip")  # no copy between the disk's pages and these
        numbers[i, :n], mask[i, :n] = labels[i], 1.0
    return PaddedExamples(pixels, numbers, mask)


def episodes_of(found: PaddedEpisodes, mean: tuple[float, ...], std: tuple[float, ...]) -> Episode:
    """The meta-batch on the device, x = (pixel / 255 − mean) / std. Call it in the compiled program, so that bytes are moved."""
    return Episode(*(
        Split(normalised(jnp.asarray(part.pixels), mean, std), jnp.asarray(part.labels), jnp.asarray(part.mask, float))
        for part in found
    ))  # fmt: skip


class Reader:
    """Reads the episodes of some splits by their numbers, the ones that come next while others are used.

    Arguments:
        pools: from `variable_episodes.pool`.
        splits: the split of each pool. Pictures of all of them have one shape.
        rules: how episodes are drawn.

    Raises:
        DataError: as `VariableEpisodes` does.
    """

    def __init__(self, pools: Sequence[Pool], splits: Sequence[ClassSplit], rules: EpisodeRules = BENCHMARK) -> None:
        VariableEpisodes(pools, rules)  # which checks them
        self._pools, self._splits, self._rules = tuple(pools), tuple(splits), rules
        self._ahead = Ahead(self._from)

    def read(self, seed: int, first: int, count: int) -> PaddedEpisodes:
        """The episodes `first` … `first` + `count` − 1 of a seed, whatever was read before."""
        return self._ahead.take(seed, first, count)

    def _from(self, seed: int, first: int, count: int) -> Iterator[PaddedEpisodes]:
        stream = VariableEpisodes(self._pools, self._rules, seed)
        while True:
            yield padded([stream.draw(i) for i in range(first, first + count)], self._splits)
            first += count


@dataclass(frozen=True)
class ReadEpisodes:
    """The tasks of a `Reader`, a `learner.HostFamily`: x = (pixel / 255 − mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fetch(
        self, source: Reader, shape: EpisodeShape, key: PRNGKeyArray, first: int, count: int, keys: EpisodeKeys
    ) -> PaddedEpisodes:
        """Read episodes, whose seed is a hash of the key. Each draws a shape of its own."""
        content = np.ascontiguousarray(jax.random.key_data(key)).tobytes()
        return source.read(int.from_bytes(hashlib.sha256(content).digest()[:8], "little"), first, count)

    def episodes(self, arrays: Any) -> Episode:
        """The episodes on the device."""
        return episodes_of(arrays, self.mean, self.std)
