"""Draw episodes of images or features, as a pure function of (arrays, shape, key), inside the compiled program."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from lethax.data.fits import too_small
from lethax.data.store import ClassSplit
from lethax.errors import DataError
from lethax.records import Episode, EpisodeShape, Split
from lethax.text import counted, shown


class Pixels(NamedTuple):
    """One split of images on the device. Class i is images[starts[i]:starts[i + 1]]."""

    images: UInt8[Array, "n h w c"]
    starts: Int[Array, " classes_1"]


class Features(NamedTuple):
    """One split of feature vectors on the device, with classes as in `Pixels`."""

    images: Float[Array, "n d"]
    starts: Int[Array, " classes_1"]


def draw_places(
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    starts: Int[Array, " classes_1"],
    sizes: tuple[int, int],
    shape: EpisodeShape,
) -> Int[Array, "way shot_query"]:
    """Draw the rows of an episode's examples: classes without replacement, and K + Q examples of each without replacement.

    sizes: examples of the smallest and the largest class; DataError, before anything compiles, where the classes or the
    smallest one do not allow the shape. Labels are positions in the drawn list of classes.
    """
    for_classes, for_images = keys
    (smallest, largest), classes, need = sizes, starts.shape[0] - 1, shape.shot + shape.query
    if shape.way > classes or need > smallest:
        raise DataError(
            f"{shape.way}-way episodes of {counted(need, 'example')} a class were asked for, but the split has "
            f"{counted(classes, 'class')}, and the smallest has {counted(smallest, 'example')}: lower way, shot or query."
        )
    drawn = jax.random.permutation(for_classes, classes)[: shape.way]
    begin = starts[drawn]
    counts = starts[drawn + 1] - begin
    # The K + Q smallest of uniform scores are a uniform draw without replacement; places past the class's end never win.
    scores = jax.random.uniform(for_images, (shape.way, largest))
    scores = jnp.where(jnp.arange(largest) < counts[:, None], scores, 2.0)
    _, places = jax.lax.top_k(-scores, need)
    return begin[:, None] + places


def _episode(x: Array, shape: EpisodeShape) -> Episode:
    """Divide examples [way, shot + query, ...] into support and query, class after class."""
    labels = jnp.arange(shape.way, dtype=jnp.int32)

    def flat(x: Array) -> Split:
        return Split(x.reshape(-1, *x.shape[2:]), jnp.repeat(labels, x.shape[1]))

    return Episode(flat(x[:, : shape.shot]), flat(x[:, shape.shot :]))


def normalised(pixels: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """(pixel / 255 − mean) / std of uint8 pixels [..., channels]."""
    # `float` is JAX's own precision, of the weights as well: float32 unless JAX_ENABLE_X64 is set.
    return (pixels.astype(float) / 255.0 - jnp.array(mean, float)) / jnp.array(std, float)


def unit_length(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Vectors scaled to length 1."""
    x = x.astype(float)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class FeatureTasks:
    """A family of N-way K-shot episodes of feature vectors. `unit` scales each vector to length 1, as LEO does.

    `sizes` has the number of examples of the smallest and of the largest class.
    """

    sizes: tuple[int, int]
    unit: bool = True

    def draw(self, features: Features, shape: EpisodeShape, key: PRNGKeyArray) -> Episode:
        """Draw an episode. Labels are positions in the drawn list of classes."""
        x = features.images[self.places(features.starts, shape, key)]
        return _episode(unit_length(x) if self.unit else x.astype(float), shape)

    def places(self, starts: Int[Array, " classes_1"], shape: EpisodeShape, key: PRNGKeyArray) -> Array:
        """The rows of an episode's examples [way, shot + query]."""
        for_classes, for_images = jax.random.split(key)
        return draw_places((for_classes, for_images), starts, self.sizes, shape)


@dataclass(frozen=True)
class ImageTasks:
    """A family of N-way K-shot episodes of images. `mean` and `std` are those of each channel, of pixels scaled to [0, 1].

    sizes: images of the smallest and the largest class. rotate: each class of an episode is turned by a random multiple of
    90° (Omniglot's training, as in the MAML++ code).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: tuple[int, int]
    rotate: bool = False

    def draw(self, pixels: Pixels, shape: EpisodeShape, key: PRNGKeyArray) -> Episode:
        """Draw an episode. Pixels are (pixel / 255 − mean) / std, and labels are positions in the drawn list of classes."""
        chosen = pixels.images[self.places(pixels.starts, shape, key)]
        return self.made(chosen, self.turns(shape, key), shape)

    def made(self, chosen: Array, turns: Array, shape: EpisodeShape) -> Episode:
        """The episode of pixels [way, shot + query, height, width, channels], each class turned by a multiple of 90°."""
        if self.rotate:
            quarter = [lambda c, k=k: jnp.rot90(c, k, axes=(1, 2)) for k in range(4)]
            chosen = jax.vmap(lambda c, turn: jax.lax.switch(turn, quarter, c))(chosen, turns)
        return _episode(normalised(chosen, self.mean, self.std), shape)

    def turns(self, shape: EpisodeShape, key: PRNGKeyArray) -> Int[Array, " way"]:
        """By how many times 90° each class is turned, where classes are."""
        return jax.random.randint(jax.random.split(key, 3)[2], (shape.way,), 0, 4)

    def places(self, starts: Int[Array, " classes_1"], shape: EpisodeShape, key: PRNGKeyArray) -> Array:
        """The rows of an episode's examples [way, shot + query]."""
        for_classes, for_images, _ = jax.random.split(key, 3)
        return draw_places((for_classes, for_images), starts, self.sizes, shape)


