"""Programs that predict without Lethax: StableHLO, which any process that has JAX can load and call, or ONNX."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lethax import __version__, native
from lethax.data.source import normalised
from lethax.domains.contract import Inputs
from lethax.errors import EnvironmentFault, RecipeError, RunError
from lethax.files import to_json, write_together
from lethax.methods.fast import NormMode
from lethax.nets.heads import HeadStart
from lethax.recipe import Resolved
from lethax.records import Split
from lethax.runs.adapted import Adapted, adapted_weights, for_classes, learner_of, predicted
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import Run
from lethax.text import shown

PLATFORMS = ("cpu", "cuda", "tpu")  # a file of StableHLO holds the program for each of them
ONNX = ".onnx"


class Program(NamedTuple):
    """A program that predicts, and what somebody who calls it has to know.

    function: what it computes. sizes: the shape and the type of every argument, in which numbers of pictures are symbols. about:
    its arguments and its result in words, the names of the classes if it has any, the mode of its batch norm, and the versions that
    it was made with.
    """

    function: Callable[..., jax.Array]
    sizes: list[jax.ShapeDtypeStruct]
    about: dict[str, Any]

    def save(self, path: Path) -> Path:
        """Write the program, and `about` as JSON beside it; return the path of the latter.

        A path that ends in .onnx is written as ONNX, any other as StableHLO for all PLATFORMS. EnvironmentFault if the package is
        missing that writes such a file: see `check_place`.
        """
        check_place(path)
        beside, content = _beside(path), self._onnx() if path.suffix == ONNX else self._stablehlo()
        write_together({path: content, beside: to_json(self.about) + "\n"})
        return beside

    def _stablehlo(self) -> bytes:
        with native.off():
            return bytes(export.export(jax.jit(self.function), platforms=PLATFORMS)(*self.sizes).serialize())

    def _onnx(self) -> bytes:
        """Convert, and compare: the converter is young, and takes the end of some slices of symbolic size for their start."""

        def one_by_one(images: jax.Array) -> jax.Array:  # in which no slice has a symbolic size
            return jax.lax.map(lambda image: self.function(image[None])[0], images)

        with native.off():
            model = importlib.import_module("jax2onnx").to_onnx(one_by_one, inputs=self.sizes, model_name="lethax")
        blob = bytes(model.SerializeToString())
        session = importlib.import_module("onnxruntime").InferenceSession(blob)
        images = np.random.default_rng(0).integers(0, 256, (3, *self.sizes[0].shape[1:])).astype(np.uint8)
        (found,) = session.run(None, {session.get_inputs()[0].name: images})
        expected = np.asarray(jax.jit(self.function)(images))
        if found.shape != expected.shape or np.abs(found - expected).max() > 1e-4:
            raise EnvironmentFault("jax2onnx made a program that predicts something else: write .stablehlo instead.")
        return blob


def _beside(path: Path) -> Path:
    """The file that says what a program takes and gives."""
    return path.with_name(f"{path.name}.json")


def check_place(path: Path) -> None:
    """Raise RunError if what stands beside a program cannot be written, before the program is.

    EnvironmentFault if the package is missing that writes such a file: jax2onnx for .onnx, else flatbuffers.
    """
    if (beside := _beside(path)).exists() and not beside.is_file():
        raise RunError(f"{shown(beside)} is a folder or a device, and a file is written there: name another --out.")
    package, extra = ("jax2onnx", "onnx") if path.suffix == ONNX else ("flatbuffers", "export")
    try:
        importlib.import_module(package)
    except ImportError:
        raise EnvironmentFault(
            f'to write {shown(path)}, lethax export needs the package {package}: pip install "lethax[{extra}]"'
        ) from None


def export_adapted(model: Adapted) -> Program:
    """Export what `Adapted.probabilities` computes: pictures uint8 [n, height, width, channels] to probabilities [n, classes].

    The adapted weights and the support pictures, whose moments batch norms use, are part of the program.
    """
    learner, inputs = learner_of(model.recipe, model.inputs), _of_pictures(model.inputs)

    def program(images: jax.Array) -> jax.Array:
        made = predicted(learner, model.members, inputs.mean, inputs.std, model.support, images)
        return made.astype(jnp.float32)

    about = {
        "arguments": [f"pictures: uint8 [{_sizes(inputs, 'n')}]"],
        "result": f"the probability of every class: float32 [n, {len(model.classes)}]",
        "classes": list(model.classes),
    }  # fmt: skip
    return _exported(program, [(_sizes(inputs, "n"), jnp.uint8)], {**about, **_settings(model.recipe, inputs)})


def export_run(
    run: Run, *, way: int | None = None, head: HeadStart | None = None, norm: NormMode | None = None, ensemble: int = 1
) -> Program:
    """Export adaptation and prediction as one program, for support sets that nobody has seen yet.

    It takes support pictures uint8 [s, height, width, channels], their classes int32 [s] from 0 to way − 1, and pictures uint8
    [n, height, width, channels], and gives probabilities [n, way]. Arguments are those of `adapt_run`; `way` is the number of
    classes, where it is not that of the run.

    Raises:
        RecipeError: if the run is not of pictures, its method cannot predict this number of classes, or a `norm` is given for a
            network that has none.
    """
    if run.inputs is None or not run.inputs.pictures:
        raise RecipeError(
            f"{shown(run.folder)} is a run of {run.recipe.method} on {run.recipe.data}; export takes runs on pictures."
        )
    way = run.recipe.episode.way if way is None else way
    if way < 1:
        raise RecipeError(
            f"{shown(run.folder)} was trained on episodes of any number of classes: name theirs with --way."
        )
    recipe, inputs = for_classes(run, way, head, norm)
    _of_pictures(inputs)
    learner, metas = learner_of(recipe, inputs), best_metas(run, ensemble)[0]

    def program(support: jax.Array, labels: jax.Array, images: jax.Array) -> jax.Array:
        examples = Split(normalised(support, inputs.mean, inputs.std), labels)
        members = [adapted_weights(learner, meta, examples) for meta in metas]
        return predicted(learner, members, inputs.mean, inputs.std, support, images).astype(jnp.float32)

    about = {
        "arguments": [
            f"support pictures: uint8 [{_sizes(inputs, 's')}]",
            f"their classes: int32 [s], every number from 0 to {way - 1} at least once",
            f"pictures: uint8 [{_sizes(inputs, 'n')}]",
        ],
        "result": f"the probability of every class: float32 [n, {way}]",
    }  # fmt: skip
    of = [(_sizes(inputs, "s"), jnp.uint8), ("s", jnp.int32), (_sizes(inputs, "n"), jnp.uint8)]
    return _exported(program, of, {**about, **_settings(recipe, inputs)})


def _of_pictures(inputs: Inputs) -> Inputs:
    """RecipeError for a model that reads features, whose backbone is no part of the program."""
    if inputs.origin is not None:
        raise RecipeError(
            f"export takes runs and models that read pictures; this one reads features of {inputs.origin.backbone}, which are "
            "predicted by lethax predict."
        )
    return inputs


def _sizes(inputs: Inputs, count: str) -> str:
    """The sizes of an array of pictures, of which there may be any number: it is called `count`."""
    return ", ".join([count, *map(str, inputs.example)])


def _settings(recipe: Resolved, inputs: Inputs) -> dict[str, Any]:
    size, _, channels = inputs.example
    colours = "gray" if channels == 1 else "RGB"
    return {
        "pictures": f"turned as their orientation tag says, white where they are transparent, in {colours}, the square in their "
        f"middle, scaled to {size} x {size} by Pillow's bicubic filter with reducing_gap=3.0",
        "data": recipe.data, "method": recipe.method, "inner_steps": recipe.inner.steps, "norm": recipe.net.norm,
        "head": recipe.inner.head,
    }  # fmt: skip


def _exported(function: Callable[..., jax.Array], arguments: list[tuple[str, Any]], about: dict[str, Any]) -> Program:
    """The program of a function for arguments of these sizes and types; `about` gets what is the same of all programs."""
    scope = export.SymbolicScope()  # in which one name is one size
    sizes = [jax.ShapeDtypeStruct(export.symbolic_shape(size, scope=scope), kind) for size, kind in arguments]
    return Program(function, sizes, {**about, "lethax": __version__, "jax": jax.__version__})
