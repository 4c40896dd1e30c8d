"""A trained run adapted to classes of one's own: probabilities for pictures, and one file that holds all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lethax import checkpoint, pretrained
from lethax.data.loose import Labelled, Pictures, pictures
from lethax.data.source import normalised, unit_length
from lethax.devices import in_calls
from lethax.domains import domain_of
from lethax.domains.contract import Inputs, read_inputs
from lethax.errors import CheckpointError, DataError, DivergedError, RecipeError
from lethax.learner import Traceable
from lethax.methods.fast import Fast, NormMode
from lethax.nets.heads import HeadStart
from lethax.recipe import Recipe, Resolved
from lethax.recipe.resolve import resolve
from lethax.records import Split
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import Run
from lethax.text import counted, shown

_FORMAT = 1


@dataclass(frozen=True)
class Adapted:
    """A model of the classes of one support set.

    Under the norm modes "support" and "support+1" the probabilities of a picture depend on no other picture that is predicted.

    recipe, inputs: of the run, with the number of classes and the norm mode of this model. classes: their names. support: what it
    was adapted to, pictures uint8 [n, height, width, channels], whose moments batch norms use, or features float32 [n, d].
    members: the adapted weights of each checkpoint of the ensemble.
    """

    recipe: Resolved
    inputs: Inputs
    classes: tuple[str, ...]
    support: np.ndarray
    members: tuple[Any, ...]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Compute the probability of every class [n, classes] of pictures, uint8 [n, height, width, channels].

        It is the softmax of the outputs' mean over the ensemble. DataError for pictures of another shape, DivergedError if an
        output is not a finite number.
        """
        images = np.asarray(images)
        if images.shape[1:] != self.inputs.pictures or images.dtype != np.uint8:
            reads = ", ".join(map(str, self.inputs.pictures))
            raise DataError(f"pictures are {images.dtype}{list(images.shape)}; this model reads uint8 [n, {reads}].")
        learner, read = learner_of(self.recipe, self.inputs), _read(self.inputs, images)
        together = self.recipe.net.norm == "batch" and has_norms(self.recipe)  # all of them make the moments
        size = max(len(read), 1) if together else pretrained.AT_ONCE
        made = partial(predicted, learner, self.members, self.inputs.mean, self.inputs.std, self.support)
        nothing = np.zeros((0, len(self.classes)), np.float32)
        probabilities = np.concatenate([nothing, *in_calls(made, read, size)])
        if lost := int((~np.isfinite(probabilities)).any(axis=1).sum()):
            raise DivergedError(
                f"of {counted(len(read), 'prediction')} {lost} are not numbers: the run diverged, or its files were changed. "
                "Train or adapt it anew."
            )
        return probabilities

    def pictures(self, source: Path | str) -> Pictures:
        """Read the pictures of a folder or an archive in the size and the channels of this model, as `probabilities` takes them.

        DataError if there is none.
        """
        return pictures(Path(source), self.inputs.pictures, lambda *_: None)

    def save(self, path: Path | str) -> None:
        """Write the model to one safetensors file, atomically. It holds the support, and no other training data."""
        recipe = self.recipe.recipe
        info = {
            "adapted": _FORMAT, "classes": list(self.classes), "inputs": self.inputs.record(), "members": len(self.members),
            "pictures": len(self.support),
            "recipe": {
                "data": recipe.data, "method": recipe.method, "preset": recipe.preset, "seed": recipe.seed, "memory": recipe.memory,
                "given": dict(recipe.given),
            },
        }  # fmt: skip
        checkpoint.save(Path(path), {"members": list(self.members), "support": self.support}, info)


def check(run: Run) -> Inputs:
    """What the run knows of its data. RecipeError if it reads neither pictures nor features that a pretrained backbone makes."""
    if run.inputs is None or not run.inputs.pictures:
        raise RecipeError(
            f"{shown(run.folder)} is a run of {run.recipe.method} on {run.recipe.data}; predict takes runs on pictures, and on "
            "features that lethax embed made of pictures by a pretrained backbone."
        )
    return run.inputs


def adapt_run(
    run: Run, examples: Labelled, *, head: HeadStart | None = None, norm: NormMode | None = None, ensemble: int = 1
) -> Adapted:
    """Adapt the best checkpoints of a run to the classes of `examples`, of which each may have another number of pictures.

    Arguments:
        run: a trained run on pictures. The data set that it was trained on is not needed.
        examples: the pictures of the new classes, in the run's size.
        head: where the last layer begins, see `nets.heads`; None as in training.
        norm: whose moments batch norms use for the pictures that are predicted: those of the support pictures ("support", which
            is meant unless another is given), of these and the one picture ("support+1"), or of all pictures that are predicted at
            once ("batch", which is how methods are evaluated, and makes a prediction depend on the others).
        ensemble: the number of best checkpoints whose outputs are averaged.

    Raises:
        RecipeError: if the run is not of pictures, its method cannot predict these classes, or a `norm` is given for a network
            that has none.
    """
    recipe, inputs = for_classes(run, len(examples.classes), head, norm)
    learner = learner_of(recipe, inputs)
    if not isinstance(learner, Traceable) and len(set(examples.counts())) > 1:
        raise RecipeError(
            f"{run.recipe.method} takes as many pictures of every class, and there are {min(examples.counts())} to "
            f"{max(examples.counts())}: leave some out."
        )
    read = _read(inputs, examples.images)
    support = Split(_entries(jnp.asarray(read), inputs.mean, inputs.std), jnp.asarray(examples.labels))
    members = [adapted_weights(learner, meta, support) for meta in best_metas(run, ensemble)[0]]
    return Adapted(recipe, inputs, examples.classes, read, tuple(members))


