"""Programs that predict without Lethax: one file of StableHLO, which any process that has JAX can load and call."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from lethax import __version__
from lethax.data.source import normalised
from lethax.domains.contract import Inputs
from lethax.errors import EnvironmentFault
from lethax.files import to_json, write_atomic
from lethax.nets.heads import HeadStart
from lethax.recipe import Resolved
from lethax.records import Split
from lethax.runs.adapted import Adapted, Norm, adapted_weights, for_classes, learner_of, predicted
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import Run

PLATFORMS = ("cpu", "cuda", "tpu")  # one file holds the program for each of them


class Program(NamedTuple):
    """A program as JAX exports it, and what somebody who calls it has to know.

    exported: a `jax.export.Exported`. about: its arguments and its result in words, the names of the classes if it has any, the
    mode of its batch norm, and the versions that it was made with.
    """

    exported: Any
    about: dict[str, Any]

    def save(self, path: Path) -> Path:
        """Write the program, and `about` as JSON beside it; return the path of the latter."""
        beside = path.with_name(f"{path.name}.json")
        write_atomic(path, bytes(self.exported.serialize()))
        write_atomic(beside, to_json(self.about) + "\n")
        return beside


def export_adapted(model: Adapted) -> Program:
    """Export what `Adapted.probabilities` computes: pictures uint8 [n, height, width, channels] to probabilities [n, classes].

    The adapted weights and the support pictures, whose moments batch norms use, are part of the program.
    """
    learner, inputs = learner_of(model.recipe, model.inputs), model.inputs

    def program(images: jax.Array) -> jax.Array:
        return predicted(learner, model.members, inputs.mean, inputs.std, model.support, images)

    about = {
        "arguments": [f"pictures: uint8 [{_sizes(inputs, 'n')}]"],
        "result": f"the probability of every class: float32 [n, {len(model.classes)}]",
        "classes": list(model.classes),
    }  # fmt: skip
    return _exported(program, [(_sizes(inputs, "n"), jnp.uint8)], {**about, **_settings(model.recipe)})


def export_run(
    run: Run, *, way: int | None = None, head: HeadStart | None = None, norm: Norm = "support", ensemble: int = 1
) -> Program:
    """Export adaptation and prediction as one program, for support sets that nobody has seen yet.

    It takes support pictures uint8 [s, height, width, channels], their classes int32 [s] from 0 to way − 1, and pictures uint8
    [n, height, width, channels], and gives probabilities [n, way]. Arguments are those of `adapt_run`; `way` is the number of
    classes, where it is not that of the run.

    Raises:
        RecipeError: if the run is not of pictures, or its method cannot predict this number of classes.
    """
    way = run.recipe.episode.way if way is None else way
    recipe, inputs = for_classes(run, way, head, norm)
    learner, metas = learner_of(recipe, inputs), best_metas(run, ensemble)[0]

    def program(support: jax.Array, labels: jax.Array, images: jax.Array) -> jax.Array:
        examples = Split(normalised(support, inputs.mean, inputs.std), labels)
        members = [adapted_weights(learner, meta, examples) for meta in metas]
        return predicted(learner, members, inputs.mean, inputs.std, support, images)

    about = {
        "arguments": [
            f"support pictures: uint8 [{_sizes(inputs, 's')}]",
            f"their classes: int32 [s], every number from 0 to {way - 1} at least once",
            f"pictures: uint8 [{_sizes(inputs, 'n')}]",
        ],
        "result": f"the probability of every class: float32 [n, {way}]",
    }  # fmt: skip
    of = [(_sizes(inputs, "s"), jnp.uint8), ("s", jnp.int32), (_sizes(inputs, "n"), jnp.uint8)]
    return _exported(program, of, {**about, **_settings(recipe)})


def _sizes(inputs: Inputs, count: str) -> str:
    """The sizes of an array of pictures, of which there may be any number: it is called `count`."""
    return ", ".join([count, *map(str, inputs.example)])


def _settings(recipe: Resolved) -> dict[str, Any]:
    return {
        "data": recipe.data, "method": recipe.method, "inner_steps": recipe.inner.steps, "norm": recipe.net.norm,
        "head": recipe.inner.head,
    }  # fmt: skip


def _exported(program: Callable[..., jax.Array], arguments: list[tuple[str, Any]], about: dict[str, Any]) -> Program:
    """Export a program for arguments of these sizes and types, and add to `about` what is the same of all programs.

    EnvironmentFault if flatbuffers is missing, the package that JAX writes programs with.
    """
    try:
        importlib.import_module("flatbuffers")
    except ImportError:
        raise EnvironmentFault(
            'lethax export needs the package flatbuffers, which is not installed: pip install "lethax[export]"'
        ) from None
    scope = export.SymbolicScope()  # in which one name is one size
    shapes = [jax.ShapeDtypeStruct(export.symbolic_shape(sizes, scope=scope), kind) for sizes, kind in arguments]
    made = export.export(jax.jit(program), platforms=PLATFORMS)(*shapes)
    return Program(made, {**about, "platforms": list(PLATFORMS), "lethax": __version__, "jax": jax.__version__})
