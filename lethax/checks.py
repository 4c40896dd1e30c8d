"""What a recipe's values can be: each by itself, and together. A RecipeError names the first that cannot."""

import re
from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING, Any

from lethax.errors import RecipeError, did_you_mean
from lethax.names import CONTROL, DATA_NAME, REGRESSION
from lethax.text import shown

if TYPE_CHECKING:
    from lethax.recipe import Recipe

NETS = ("conv4", "resnet12", "mlp")
_CHOICES: dict[str, tuple[str, ...]] = {
    "net": NETS,
    "preset": ("code", "paper"),
    "reduction": ("sum", "mean"),
    "rule": ("sgd", "sign", "metasgd", "lslr", "alfa"),
    "modulation": ("film", "sigmoid", "softmax"),
    "non_finite": ("stop", "skip"),
    "norm": ("batch", "support", "support+1"),
    "leo_sigma": ("code", "softplus"),
    "memory": ("fast", "lean"),
    "gate_scope": ("network", "layer", "tensor", "filter", "parameter"),
    "gate_activation": ("sigmoid", "identity", "twice_sigmoid"),
    "gate_embedding": ("mean", "mean_abs", "norm"),
    "rl_actions": ("normalized", "raw"),
    "rl_activation": ("relu", "tanh"),
    "rl_loss": ("log", "ratio", "importance"),
    "rl_physics": ("gym", "rllab"),
    "rl_starts": ("task", "rollout"),
}

_LARGEST = 2**31  # no count of a recipe comes near, and the arrays on the device count in 32 bits
_SEEDS = 2**32  # of JAX's keys, which leave out what a seed has beyond 32 bits

_POSITIVE = (
    "way", "shot", "query", "eval_query", "batch", "full_steps", "steps", "epoch", "keep", "filters", "depth", "val_episodes",
    "multi_step_epochs",
)  # fmt: skip
_AT_LEAST_0 = (
    "inner_rate", "outer_rate", "min_outer_rate", "inner_clamp", "clamp", "clip_norm", "clip_tensor_norm", "spread", "rl_limit",
    "rl_horizon", "rl_action_scale", "leo_dropout", "leo_kl", "leo_penalty", "leo_l2", "leo_orthogonality",
)  # fmt: skip
# A program grows with these where its loops are written out, and what is beyond compiles without an end in sight.
_MOST = {"depth": 100, "inner_steps": 1000, "filters": 100_000, "batch": 100_000, "keep": 1000}
_CONTROL_METHODS = ("maml", "fomaml", "sign_maml", "metasgd", "anil", "boil", "alfa")
_CONTROL_RANGES = (
    ("rl_horizon", 1, 100_000), ("rl_discount", 0, 1), ("rl_smoothing", 0, 1), ("rl_later_rate", 0, 1), ("rl_max_kl", 1e-8, 10),
    ("rl_cg_iterations", 1, 1000), ("rl_cg_share", 1e-3, 1), ("rl_damping", 0, 10), ("rl_backtrack", 0.01, 0.99),
    ("rl_backtracks", 1, 100),
)  # fmt: skip


def check(recipe: "Recipe") -> None:
    """RecipeError naming the first value that cannot be."""
    from lethax.methods import METHODS  # not at the top: it imports JAX, which `lethax --help` does not wait for

    if not re.fullmatch(DATA_NAME, recipe.data):
        raise RecipeError(
            f"data is '{shown(recipe.data, 60)}'; the name of a data set has lower-case letters, digits, - and _ alone."
        )
    if recipe.method == "cavia+l2f":
        raise RecipeError(
            "method 'cavia+l2f' cannot be: cavia moves a context that starts at 0, and 0 stays 0 under any gate."
        )
    if recipe.method not in METHODS:
        raise RecipeError(
            f"no method is called '{shown(recipe.method, 60)}'.{did_you_mean(recipe.method, METHODS)} Methods: "
            f"{', '.join(METHODS)}."
        )
    check_sizes(recipe)
    _check_ranges(recipe)
    for name, known in _CHOICES.items():
        value = getattr(recipe, name)
        if value is not None and value not in known:
            raise RecipeError(
                f"{name} is '{shown(value, 60)}'.{did_you_mean(value, known)} Expected one of: {', '.join(known)}."
            )
    if recipe.order not in (1, 2):
        raise RecipeError(f"order is {recipe.order}; it has to be 1 or 2.")
    if recipe.multi_step_steps and recipe.multi_step_steps % recipe.multi_step_epochs:  # type: ignore[operator]
        raise RecipeError(
            f"multi_step_steps is {recipe.multi_step_steps}; it has to be a multiple of the {recipe.multi_step_epochs} "
            "multi_step_epochs."
        )
    _check_method(recipe)
    if recipe.data in CONTROL:
        _check_control(recipe)
    if recipe.data in REGRESSION and recipe.method.startswith("leo"):
        raise RecipeError(
            f"method '{recipe.method}' does not fit data '{recipe.data}': leo takes features, see lethax embed."
        )
    if recipe.gate_layers not in (2, 3):
        raise RecipeError(f"gate_layers is {recipe.gate_layers}; it has to be 2 or 3.")
    if recipe.net != "mlp" and recipe.data in (*REGRESSION, *CONTROL):
        raise RecipeError(
            f"net '{recipe.net}' does not fit data '{recipe.data}': sinusoids, features and control take mlp, images conv4 or "
            "resnet12."
        )
    _check_way(recipe)


