"""From a recipe to what runs: the data, the learner, and how both go through the device."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lethax import control, methods, nets
from lethax.data import curves
from lethax.data.source import check_shape, features_on_device, on_device
from lethax.data.store import Store, open_store
from lethax.devices import TaskLoop, devices_for
from lethax.errors import DataError, RecipeError
from lethax.evaluate import Trial, episodes_hash, evaluate
from lethax.names import CONTROL, LOCOMOTION, REGRESSION
from lethax.nets.layers import ConvForm
from lethax.objectives import CrossEntropy, SquaredError
from lethax.outer import Plan
from lethax.recipe import Recipe, options
from lethax.records import EpisodeShape
from lethax.streams import Stream, stream
from lethax.text import counted, shown

_log = logging.getLogger("lethax")
CHUNK = 500  # outer steps in one compiled call where that is no slower than one


class Family(NamedTuple):
    """Tasks to draw from and their arrays on the device."""

    tasks: Any
    source: Any


def use_all_cores() -> None:
    """One host device per core, and a cache of compiled programs between processes; before anything else of JAX runs.

    Where the cache cannot be written, that is said once, and programs are compiled anew.
    """
    try:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    except RuntimeError:
        pass  # JAX already runs: it keeps the devices it has
    cache = Path(os.environ.get("LETHAX_CACHE") or Path.home() / ".cache" / "lethax") / "programs"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        why = f"{shown(cache)} cannot be written ({error.strerror})"
        _log.warning("%s: programs are compiled anew at every start; $LETHAX_CACHE names another folder.", why)
        return
    # A disk that fills up later costs the cache alone: not worth JAX's warning for every program.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def shape_of(recipe: Recipe, split: str = "train") -> EpisodeShape:
    """N, K, Q of a split's episodes."""
    assert recipe.way and recipe.shot and recipe.query and recipe.eval_query
    return EpisodeShape(recipe.way, recipe.shot, recipe.query if split == "train" else recipe.eval_query)


def family(recipe: Recipe, split: str) -> Family:
    """Tasks of a split ("train", "val", "test"); DataError where its classes do not allow the episode's shape."""
    if recipe.data in CONTROL:
        return Family(control.environment(recipe), ())
    if recipe.data in REGRESSION:
        tasks, training, evaluation = curves.family(recipe.data)
        return Family(tasks, evaluation if split == "test" else training)
    store = _checked_store(recipe, split)
    if store.features:
        return Family(*features_on_device(store.splits[split]))
    rotate = bool(recipe.rotate) and split == "train"
    return Family(*on_device(store.splits[split], store.mean, store.std, rotate))


def _checked_store(recipe: Recipe, split: str) -> Store:
    store = open_store(recipe.data)
    if split not in store.splits:
        raise DataError(
            f"{recipe.data} has no {split} split, only {', '.join(store.splits)}: prepare it again with one."
        )
    check_shape(store.splits[split], shape_of(recipe, split), f"{recipe.data}/{split}")
    return store


def check(recipe: Recipe) -> None:
    """An error, before a folder is made or anything compiles, where data, episodes and net of a resolved recipe do not fit."""
    if recipe.data not in (*REGRESSION, *CONTROL):
        for split in ("train", "val"):
            _checked_store(recipe, split)
    method = learner(recipe)
    jax.eval_shape(method.init, jax.random.key(0))
    gates = method.gate_names()
    if recipe.gate_fixed is not None and len(recipe.gate_fixed) != len(gates):
        expected = f"expected {len(gates)}, of {', '.join(gates)}" if gates else f"but {recipe.method} has none"
        raise RecipeError(f"gate_fixed has {counted(len(recipe.gate_fixed), 'gate')}, {expected}.")


def entry_of(recipe: Recipe) -> tuple[int, ...]:
    """The shape of a prepared example: (height, width, channels) of images, (entries,) of features."""
    return next(iter(open_store(recipe.data).splits.values())).images.shape[1:]


def net(recipe: Recipe) -> Any:
    """The network of a resolved recipe; an error where it does not fit the data."""
    form: ConvForm = "patches" if _lean(recipe) else "native"
    hidden = (recipe.filters or 40,) * (recipe.depth or 2)
    norm_steps = (recipe.inner_steps or 0) if recipe.per_step_norm else 0
    if recipe.data in REGRESSION:
        return nets.MLP(hidden=hidden, spread=recipe.spread or 0.0)
    entry = entry_of(recipe)
    if (len(entry) == 1) != (recipe.net == "mlp"):
        kind = (
            "features, which take --net mlp or --method leo"
            if len(entry) == 1
            else "images, which take conv4 or resnet12"
        )
        if recipe.method.startswith("leo") and len(entry) != 1:
            raise RecipeError(
                f"method '{recipe.method}' does not fit data '{recipe.data}': leo takes features, and it holds images: see "
                "lethax embed."
            )
        raise RecipeError(f"net '{recipe.net}' does not fit data '{recipe.data}': it holds {kind}.")
    way = recipe.way or 5
    if recipe.net == "mlp":
        return nets.MLP(entry[0], hidden, way, spread=recipe.spread or 0.0)
    height, channels = entry[0], entry[2]
    if recipe.net == "resnet12":
        variant: Any = recipe.preset
        return nets.ResNet12(way, channels, variant=variant, norm_steps=norm_steps, conv_form=form)
    if height < 16:
        raise DataError(f"images of {recipe.data} are {height} px; conv4 halves them four times and needs 16.")
    return nets.Conv4(way, height, channels, recipe.filters or 48, norm_steps=norm_steps, conv_form=form)


