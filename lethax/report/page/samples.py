"""A test episode of images, with its support set, its queries and what runs say of them."""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lethax import trees
from lethax.data.store import Store, open_store
from lethax.domains.supervised import shape_of
from lethax.errors import LethaxError
from lethax.evaluation import draw
from lethax.records import Episode
from lethax.report.page.gather import Told
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import check_data
from lethax.streams import test_key
from lethax.text import counted, shown

EPISODES = 2  # of a data set
QUERIES = 2  # of a class that are shown
_SIDE = 64  # pixels of a picture on the page


class Picture(NamedTuple):
    """A picture as a data URI, and its class."""

    source: str
    label: str


class Sampled(NamedTuple):
    """An episode. predictions: the class of every query, by the number of the run that says so."""

    title: str
    support: list[Picture]
    queries: list[Picture]
    predictions: dict[int, list[str]]


def samples(runs: Sequence[Told], most: int) -> tuple[list[Sampled], str]:
    """The first test episodes, judged by at most `most` runs; and a sentence on what is not shown, "" if nothing is missing.

    Every run costs the compilation of its network.
    """
    pictured = [told for told in runs if told.run.inputs is not None and len(told.run.inputs.example) == 3]
    chosen, why = pictured[:most], []
    found: list[Sampled] = []
    alike: dict[Any, list[Told]] = {}
    for told in chosen:
        alike.setdefault((told.run.recipe.data, shape_of(told.run.recipe, "test")), []).append(told)
    for some in alike.values():
        judged = {}
        for told in some:
            try:
                judged[told.number] = _answers(told)
            except LethaxError as error:
                why.append(f"{shown(told.name, 60)} has no sample episodes: {error}")
        try:
            found += _shown(some[0], judged) if judged else []
        except LethaxError as error:  # of data that are no single data set
            why.append(f"{shown(some[0].name, 60)} has no sample episodes: {error}")
    if len(pictured) > len(chosen):
        why.append(
            f"Sample episodes are those of the first {most} of {counted(len(pictured), 'run')} on images: --samples N shows N."
            if most else "No sample episodes of images were asked for: --samples N shows those of N runs."
        )  # fmt: skip
    return found, " ".join(why)


def _shown(told: Told, judged: dict[int, np.ndarray]) -> Iterator[Sampled]:
    """The episodes of a run as pictures, with the answers of all runs that have the same."""
    store, episodes, shape = open_store(told.run.recipe.data), _episodes(told), shape_of(told.run.recipe, "test")
    for i in range(EPISODES):
        episode: Episode = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), episodes)
        names = [_class_of(store, episode, k) for k in range(shape.way)]
        at = [place for k in range(shape.way) for place in np.flatnonzero(episode.query.y == k)[:QUERIES]]
        yield Sampled(
            f"{told.run.recipe.data}, test episode {i}: {shape.way}-way {shape.shot}-shot",
            [Picture(_png(store, x), names[y]) for x, y in zip(episode.support.x, episode.support.y, strict=True)],
            [Picture(_png(store, episode.query.x[q]), names[episode.query.y[q]]) for q in at],
            {run: [names[answers[i][q]] for q in at] for run, answers in judged.items()},
        )


def _episodes(told: Told) -> Episode:
    """The first test episodes, with a leading axis. DataError if the data set is not at hand, or not that of the run."""
    check_data(told.run, "leave the run out")
    tasks, source = told.run.domain.family(told.run.recipe, "test")
    return draw(tasks, shape_of(told.run.recipe, "test"), EPISODES, source, test_key(0), jnp.asarray(0))


def _answers(told: Told) -> np.ndarray:
    """The classes that a run gives the queries of each episode, after its inner steps: [episodes, queries]."""
    episodes, learner, meta = _episodes(told), told.run.learner(), best_metas(told.run, 1)[0][0]

    def answer(meta: Any, episode: Episode) -> jax.Array:
        fast, _ = learner.adapt(meta, episode.support)
        return jnp.argmax(learner.predict(fast, episode.query.x, episode.query.mask), axis=-1)

    one = jax.jit(answer)
    return np.stack([np.asarray(one(meta, trees.at(episodes, i))) for i in range(EPISODES)])


def _pixels(store: Store, x: Any) -> np.ndarray:
    """The picture of an example, whose pixels were (pixel / 255 − mean) / std."""
    return np.clip(np.rint(255 * (x * np.asarray(store.std) + np.asarray(store.mean))), 0, 255).astype(np.uint8)


def _class_of(store: Store, episode: Episode, label: int) -> str:
    """The name of a class of an episode: that of the picture in the data set which is its first support example."""
    split = store.splits["test"]
    wanted = _pixels(store, episode.support.x[np.flatnonzero(episode.support.y == label)[0]])
    for name, begin, end in zip(
        split.classes, split.starts[:-1], split.starts[1:], strict=True
    ):  # a class at a time: they are large
        if (split.images[begin:end] == wanted).all(axis=(1, 2, 3)).any():
            return name
    return f"class {label}"


def _png(store: Store, x: Any) -> str:
    pixels = _pixels(store, x)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels[:, :, :3])
    image.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
