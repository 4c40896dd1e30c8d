"""Make learners of MAML's parts: a method is a choice of rule, start, encoder, bridge and of the tensors that move."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax

from lethax import trees
from lethax.errors import RecipeError
from lethax.learner import Net, Normalised
from lethax.methods.alfa import ALFA
from lethax.methods.contract import Encoder
from lethax.methods.imaml import Implicit
from lethax.methods.l2f import Acts, Attenuator
from lethax.methods.leo import LEO
from lethax.methods.maml import MAML
from lethax.methods.mumomaml import CurveEncoder, ImageEncoder, Modulation, Order
from lethax.methods.reptile import Reptile
from lethax.nets import MLP, Contextual, Conv4
from lethax.objectives import CrossEntropy, Objective, SquaredError
from lethax.records import Mask, Weights
from lethax.rules import LSLR, SGD, MetaSGD, Rule, SignSGD

RULES: dict[str, Callable[..., Rule]] = {"sgd": SGD, "sign": SignSGD, "metasgd": MetaSGD, "lslr": LSLR, "alfa": ALFA}
# What makes each method out of MAML's parts; any of them takes L2F's start as well ("metasgd+l2f"). What MAML++ changes beside its
# rule (multi-step loss, per-step norms, schedules) are values of its recipe.
_PARTS: dict[str, dict[str, Any]] = {
    "maml": {},
    "fomaml": {"order": 1},
    "sign_maml": {"rule": "sign"},
    "metasgd": {"rule": "metasgd"},
    "anil": {"moved": "head"},
    "boil": {"moved": "body"},
    "maml_pp": {"rule": "lslr"},
    "alfa": {"rule": "alfa"},
    "mumomaml": {},
    "cavia": {},
    "reptile": {"order": 1},
    "imaml": {"order": 1},
}


def base_of(name: str) -> str:
    """The method without L2F's start: "maml" of "l2f", "metasgd" of "metasgd+l2f"."""
    return ("maml+l2f" if name == "l2f" else name).partition("+")[0]


def L2F(net: Net, *, attenuator: Attenuator | None = None, **options: Any) -> MAML:
    """L2F: MAML whose inner loop starts from attenuated weights.

        e = mean per tensor of ∇_θ L_D(θ),   γ = σ(W₂ relu(W₁ e + b₁) + b₂),   w_0 = γ ⊙ θ

    θ are the initial weights, D is the support set, and γ has one gate in (0, 1) for each tensor and task. The inner loop then
    takes MAML's steps from w_0.

    Arguments:
        net: the network, such as `Conv4` or `MLP`.
        attenuator: how the gates are made; `Attenuator()`, the released code's, unless given.
        options: fields of `MAML`, such as `steps`, `rule` and `objective`.

    Returns:
        A learner. The info of its `adapt` has "gates" [L], one for each name in `gate_names()`.

    Raises:
        DataError: from `adapt` and `predict`, where inputs have another shape than the net was made for.

    Source: Baik, Hong, Lee, CVPR 2020, section 3.2. Differs: see `Attenuator`.

    Example:
        >>> import jax, lethax
        >>> from lethax.data.curves import family
        >>> tasks, ranges, _ = family("sinusoid")
        >>> net = lethax.MLP(hidden=(8,))
        >>> learner = lethax.L2F(net, objective=lethax.SquaredError(), steps=1)
        >>> meta = learner.init(jax.random.key(0))
        >>> episode = tasks.draw(ranges, lethax.EpisodeShape(way=1, shot=5, query=10), jax.random.key(1))
        >>> fast, info = jax.jit(learner.adapt)(meta, episode.support)
        >>> learner.gate_names(), info["gates"].shape
        (['layer0/bias', 'layer0/weight', 'layer1/bias', 'layer1/weight'], (4,))
    """
    return MAML(net, start=attenuator or Attenuator(), **options)