@dataclass(frozen=True)
class FeaturesBeside:
    """Episodes of features, scaled to length 1, of the very examples that `tasks` draws, which are pictures or other features."""

    tasks: ImageTasks | FeatureTasks

    def draw(self, features: Features, shape: EpisodeShape, key: PRNGKeyArray) -> Episode:
        """Draw an episode, whose examples are those that `tasks` draws for the key."""
        return _episode(unit_length(features.images[self.tasks.places(features.starts, shape, key)]), shape)


def class_split(images: np.ndarray, labels: np.ndarray) -> ClassSplit:
    """A split of a data set from your own arrays, sorted by class.

    Arguments:
        images: uint8 [n, height, width] or [n, height, width, channels].
        labels: [n], of any kind that sorts, such as integers or strings.

    Returns:
        A `ClassSplit` whose class i is `images[starts[i]:starts[i + 1]]`; the classes have the sorted labels as names.

    Raises:
        DataError: for images of another type or shape, or another number of labels.

    Example: see `on_device`.
    """
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(labels) or not len(images):
        raise DataError(
            f"images are {images.dtype}{list(images.shape)} with {counted(len(labels), 'label')}; "
            "expected uint8 [n, height, width, channels] and n labels."
        )
    names, numbers = np.unique(labels, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(len(names) + 1))
    return ClassSplit(images[order], starts, tuple(map(str, names)), ("",) * len(names))


def check_shape(split: ClassSplit, shape: EpisodeShape, name: str) -> None:
    """Raise DataError unless the split has enough classes, and every class has enough images."""
    counts = np.diff(split.starts)
    if shape.way > len(counts):
        raise DataError(
            f"{name} has {counted(len(counts), 'class')}, but a {shape.way}-way episode needs {shape.way}: lower --way."
        )
    need = shape.shot + shape.query
    small = [(one, count) for _, one, count in too_small({name: split}, need)]
    if small:
        named = ", ".join(f"{shown(one, 60)} ({count})" for one, count in small[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise DataError(
            f"{counted(len(small), 'class')} of {name} {'has' if len(small) == 1 else 'have'} fewer than the {need} examples "
            f"that {counted(shape.shot, 'shot')} and {counted(shape.query, 'query')} take: {named}{more}. Lower --shot, --query "
            f"or --eval-query, or prepare a folder again with --least {need}, which leaves such classes out."
        )


def sizes_of(split: ClassSplit) -> tuple[int, int]:
    """The number of examples of the smallest and of the largest class."""
    counts = np.diff(split.starts)
    return int(counts.min()), int(counts.max())


def on_device(
    split: ClassSplit, mean: tuple[float, ...], std: tuple[float, ...], rotate: bool
) -> tuple[ImageTasks, Pixels]:
    """The task family of a split of images, and its arrays, which are moved to the device once.

        x = (pixel / 255 − mean) / std

    Arguments:
        split: from `class_split`, or a split of a store.
        mean, std: for each channel, of pixels scaled to [0, 1].
        rotate: True turns each class of an episode by a random multiple of 90°, as MAML++'s code does in Omniglot's training.

    Returns:
        (tasks, source). `tasks.draw(source, shape, key)` gives an `Episode` with classes, and examples of each, drawn without
        replacement: `support.x` float32 [way · shot, height, width, channels], `support.y` int32 [way · shot], and the queries
        alike. It raises DataError where the split has too few classes or examples.

    Source: Baik et al. 2020, section 4.1.

    Example:
        >>> import jax, lethax
        >>> import numpy as np
        >>> images, labels = np.zeros((12, 16, 16, 1), np.uint8), np.repeat(["cat", "dog", "owl"], 4)
        >>> split = lethax.class_split(images, labels)
        >>> split.classes
        ('cat', 'dog', 'owl')
        >>> tasks, source = lethax.on_device(split, mean=(0.5,), std=(0.5,), rotate=False)
        >>> episode = tasks.draw(source, lethax.EpisodeShape(way=2, shot=1, query=3), jax.random.key(0))
        >>> episode.query.x.shape, episode.query.y.tolist()
        ((6, 16, 16, 1), [0, 0, 0, 1, 1, 1])
    """
    tasks = ImageTasks(tuple(mean), tuple(std), sizes_of(split), rotate)
    return tasks, Pixels(jnp.asarray(split.images), jnp.asarray(split.starts, jnp.int32))


def features_on_device(split: ClassSplit) -> tuple[FeatureTasks, Features]:
    """The task family of a split of features, and its arrays on the device; see `on_device`."""
    return FeatureTasks(sizes_of(split)), Features(jnp.asarray(split.images), jnp.asarray(split.starts, jnp.int32))
