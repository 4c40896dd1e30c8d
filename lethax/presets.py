"""What a recipe takes where it says nothing: the settings of the papers and of their released code, by data set and method."""

from typing import TYPE_CHECKING, Any

from lethax.names import CONTROL, NAVIGATION, REGRESSION

if TYPE_CHECKING:
    from lethax.recipe import Recipe


def presets(recipe: "Recipe") -> dict[str, Any]:
    """Values for the fields of a recipe that are None."""
    base = recipe.method.partition("+")[0]
    rate = 1e-3 if recipe.outer_rate is None else recipe.outer_rate
    common = {
        "outer_rate": rate, "min_outer_rate": rate, "non_finite": "stop", "clip_tensor_norm": 0.0, "inner_clamp": 0.0,
        "clamp": 0.0, "rotate": False, "val_episodes": 600, "first_order_steps": 0, "multi_step_steps": 0,
        "reduction": "sum", "shot": 5, "epoch": 500, "gate_bias_init": 0.0, "rl_horizon": 0, "rl_limit": 0.0,
        "rl_action_scale": 0.0,
        "multi_step_epochs": 10, "per_step_norm": base == "maml_pp" and recipe.data not in REGRESSION,
        # A normal as in the sources of these families; PyTorch's uniform weights elsewhere.
        "spread": 0.01 if recipe.data in ("sinusoid_maml", "sinusoid_reptile") else 0.0,
        "leo_dropout": 0.0, "leo_kl": 0.0, "leo_penalty": 0.0, "leo_l2": 0.0, "leo_orthogonality": 0.0,
    }  # fmt: skip
    if base == "leo":
        found = _leo(recipe)
    elif recipe.data in CONTROL:
        found = _control(recipe)
    elif recipe.data in REGRESSION:
        found = _regression(recipe, base)
    else:
        found = _features(recipe) if recipe.net == "mlp" else _images(recipe, base)
    if recipe.eval_query is None and "eval_query" not in found:
        found["eval_query"] = 100 if recipe.data in REGRESSION else recipe.query or found["query"]
    return common | found


# Where the released code of a method has inner steps of its own. Reptile's are ours: with one it would learn the mean of all tasks.
_CURVE_STEPS: dict[str, dict[str, Any]] = {
    "cavia": {"inner_rate": 1.0},
    "reptile": {"inner_steps": 5},
    "imaml": {"inner_steps": 16},
}


