"""The methods by name. Each entry takes the net, the objective and the recipe's options and gives a learner."""

from collections.abc import Mapping
from typing import Any

from lethax.errors import RecipeError, did_you_mean
from lethax.methods.l2f import Attenuator as Attenuator
from lethax.methods.maml import MAML as MAML
from lethax.rules import SGD as SGD
from lethax.rules import MetaSGD as MetaSGD

# What makes each method out of MAML's parts; any of them takes L2F's start as well ("metasgd+l2f").
_PARTS: dict[str, dict[str, Any]] = {
    "maml": {},
    "fomaml": {"order": 1},
    "metasgd": {"rule": MetaSGD},
    "anil": {"moved": "head"},
    "boil": {"moved": "body"},
}
METHODS: tuple[str, ...] = ("l2f", *_PARTS, *(f"{name}+l2f" for name in _PARTS))


def L2F(net: Any, *, attenuator: Attenuator | None = None, **options: Any) -> MAML:
    """MAML that starts from attenuated weights; `options` are MAML's fields."""
    return MAML(net, start=attenuator or Attenuator(), **options)


def build(name: str, net: Any, *, rate: float, attenuator: Mapping[str, Any], **options: Any) -> MAML:
    """The learner called `name`; RecipeError for a name that does not exist."""
    if name not in METHODS:
        raise RecipeError(f"no method is called '{name}'.{did_you_mean(name, METHODS)} Methods: {', '.join(METHODS)}.")
    base, _, start = ("maml+l2f" if name == "l2f" else name).partition("+")
    parts = dict(_PARTS[base])
    rule = parts.pop("rule", SGD)(rate=rate)
    return MAML(net, rule=rule, start=Attenuator(**attenuator) if start else None, **{**options, **parts})
