"""A recipe: every value of an experiment that matters, in one flat, typed record that reads and writes TOML.

Fields left out are filled by `resolve` from the presets of the data set and the method, so a stored recipe is complete.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lethax import toml
from lethax.checks import check as check
from lethax.checks import check_seed as check_seed
from lethax.checks import check_sizes
from lethax.errors import RecipeError
from lethax.presets import presets
from lethax.text import shown

_LARGEST_FILE = 1 << 20  # bytes; a complete recipe with its comments has about 5000


def _f(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """None stands for "as the preset says"; `resolve` leaves none."""

    data: str = _f("sinusoid", "a prepared data set of images or features, a sinusoid family, or control tasks")
    method: str = _f(
        "l2f",
        "maml, l2f, fomaml, sign_maml, metasgd, anil, boil, maml_pp, alfa, mumomaml, cavia, reptile, imaml, leo, or one +l2f",
    )
    net: str | None = _f(None, "conv4, resnet12 or mlp")
    preset: str = _f("code", "where paper and released code differ: code or paper")
    way: int | None = _f(None, "classes an episode")
    shot: int | None = _f(None, "support examples a class; rollouts an update in control")
    query: int | None = _f(None, "query examples a class")
    eval_query: int | None = _f(None, "query examples a class in validation and test; as in training unless given")
    batch: int | None = _f(None, "episodes an outer step")
    steps: int | None = _f(None, "outer steps")
    full_steps: int | None = _f(
        None, "outer steps of the published budget; the schedule scales with steps / full_steps"
    )
    seed: int = _f(0, "of weights and episodes")
    inner_steps: int | None = _f(None, "inner steps, in training and evaluation")
    inner_rate: float | None = _f(None, "inner step size, the first one where it is learned")
    inner_clamp: float | None = _f(None, "bound on the entries of the inner gradients, 0 for none")
    rule: str | None = _f(None, "inner update: sgd, sign, metasgd, lslr or alfa; the method's own unless given")
    order: int = _f(2, "derivative through the inner loop: 1 or 2")
    first_order_steps: int | None = _f(None, "outer steps of first order before the second")
    multi_step_steps: int | None = _f(None, "outer steps with the multi-step loss of MAML++, 0 for none")
    multi_step_epochs: int | None = _f(None, "epochs in which its weights move to the last step")
    per_step_norm: bool | None = _f(None, "norms have a scale and shift for every inner step")
    modulation: str = _f("film", "of mumomaml: film, sigmoid or softmax")
    proximity: float = _f(2.0, "of imaml: weight of the distance from the start in the inner loss")
    filters: int | None = _f(None, "width of conv4, or of mlp's hidden layers")
    depth: int | None = _f(None, "hidden layers of mlp")
    spread: float | None = _f(None, "of mlp: deviation of its first weights; 0 for PyTorch's uniform ones")
    norm: str = _f("batch", "whose moments batch norm uses for queries: batch, support or support+1")
    outer_rate: float | None = _f(None, "Adam's rate")
    min_outer_rate: float | None = _f(None, "Adam's rate at the end of a cosine; outer_rate keeps it constant")
    clamp: float | None = _f(None, "bound on the weights' meta-gradients, 0 for none")
    clip_norm: float = _f(0.0, "bound on the norm of the whole meta-gradient, 0 for none")
    clip_tensor_norm: float | None = _f(None, "bound on the norm of every tensor's meta-gradient, 0 for none")
    non_finite: str | None = _f(None, "an outer step whose meta-gradient is NaN or Inf: stop, or skip and count it")
    reduction: str | None = _f(None, "of the meta-batch: sum or mean")
    rotate: bool | None = _f(None, "turn the classes of training episodes by multiples of 90 degrees")
    epoch: int | None = _f(None, "outer steps between validations")
    val_episodes: int | None = _f(None, "fixed episodes, or control tasks, a validation")
    keep: int = _f(3, "best checkpoints kept by validation score")
    memory: str = _f("fast", "fast: unrolled loops; lean: memory flat in inner steps and tasks")
    leo_dropout: float | None = _f(None, "leo: share of a feature vector's entries that training leaves out")
    leo_kl: float | None = _f(None, "leo: weight of the codes' divergence from N(0, 1)")
    leo_penalty: float | None = _f(None, "leo: weight of the distance of the adapted codes from the encoded ones")
    leo_l2: float | None = _f(None, "leo: weight decay of encoder, relation net and decoder")
    leo_orthogonality: float | None = _f(None, "leo: weight of the correlation of the decoder's rows")
    leo_sigma: str = _f("code", "leo: deviations as in the released code, or softplus")
    gate_scope: str = _f("tensor", "what shares a gate: network, layer, tensor, filter or parameter")
    gate_activation: str = _f("sigmoid", "sigmoid, identity or twice_sigmoid")
    gate_fixed: tuple[float, ...] | None = _f(None, "gates given by hand")
    gate_task_dependent: bool = _f(True, "gates are computed for every task; if not, one learned vector is for all")
    gate_embedding: str = _f("mean", "what of a gradient is read: mean, mean_abs or norm")
    gate_embedding_scale: float = _f(1.0, "factor on what is read")
    gate_detached: bool = _f(True, "no derivative passes through the gradient that is read")
    gate_layers: int = _f(2, "linear layers of the attenuator: 2 (code) or 3")
    gate_exclude_head: bool = _f(False, "the last layer keeps gate 1")
    gate_every_step: bool = _f(False, "attenuate before every inner step")
    gate_bias_init: float | None = _f(
        None, "added to the attenuator's last bias; 0, in control 4: gates of 0.98 at first"
    )
    rl_horizon: int | None = _f(None, "control: steps of a rollout")
    rl_discount: float = _f(0.99, "control: discount of later rewards")
    rl_smoothing: float = _f(1.0, "control: λ of the advantage estimates")
    rl_loss: str = _f("log", "control: inner loss: log, ratio (with the curvature of the sampling) or importance")
    rl_gate_log_std: bool = _f(False, "control: log σ has a gate too")
    rl_resample: bool = _f(False, "control: L2F's attenuated policy draws the rollouts of the first update itself")
    rl_later_rate: float = _f(0.5, "control: share of the inner rate in updates beyond the trained ones")
    rl_max_kl: float = _f(0.01, "control: mean divergence of an outer step, at most")
    rl_cg_iterations: int = _f(10, "control: conjugate gradient steps")
    rl_cg_share: float = _f(1.0, "control: share of the tasks whose curvature they see")
    rl_damping: float = _f(1e-5, "control: added to that curvature")
    rl_backtrack: float = _f(0.8, "control: factor of the line search")
    rl_backtracks: int = _f(15, "control: its tries")
    rl_activation: str = _f("relu", "control: of the policy: relu or tanh")
    rl_limit: float | None = _f(None, "navigation: longest move along an axis")
    rl_actions: str = _f(
        "normalized", "navigation: moves are limit × action (normalized) or the action (raw), then cut"
    )
    rl_starts: str = _f("task", "navigation: a start is of the task, or of every rollout")
    rl_physics: str = _f("gym", "locomotion: time steps of gym or rllab")
    rl_action_scale: float | None = _f(None, "locomotion: actions in ± this span the motors' range")
    rl_contact: bool = _f(False, "ant: contact forces are observed and cost")


def load(path: Path) -> Recipe:
    """A recipe from TOML; RecipeError names an unknown key and the nearest known one."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise RecipeError(f"recipe {shown(path)} cannot be read: {getattr(error, 'strerror', error)}.") from None
    if len(raw) > _LARGEST_FILE:
        raise RecipeError(f"recipe {shown(path)} has more than {_LARGEST_FILE} bytes: it is no recipe.")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {shown(path)} is not text in UTF-8: it is no recipe.") from None
    return toml.parse(Recipe, text, f"recipe {shown(path)}")


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every None filled in and every value checked; RecipeError otherwise.

    A budget below the published one scales the first-order and the multi-step phase in proportion.
    """
    check_sizes(recipe)
    values = presets(recipe)
    missing = {name for name in values if getattr(recipe, name) is None}
    filled = replace(recipe, **{name: values[name] for name in missing})
    full, epochs = filled.full_steps, filled.multi_step_epochs
    assert full is not None and epochs is not None
    steps = filled.steps if filled.steps is not None else full
    share = min(steps / max(full, 1), 1.0)
    if "first_order_steps" in missing:
        filled = replace(filled, first_order_steps=round(values["first_order_steps"] * share))
    if "multi_step_steps" in missing and values["multi_step_steps"]:
        epoch = max(round(values["multi_step_steps"] * share / max(epochs, 1)), 1)
        filled = replace(filled, multi_step_steps=epoch * epochs)
    filled = replace(filled, steps=steps)
    check(filled)
    return filled


def options(recipe: Recipe, prefix: str) -> dict[str, Any]:
    """The fields of a part, "gate_…" or "leo_…", under the part's own names."""
    return {f.name.removeprefix(prefix): getattr(recipe, f.name) for f in fields(recipe) if f.name.startswith(prefix)}
