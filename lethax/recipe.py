"""A recipe: every value of an experiment that matters, in one flat, typed record that reads and writes TOML.

Fields left out are filled by `resolve` from the presets of the data set and the method, so a stored recipe is complete.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lethax import toml
from lethax.errors import RecipeError, did_you_mean

REGRESSION = ("sinusoid", "sinusoid_shift", "sinusoid_maml", "sinusoid_reptile")
NETS = ("conv4", "resnet12", "mlp")
_CHOICES: dict[str, tuple[str, ...]] = {
    "net": NETS,
    "preset": ("code", "paper"),
    "reduction": ("sum", "mean"),
    "norm": ("batch", "support", "support+1"),
    "memory": ("fast", "lean"),
    "gate_scope": ("network", "layer", "tensor", "filter", "parameter"),
    "gate_activation": ("sigmoid", "identity", "twice_sigmoid"),
    "gate_embedding": ("mean", "mean_abs", "norm"),
}


def _f(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """None stands for "as the preset says"; `resolve` leaves none."""

    data: str = _f("sinusoid", "a prepared data set, or a sinusoid family")
    method: str = _f("l2f", "maml, l2f, fomaml, metasgd, anil, boil, or one of them +l2f")
    net: str | None = _f(None, "conv4, resnet12 or mlp")
    preset: str = _f("code", "where paper and released code differ: code or paper")
    way: int | None = _f(None, "classes an episode")
    shot: int = _f(5, "support examples a class")
    query: int | None = _f(None, "query examples a class")
    batch: int | None = _f(None, "episodes an outer step")
    steps: int | None = _f(None, "outer steps")
    full_steps: int | None = _f(
        None, "outer steps of the published budget; the schedule scales with steps / full_steps"
    )
    seed: int = _f(0, "of weights and episodes")
    inner_steps: int | None = _f(None, "inner steps, in training and evaluation")
    inner_rate: float = _f(0.01, "inner step size")
    order: int = _f(2, "derivative through the inner loop: 1 or 2")
    first_order_steps: int | None = _f(None, "outer steps of first order before the second")
    filters: int | None = _f(None, "width of conv4")
    norm: str = _f("batch", "whose moments batch norm uses for queries: batch, support or support+1")
    outer_rate: float = _f(1e-3, "Adam's rate")
    min_outer_rate: float | None = _f(None, "Adam's rate at the end of a cosine; outer_rate keeps it constant")
    clamp: float | None = _f(None, "bound on the weights' meta-gradients, 0 for none")
    reduction: str = _f("sum", "of the meta-batch: sum or mean")
    rotate: bool | None = _f(None, "turn the classes of training episodes by multiples of 90 degrees")
    epoch: int = _f(500, "outer steps between validations")
    val_episodes: int | None = _f(None, "fixed episodes a validation")
    keep: int = _f(3, "best checkpoints kept by validation score")
    memory: str = _f("fast", "fast: unrolled loops; lean: memory flat in inner steps and tasks")
    gate_scope: str = _f("tensor", "what shares a gate: network, layer, tensor, filter or parameter")
    gate_activation: str = _f("sigmoid", "sigmoid, identity or twice_sigmoid")
    gate_fixed: tuple[float, ...] | None = _f(None, "gates given by hand")
    gate_task_dependent: bool = _f(True, "false: one learned vector of gates for all tasks")
    gate_embedding: str = _f("mean", "what of a gradient is read: mean, mean_abs or norm")
    gate_embedding_scale: float = _f(1.0, "factor on what is read")
    gate_detached: bool = _f(True, "false: differentiate through the gradient that is read")
    gate_layers: int = _f(2, "linear layers of the attenuator: 2 (code) or 3")
    gate_exclude_head: bool = _f(False, "the last layer keeps gate 1")
    gate_every_step: bool = _f(False, "attenuate before every inner step")
    gate_bias_init: float = _f(0.0, "added to the attenuator's last bias")


def load(path: Path) -> Recipe:
    """A recipe from TOML; RecipeError names an unknown key and the nearest known one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}.") from None
    return toml.parse(Recipe, text, str(path))