def check_seed(seed: int) -> None:
    """RecipeError unless the seed is one that JAX tells from every other."""
    if not 0 <= seed < _SEEDS:
        raise RecipeError(f"seed is {_count(seed)}; it has to be from 0 to {_SEEDS - 1}.")


def _count(value: int) -> str:
    """An integer as text, however long it is."""
    return str(value) if abs(value) < 10**24 else f"{'-' if value < 0 else ''}a number of more than 24 digits"


def check_sizes(recipe: "Recipe") -> None:
    """RecipeError unless every number is finite, and no count is beyond what an array can have; fields may be None."""
    check_seed(recipe.seed)
    for f in fields(recipe):
        values = getattr(recipe, f.name)
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, float) and not isfinite(value):
                raise RecipeError(f"{f.name} is {value}; it has to be a finite number.")
            if type(value) is int and abs(value) >= _LARGEST and f.name != "seed":
                raise RecipeError(f"{f.name} is {_count(value)}; it has to be below {_LARGEST}.")


def _check_ranges(recipe: "Recipe") -> None:
    for name in _POSITIVE:
        if getattr(recipe, name) < 1:
            raise RecipeError(f"{name} is {getattr(recipe, name)}; it has to be at least 1.")
    for name in ("inner_steps", "first_order_steps", "multi_step_steps"):
        if getattr(recipe, name) < 0:
            raise RecipeError(f"{name} is {getattr(recipe, name)}; it has to be at least 0.")
    for name in _AT_LEAST_0:
        if getattr(recipe, name) < 0:
            raise RecipeError(f"{name} is {getattr(recipe, name)}; it has to be a number of at least 0.")
    for name, most in _MOST.items():
        if getattr(recipe, name) > most:
            raise RecipeError(f"{name} is {getattr(recipe, name)}; it has to be at most {most}.")
    if recipe.min_outer_rate > recipe.outer_rate:  # type: ignore[operator]
        raise RecipeError(
            f"min_outer_rate is {recipe.min_outer_rate}; it is where the rate ends, and has to be at most outer_rate, "
            f"{recipe.outer_rate}."
        )


def _check_way(recipe: "Recipe") -> None:
    made = recipe.data in (*REGRESSION, *CONTROL)
    if made and recipe.way != 1:
        raise RecipeError(f"way is {recipe.way}; data '{recipe.data}' has no classes: leave --way out.")
    if not made and recipe.way == 1:
        raise RecipeError("way is 1; with one class there is nothing to tell apart: it has to be at least 2.")


def _check_method(recipe: "Recipe") -> None:
    """What a method's own numbers allow, and what it cannot take."""
    base = recipe.method.partition("+")[0]
    others: dict[str, Any] = {}
    if base == "leo":
        others = {
            "rule": None,
            "multi_step_steps": 0,
            "gate_fixed": None,
            "gate_every_step": False,
            "gate_scope": "tensor",
            "gate_exclude_head": False,
        }
        if not 0 <= recipe.leo_dropout < 1:  # type: ignore[operator]
            raise RecipeError(f"leo_dropout is {recipe.leo_dropout}; it has to be at least 0 and below 1.")
    if base in ("reptile", "imaml"):
        others = {"multi_step_steps": 0}
    for name, value in others.items():
        if getattr(recipe, name) != value:
            raise RecipeError(
                f"{name} is {getattr(recipe, name)}; method '{recipe.method}' does not have that choice: leave it out."
            )
    if base == "imaml" and not recipe.proximity > 0:
        raise RecipeError(f"proximity is {recipe.proximity}; it has to be above 0.")
    if base == "reptile" and not recipe.inner_rate:
        raise RecipeError("inner_rate is 0; reptile divides by it: it has to be above 0.")


def _check_control(recipe: "Recipe") -> None:
    base = "maml" if recipe.method == "l2f" else recipe.method.partition("+")[0]
    if base not in _CONTROL_METHODS:
        raise RecipeError(
            f"method '{recipe.method}' does not fit data '{recipe.data}': control takes {', '.join(_CONTROL_METHODS)}, each also "
            "with +l2f."
        )
    if not recipe.shot == recipe.query == recipe.eval_query:
        raise RecipeError(
            f"query is {recipe.query}, eval_query {recipe.eval_query}; in control both are shot, {recipe.shot}: leave them out."
        )
    for name, low, high in _CONTROL_RANGES:
        if not low <= getattr(recipe, name) <= high:
            raise RecipeError(f"{name} is {getattr(recipe, name)}; it has to be from {low:g} to {high:g}.")