def learner(recipe: Recipe) -> Any:
    """The method of a resolved recipe."""
    if recipe.data in CONTROL:
        return control.learner(recipe)
    regression = recipe.data in REGRESSION
    return methods.build(
        recipe.method,
        net(recipe),
        rate=recipe.inner_rate or 0.0,
        rule=recipe.rule,
        modulation=recipe.modulation,
        proximity=recipe.proximity,
        attenuator=options(recipe, "gate_"),
        leo=options(recipe, "leo_"),
        objective=SquaredError() if regression else CrossEntropy(),
        steps=recipe.inner_steps,
        order=recipe.order,
        second_order_from=recipe.first_order_steps,
        norm=recipe.norm,
        inner_clamp=recipe.inner_clamp or 0.0,
        multi_step_until=recipe.multi_step_steps,
        multi_step_epoch=max((recipe.multi_step_steps or 0) // (recipe.multi_step_epochs or 1), 1),
        loop="scan" if _lean(recipe) and not regression else "unroll",
    )


def _lean(recipe: Recipe) -> bool:
    return recipe.memory == "lean" or not _on_cpu()


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _through(recipe: Recipe, tasks: int) -> tuple[TaskLoop, int]:
    """(how a device goes through its tasks, number of devices)."""
    if recipe.net == "mlp":
        return "vmap", 1
    if not _on_cpu():
        return "vmap", devices_for(tasks)
    return ("scan" if recipe.memory == "lean" else "unroll"), devices_for(tasks)


def plan(recipe: Recipe) -> Any:
    """The outer loop of a resolved recipe. A convolutional net on a CPU takes one step a call: see `layers.conv`."""
    if recipe.data in CONTROL:
        return control.plan(recipe)
    assert (
        recipe.steps
        and recipe.batch
        and recipe.epoch
        and recipe.outer_rate is not None
        and recipe.min_outer_rate is not None
    )
    tasks, devices = _through(recipe, recipe.batch)
    chunk = 1 if recipe.net != "mlp" and _on_cpu() else CHUNK
    while any(mark and mark % chunk for mark in (recipe.epoch, recipe.first_order_steps, recipe.multi_step_steps)):
        chunk -= 1
    stairs = max((recipe.full_steps or 1) // recipe.epoch, 1)  # the published run anneals once an epoch
    reduction: Any = recipe.reduction
    return Plan(
        shape_of(recipe), recipe.steps, recipe.batch, recipe.outer_rate, recipe.min_outer_rate, stairs, recipe.epoch,
        recipe.clamp or 0.0, recipe.clip_norm, recipe.clip_tensor_norm or 0.0, recipe.non_finite == "skip", reduction, tasks, chunk,
        devices,
    )  # fmt: skip


def shape_key(recipe: Recipe) -> Any:
    """Resolved recipes of equal keys can train together, in one program: those that differ in seed and ranges alone.

    None for images, whose nets fill the machine one run at a time, and for simulators of the host.
    """
    if recipe.data in LOCOMOTION:
        return None
    return (learner(recipe), plan(recipe), family(recipe, "train").tasks) if recipe.net == "mlp" else None


def judge(
    recipe: Recipe, split: str, metas: Sequence[Any], episodes: int, steps: int, key: Any, *, curve: bool = False
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yields (scores [n, steps + 1], or [n, 1] unless `curve`, {"gates": [n, L]}) of meta-parameters on fixed episodes.

    Several are an ensemble of mean outputs; in control, where outputs are drawn from, there can be one.
    """
    if recipe.data in CONTROL:
        if len(metas) > 1:
            raise RecipeError(f"an ensemble of {len(metas)} policies was asked for; control judges one: --ensemble 1.")
        return control.judge(recipe, metas[0], episodes, steps, key)
    how = trial(recipe, episodes, curve=curve, steps=steps)
    return evaluate(learner(recipe), metas, *family(recipe, split), how, key)


def hash_of(recipe: Recipe, split: str, episodes: int, key: Any) -> str:
    """16 digits that are equal where two evaluations have the same episodes."""
    if recipe.data in CONTROL:
        return control.tasks_hash(recipe, key, episodes)
    return episodes_hash(*family(recipe, split), shape_of(recipe, "test"), key, episodes)


def trial(recipe: Recipe, episodes: int, *, curve: bool = False, steps: int | None = None) -> Trial:
    """How a resolved recipe is evaluated."""
    together = len(jax.devices())
    if recipe.net == "mlp":
        together = 500 if recipe.data in REGRESSION else 20
    tasks, devices = _through(recipe, together)
    shape = shape_of(recipe, "test")
    inner = recipe.inner_steps if steps is None else steps
    assert inner is not None
    return Trial(shape, episodes, inner, curve, tasks, together, devices)


def validation_key(seed: int) -> Any:
    """Validation episodes are the same every epoch."""
    return stream(jax.random.key(seed), Stream.VALIDATION)


def test_key(seed: int) -> Any:
    """Test episode t is fold_in(test_key, t)."""
    return stream(jax.random.key(seed), Stream.TEST)