def _regression(recipe: "Recipe", base: str) -> dict[str, Any]:
    """Sinusoids: Baik et al. 2020, Table E; or mixtures."""
    sinusoids: dict[str, Any] = {
        "way": 1, "query": 10, "net": "mlp", "full_steps": 50_000, "batch": 4, "inner_steps": 1, "inner_rate": 0.01, "filters": 40,
        "depth": 2,
    }  # fmt: skip
    found = _mixture(recipe, base) if recipe.data.startswith("modes") else sinusoids
    annealed: dict[str, Any] = (
        {"min_outer_rate": 1e-5, "multi_step_steps": found["full_steps"] // 5} if base == "maml_pp" else {}
    )
    return found | annealed | _CURVE_STEPS.get(base, {})


def _mixture(recipe: "Recipe", base: str) -> dict[str, Any]:
    """Mixtures of function families: the released code of Vuorio et al. 2019, 25 tasks a family."""
    return {
        "way": 1, "query": 5, "net": "mlp", "full_steps": 70_000, "batch": 25 * int(recipe.data.removeprefix("modes")),
        "inner_steps": 5, "inner_rate": 0.001, "filters": 100, "depth": 3, "spread": 0.01, "reduction": "mean",
        "inner_clamp": 10.0 if base == "mumomaml" else 0.0,
    }  # fmt: skip


def _features(recipe: "Recipe") -> dict[str, Any]:
    """A small net on features; ours."""
    return {
        "way": 5, "query": 15, "net": "mlp", "full_steps": 50_000, "inner_steps": 5, "inner_rate": 0.01, "batch": 4,
        "filters": 100, "depth": 2,
    }  # fmt: skip


def _leo(recipe: "Recipe") -> dict[str, Any]:
    """The authors' settings for mini- and tieredImageNet, 1 and 5 shots; other data sets take the nearer of mini-ImageNet's.

    Their bounds of 0.1 are on the gradient of the mean over the tasks.
    """
    from lethax.methods.leo import published

    known = published(recipe.data.startswith("tiered"), recipe.shot or 5)
    rate = known.pop("outer_rate")
    rates = {"outer_rate": rate, "min_outer_rate": rate} if recipe.outer_rate is None else {}
    return _features(recipe) | {
        "full_steps": 100_000, "batch": 12, "clamp": 0.1, "clip_tensor_norm": 0.1, "non_finite": "skip",
        "reduction": "mean", **rates, **{f"leo_{name}": value for name, value in known.items()},
    }  # fmt: skip


def _control(recipe: "Recipe") -> dict[str, Any]:
    """Baik et al. 2020, Table E(b), and values of our own for what it leaves open.

    Under "paper" the inner rate is 0.01 and the longest move 0.2; under "code" both are 0.1. MAML's code has the same longest move,
    but an inner rate of 0.5 in navigation; its half-cheetah has 0.1. Differs: gates start near 1, not
    near a half: with a half, the rollouts that the first update learns from are of a policy that is far from the attenuated one and
    that nothing trains, and validation returns in navigation stay where they were.
    """
    far, paper = recipe.data in NAVIGATION, recipe.preset == "paper"
    shot = recipe.shot or (20 if far else 40)
    return {
        "way": 1, "shot": shot, "query": shot, "eval_query": shot, "net": "mlp", "filters": 100, "depth": 2,
        "full_steps": 500, "epoch": 10, "val_episodes": 40, "batch": 20 if far else 40, "inner_steps": 1,
        "inner_rate": 0.01 if paper else 0.1, "gate_bias_init": 4.0, "rl_horizon": 100 if far else 200,
        "rl_limit": (0.2 if paper else 0.1) if far else 0.0,
        "rl_action_scale": 0.0 if far else (10.0 if recipe.rl_physics == "gym" else 1.0),
    }  # fmt: skip


# The same for images, all of released code.
_IMAGE_STEPS: dict[str, dict[str, Any]] = {
    "boil": {"inner_rate": 0.5, "inner_steps": 1},
    "cavia": {"inner_rate": 1.0, "inner_steps": 2},
    "reptile": {"inner_steps": 8},
    "imaml": {"inner_rate": 0.1, "inner_steps": 16},
}


def _images(recipe: "Recipe", base: str) -> dict[str, Any]:
    net = recipe.net or "conv4"
    omniglot = recipe.data.startswith("omniglot")
    imagenet = "imagenet" in recipe.data
    released_l2f = recipe.preset == "code" and recipe.method in ("l2f", "maml+l2f")
    l2f_budget = 30_000 if released_l2f and imagenet else 50_000
    full = 125_000 if recipe.data.startswith("tiered") else l2f_budget
    small = 1 if net == "resnet12" else (4 if recipe.shot == 1 else 2)
    epochs = 10 if omniglot else 15  # of a hundred
    # MAML++ and ALFA were released with second order from the start.
    second_at_once = omniglot or recipe.preset == "paper" or base in ("maml_pp", "alfa", "cavia", "reptile", "imaml")
    return {
        "way": 5, "query": 1 if omniglot else 15, "net": net, "full_steps": full, "inner_steps": 5,
        "inner_rate": 0.1 if omniglot else 0.01, "batch": 8 if omniglot else small,
        "first_order_steps": 0 if second_at_once else 5_500,
        "filters": 64 if recipe.preset == "paper" or omniglot else 48, "depth": 4,
        "clamp": 10.0 if imagenet else 0.0, "rotate": omniglot, **({"min_outer_rate": 1e-5} if omniglot else {}),
        **_IMAGE_STEPS.get(base, {}),
        "multi_step_steps": full * epochs // 100 if base == "maml_pp" else 0, "multi_step_epochs": epochs,
    }  # fmt: skip