def build(
    name: str,
    net: Net,
    *,
    rate: float,
    attenuator: Mapping[str, Any],
    leo: Mapping[str, Any] | None = None,
    **options: Any,
) -> MAML | LEO:
    """Make the learner of a method of this package. RecipeError for a net that the method cannot work on.

    `options` are MAML's fields; `rule` may also be a name of RULES, and takes the place of the method's own. `attenuator` are
    Attenuator's fields, and `exclude_head`: the net's last layer is ungated. `leo` are LEO's fields beside `steps` and `objective`.
    """
    start = _attenuator(net, **attenuator) if name == "l2f" or name.endswith("+l2f") else None
    if base_of(name) == "leo":
        if not isinstance(net, MLP):
            raise RecipeError(
                f"leo adapts a linear classifier of features, not {type(net).__name__}: see lethax embed."
            )
        of_dimensions = start and replace(start, scope="filter")
        shared = {key: options[key] for key in ("steps", "objective", "precision", "loop") if key in options}
        return LEO(net, start=of_dimensions, **shared, **(leo or {}))
    given = {key: value for key, value in options.items() if not (key == "rule" and value is None)}
    parts = {
        "rule": "sgd",
        **given,
        **{k: v for k, v in _PARTS[base_of(name)].items() if k != "rule" or k not in given},
    }
    modulation, proximity = parts.pop("modulation", "film"), parts.pop("proximity", 2.0)
    reading_order = parts.pop("reading_order", "sorted")
    if isinstance(parts["rule"], str):
        parts["rule"] = RULES[parts["rule"]](rate=rate)
    if start and start.ungated and parts.get("moved") == "head":
        raise RecipeError(
            f"method '{name}' moves only the last layer, and gate.exclude_head leaves it no gate: leave that out."
        )
    if start and start.normed and parts.get("moved") == "head":
        raise RecipeError(
            f"method '{name}' moves only the last layer, which no batch norm follows: leave gate.acts out."
        )
    if base_of(name) == "cavia":
        net = _contextual(net)
    elif base_of(name) in ("reptile", "imaml"):
        parts["bridge"] = Reptile(rate) if base_of(name) == "reptile" else Implicit(proximity)
    elif base_of(name) == "mumomaml":
        parts["encoder"] = _encoder(net, modulation, reading_order, parts.get("objective", CrossEntropy()))
    learner = MAML(net, start=start, **parts)
    if start and start.acts != "weights" and not learner.linear:
        raise RecipeError(
            f"gate.acts is {start.acts}, which needs inner steps that are linear in the gradient; those of method '{name}' are "
            "not, or not with this inner.rule or inner.clamp: leave it out."
        )
    if learner.head in ("zero", "vector") and not _moves_head(learner):
        raise RecipeError(
            f"inner.head is {learner.head}, but method '{name}' does not move the last layer, and all classes would keep equal "
            "outputs: take prototypes or trained."
        )
    return learner


def _moves_head(learner: MAML) -> bool:
    weights = jax.eval_shape(learner.net.init, jax.random.key(0))
    both = jax.tree.map(lambda moves, head: moves and head, learner.mask(weights), learner.net.head(weights))
    return any(jax.tree.leaves(both))


def _attenuator(net: Net, *, exclude_head: bool = False, acts: Acts = "weights", **options: Any) -> Attenuator:
    normed = normed_layers(net) if acts != "weights" else ()
    if acts != "weights" and not normed:
        raise RecipeError(
            f"gate.acts is {acts}, for layers that a batch norm follows, but {type(net).__name__} has none: leave it out."
        )
    return Attenuator(**options, acts=acts, normed=normed, ungated=_layers(net, net.head) if exclude_head else ())


def normed_layers(net: Net) -> tuple[str, ...]:
    """The layers of a net that a batch norm follows."""
    return _layers(net, net.normed) if isinstance(net, Normalised) else ()


def _layers(net: Net, mask: Callable[[Weights], Mask]) -> tuple[str, ...]:
    """The layers in a mask. The log σ of a policy is in no layer."""
    weights = jax.eval_shape(net.init, jax.random.key(0))
    marked = zip(trees.names(weights), jax.tree.leaves(mask(weights)), strict=True)
    return tuple(dict.fromkeys(name.rpartition("/")[0] for name, inside in marked if inside and "/" in name))


def _contextual(net: Net) -> Contextual:
    if not isinstance(net, MLP | Conv4):
        raise RecipeError(f"{type(net).__name__} has no place for a context: cavia takes conv4 or mlp.")
    return Contextual(net, 100 if isinstance(net, Conv4) else 5)


def _encoder(net: Net, kind: Modulation, order: Order, objective: Objective) -> Encoder:
    modulated = tuple(net.modulated().items())
    if isinstance(net, MLP):
        targets = net.outputs if isinstance(objective, SquaredError) else 0
        return CurveEncoder(net.inputs + targets, modulated, kind=kind, order=order)
    if isinstance(net, Conv4):
        if order != "sorted":
            raise RecipeError(
                f"mumomaml.order is {order}, but the encoder of pictures takes their mean, which has no order: leave it out."
            )
        return ImageEncoder(net.channels, modulated, kind=kind)
    raise RecipeError(f"{type(net).__name__} has no layers that a task encoder modulates: mumomaml takes conv4 or mlp.")
