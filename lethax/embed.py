"""Train a backbone on the meta-training classes, or take one that is trained, and write its features of every split."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy

from lethax import nets, pretrain, pretrained
from lethax.data.feature_files import FeatureSplit
from lethax.data.origin import Origin
from lethax.data.store import ClassSplit, Store, open_store
from lethax.domains import images
from lethax.errors import DataError, RecipeError
from lethax.files import write_atomic
from lethax.pretrain import REFERENCE, Schooling
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import check_data, open_run
from lethax.runs.rivals import weights_alone
from lethax.text import shown

HELD_OUT = 10  # every tenth image of a class is not trained on, and says how well the backbone classifies

Progress = Callable[[float, float, str], None]  # done, total, note
Reading = Callable[
    [np.ndarray], Iterator[np.ndarray]
]  # pictures [n, height, width, channels] to parts of their features [n, d]


class Backbone(NamedTuple):
    """A network, its weights, and its accuracy (None for the network of a run)."""

    net: Any
    weights: Any
    accuracy: float | None

    def reading(self, store: Store) -> Reading:
        """How it makes features of pictures that are normalised as those of a data set are."""
        fixed, mean, std = reference_of(store), store.mean, store.std
        return lambda images: pretrain.read(self.net, self.weights, fixed, images, mean, std)


def _numbers(split: ClassSplit) -> np.ndarray:
    return np.repeat(np.arange(len(split.classes)), np.diff(split.starts))


def reference_of(store: Store) -> np.ndarray:
    """Training images, spread evenly over the classes, whose moments the norms use."""
    images = store.splits["train"].images
    return np.asarray(images[np.linspace(0, len(images) - 1, min(REFERENCE, len(images))).astype(int)])


def net_for(name: str, store: Store, filters: int) -> Any:
    """Make the backbone for all classes of the training split. RecipeError for a name that does not exist."""
    split = store.splits["train"]
    _, height, _, channels = split.images.shape
    if name == "conv4":
        return nets.Conv4(len(split.classes), height, channels, filters)
    if name == "resnet12":
        return nets.ResNet12(len(split.classes), channels)
    raise RecipeError(f"net is '{name}'; a backbone is conv4 or resnet12.")


def school(store: Store, net: Any, how: Schooling, seed: int, progress: Progress) -> Backbone:
    """Train a backbone, and measure its accuracy on images that were held out."""
    split = store.splits["train"]
    held = np.zeros(len(split.images), bool)
    for begin, end in zip(split.starts[:-1], split.starts[1:], strict=True):
        held[begin:end:HELD_OUT] = True
    labels, images = _numbers(split), np.asarray(split.images)
    pupil: Any = None
    steps = pretrain.fit_classes(net, how, images[~held], labels[~held], store.mean, store.std, jax.random.key(seed))
    for number, (pupil, loss) in enumerate(steps, 1):  # noqa: B007 (the last one is what stays)
        progress(number, how.steps, f"loss {float(loss):.3f}" if number % 20 == 0 else "")
    parts = pretrain.read(net, pupil.weights, reference_of(store), images[held], store.mean, store.std, head=True)
    right = np.argmax(np.concatenate(list(parts)), axis=1) == labels[held]
    return Backbone(net, pupil.weights, float(right.mean()))


def from_run(folder: Path) -> Backbone:
    """Take the network of the checkpoint of a run that is best by validation."""
    run = open_run(folder)
    check_data(run, "take another --backbone")
    if run.inputs is None or len(run.inputs.example) != 3:
        raise RecipeError(
            f"{shown(folder)} is a run on {run.recipe.data}, which are no images: take another --backbone."
        )
    net = images.DOMAIN.net(run.recipe, run.inputs)
    weights = weights_alone(net, best_metas(run, 1)[0][0])
    if weights is None:
        raise RecipeError(
            f"{shown(folder)} is of method {shown(run.recipe.method, 60)}, whose weights are not those of a network alone: take "
            "another --backbone."
        )
    return Backbone(net, weights, None)


def origin_of(store: Store, embedder: pretrained.Embedder) -> Origin:
    """What is kept of a pretrained backbone beside the features that it makes of a data set. DataError for other channels."""
    height, width, channels = next(iter(store.splits.values())).images.shape[1:]
    if channels not in (1, 3):
        raise DataError(f"{store.name} has pictures of {channels} channels; {embedder.name} reads 3, or 1 of gray.")
    return Origin(embedder.name, embedder.size, (height, width, channels), store.identity)


def features_of(store: Store, read: Reading, progress: Progress) -> dict[str, FeatureSplit]:
    """Compute the features of every split, with the names of its classes."""
    found, done = {}, 0
    total = sum(len(split.images) for split in store.splits.values())
    for name, split in store.splits.items():
        parts = []
        for part in read(split.images):
            parts.append(part)
            done += len(part)
            progress(done, total, name)
        found[name] = FeatureSplit(np.concatenate(parts), _numbers(split), split.classes)
    return found


def write(path: Path, splits: dict[str, FeatureSplit], origin: Origin | None = None) -> None:
    """Write SPLIT/features and SPLIT/labels, and the names of the classes and the origin as JSON metadata."""
    arrays: dict[str, np.ndarray] = {}
    classes: dict[str, list[str]] = {}
    for name, split in splits.items():
        arrays |= {f"{name}/features": split.features, f"{name}/labels": split.numbers.astype(np.int64)}
        classes[name] = list(split.names)
    metadata = {"classes": json.dumps(classes)} | ({"origin": json.dumps(origin.record())} if origin else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, safetensors.numpy.save(arrays, metadata))


def images_of(name: str, trains: bool = True) -> Store:
    """Open a store of images, which has a training split if a network `trains` on it. DataError otherwise."""
    store = open_store(name)
    if store.features or trains and "train" not in store.splits:
        raise DataError(
            f"{name} holds {'features' if store.features else 'no training split'}; embed reads images to train on."
        )
    return store