def for_classes(run: Run, way: int, head: HeadStart | None, norm: NormMode | None) -> tuple[Resolved, Inputs]:
    """The recipe of a run for another number of classes and mode of batch norm, and what the run knows of its data.

    head: where the last layer starts; None as in training. norm: None for "support". RecipeError for one that is given where the
    network has no batch norm.
    """
    inputs = check(run)
    if norm is not None and not has_norms(run.recipe):
        raise RecipeError(
            f"--norm is {norm}, but the network of {shown(run.folder)} has no batch norm: leave --norm out."
        )
    values = {
        "way": way,
        **({} if head is None else {"head": head}),
        **({"norm": norm or "support"} if has_norms(run.recipe) else {}),
    }
    return resolve(run.recipe.with_values(**values)), inputs


def has_norms(recipe: Resolved) -> bool:
    """Whether the network of a run has batch norms."""
    return "net.norm" in recipe.used


def _read(inputs: Inputs, images: np.ndarray) -> np.ndarray:
    """What a run's learner is given of pictures: themselves, or their features of length 1, float32."""
    if inputs.origin is None:
        return images
    return np.asarray(unit_length(jnp.asarray(pretrained.of_origin(inputs.origin).features(images))), np.float32)


def _entries(read: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Normalise pictures, and leave features as they are."""
    return normalised(read, mean, std) if mean else read


def load_adapted(path: Path | str) -> Adapted:
    """Read a model that `Adapted.save` wrote. Nothing in the file is run. CheckpointError if it is damaged or something else."""
    path = Path(path)
    try:
        info = checkpoint.read_info(path)
    except CheckpointError as error:
        why = str(error).partition(";")[0]
        raise CheckpointError(f"{why}: name a model that lethax predict --save wrote.") from None
    try:
        if info.get("adapted") != _FORMAT:
            raise ValueError(f"its format is {shown(info.get('adapted'), 40)}, expected {_FORMAT}")
        made, known = info["recipe"], info["inputs"]
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in made.pop("given").items()}
        recipe = resolve(Recipe(**made, given=given))
        inputs = read_inputs(known)
        classes = tuple(info["classes"])
        way = recipe.episode.way
        if len(set(classes)) != way or len(classes) != way or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"its classes are not {way} different names")
        if not inputs.pictures:
            raise ValueError(f"it reads {shown(list(inputs.example), 60)}, which are no pictures")
        learner = learner_of(recipe, inputs)
        count, shots = int(info["members"]), int(info["pictures"])
        if not (0 < count <= 1000 and 0 < shots <= 1_000_000):
            raise ValueError(f"it has {count} members and {shots} pictures")
        weights = jax.eval_shape(lambda: _shape_of_weights(learner, inputs, shots))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecipeError, DataError) as error:
        raise CheckpointError(
            f"{shown(path)} is no adapted model ({error}): write one with lethax predict --save."
        ) from None
    kept = jax.ShapeDtypeStruct((shots, *inputs.example), np.float32 if inputs.origin else np.uint8)
    like: dict[str, Any] = {"members": [weights] * count, "support": kept}
    tree, _ = checkpoint.load(path, like)
    return Adapted(recipe, inputs, classes, np.asarray(tree["support"]), tuple(tree["members"]))


def unsure(probabilities: np.ndarray, margin: float) -> np.ndarray:
    """Whether the two largest probabilities of each row differ by less than a margin."""
    top = np.sort(probabilities, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0] < margin


def learner_of(recipe: Resolved, inputs: Inputs) -> Any:
    """The learner whose weights an adapted model has."""
    return domain_of(recipe).learner(recipe, inputs)


def _shape_of_weights(learner: Any, inputs: Inputs, shots: int) -> Any:
    support = Split(jnp.zeros((shots, *inputs.example)), jnp.zeros(shots, jnp.int32))
    return _weights(learner.adapt(learner.init(jax.random.key(0)), support)[0])


def _weights(fast: Any) -> Any:
    """What is kept of an adapted model. A `Fast` is made again of its weights; LEO's is its classifier."""
    return fast.weights if isinstance(fast, Fast) else fast


@partial(jax.jit, static_argnums=0)
def adapted_weights(learner: Any, meta: Any, support: Split) -> Any:
    """The weights after adaptation of one checkpoint's meta-parameters, whose head may have another number of classes."""
    fast, _ = learner.adapt(meta, support)
    return _weights(fast)


@partial(jax.jit, static_argnums=(0, 2, 3))
def predicted(
    learner: Any, members: Sequence[Any], mean: tuple[float, ...], std: tuple[float, ...], support: Array, images: Array
) -> Array:
    """The probabilities [n, classes] of pictures, uint8, or features, after the support: of the mean of the members' outputs."""
    seen = Split(_entries(support, mean, std), None)
    x = _entries(images, mean, std)
    step = max(learner.steps - 1, 0)
    models = [Fast(weights, step, seen) if isinstance(learner, Traceable) else weights for weights in members]
    outputs = [learner.predict(model, x) for model in models]
    return jax.nn.softmax(sum(outputs[1:], start=outputs[0]) / len(outputs))