def _presets(recipe: Recipe) -> dict[str, Any]:
    """Values for the fields that are None; methods.md's tables 2.1, 2.2 and 2.8 in one place."""
    shape = {"way": 1, "query": 10} if recipe.data in REGRESSION else {"way": 5, "query": 15}
    if recipe.data in REGRESSION:
        return shape | {
            "net": "mlp", "batch": 4, "full_steps": 50_000, "inner_steps": 1, "first_order_steps": 0, "filters": 40,
            "clamp": 0.0, "min_outer_rate": recipe.outer_rate, "rotate": False, "val_episodes": 600,
        }  # fmt: skip
    net = recipe.net or "conv4"
    omniglot = recipe.data.startswith("omniglot")
    imagenet = "imagenet" in recipe.data
    l2f_budget = 30_000 if recipe.preset == "code" and "l2f" in recipe.method and imagenet else 50_000
    small = 1 if net == "resnet12" else (4 if recipe.shot == 1 else 2)
    return shape | {
        "net": net,
        "query": 1 if omniglot else 15,
        "batch": 8 if omniglot else small,
        "full_steps": 125_000 if recipe.data.startswith("tiered") else l2f_budget,
        "inner_steps": 5,
        "first_order_steps": 5_500 if recipe.preset == "code" and not omniglot else 0,
        "filters": 64 if recipe.preset == "paper" or omniglot else 48,
        "clamp": 10.0 if imagenet else 0.0,
        "min_outer_rate": 1e-5 if omniglot else recipe.outer_rate,
        "rotate": omniglot,
        "val_episodes": 600,
    }


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every None filled in and every value checked; RecipeError otherwise.

    A budget below the published one scales the first-order phase in proportion.
    """
    values = _presets(recipe)
    filled = replace(recipe, **{name: value for name, value in values.items() if getattr(recipe, name) is None})
    steps = filled.steps if filled.steps is not None else filled.full_steps
    assert steps is not None and filled.full_steps is not None
    if recipe.first_order_steps is None:
        share = min(steps / filled.full_steps, 1.0)
        filled = replace(filled, first_order_steps=round(values["first_order_steps"] * share))
    filled = replace(filled, steps=steps)
    check(filled)
    return filled


def check(recipe: Recipe) -> None:
    """RecipeError naming the first value that cannot be."""
    for name, known in _CHOICES.items():
        value = getattr(recipe, name)
        if value is not None and value not in known:
            raise RecipeError(f"{name} is '{value}'.{did_you_mean(value, known)} Expected one of: {', '.join(known)}.")
    for name in ("way", "shot", "query", "batch", "steps", "epoch", "keep", "filters", "val_episodes"):
        if getattr(recipe, name) < 1:
            raise RecipeError(f"{name} is {getattr(recipe, name)}; it has to be at least 1.")
    if recipe.inner_steps is None or recipe.inner_steps < 0:
        raise RecipeError(f"inner_steps is {recipe.inner_steps}; it has to be at least 0.")
    if recipe.order not in (1, 2):
        raise RecipeError(f"order is {recipe.order}; it has to be 1 or 2.")
    if recipe.gate_layers not in (2, 3):
        raise RecipeError(f"gate_layers is {recipe.gate_layers}; it has to be 2 or 3.")
    if (recipe.net == "mlp") != (recipe.data in REGRESSION):
        raise RecipeError(
            f"net '{recipe.net}' does not fit data '{recipe.data}': sinusoids take mlp, images conv4 or resnet12."
        )


def attenuator_options(recipe: Recipe) -> dict[str, Any]:
    """The `gate_…` fields under the attenuator's own names."""
    return {f.name.removeprefix("gate_"): getattr(recipe, f.name) for f in fields(recipe) if f.name.startswith("gate_")}
