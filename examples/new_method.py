"""A method of your own in one file: MAML whose inner rate decays.

    w_{j+1} = w_j − α β^j ∇L_D(w_j)

α is the option --inner-rate, which MAML has too, and β is an option of the method's own, --decay. The file has four parts, and most
methods have the same:

1. `Decayed` is the idea: a rule, which says how an inner gradient moves the weights. Other ideas replace another part of MAML:
   where the inner loop starts, which weights move, what the net is told of a task, or how the meta-gradient comes back.
2. `Decay` is a section of the recipe. Its fields become options of the command line.
3. `make` puts the rule into the learner that lethax makes of the same recipe for MAML.
4. `register` makes the method known by a name, and once more with L2F's attenuated start.

    lethax train sinusoid --plugin examples/new_method.py --method decayed --inner-steps 5 --decay 0.7
    lethax evaluate runs/sinusoid-decayed-5shot-seed0 --plugin examples/new_method.py
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax

from lethax.methods import MAML, METHODS, Method, register
from lethax.recipe import Resolved
from lethax.recipe.sections import option, register_section
from lethax.records import Weights


# 1. The idea.
@dataclass(frozen=True)
class Decayed:
    """rate: α. decay: β. exact: no derivative is stopped on purpose, so that meta-gradients agree with finite differences."""

    rate: float
    decay: float
    exact: ClassVar[bool] = True

    def init(self, key: jax.Array, like: Weights, steps: int) -> dict[str, Any]:
        """Meta-parameters of the rule; it has none. A learned rate would be one."""
        return {}

    def apply(self, params: Any, weights: Weights, gradient: Weights, step: Any) -> Weights:
        """w_{j+1} from w_j and its gradient at inner step j, from 0."""
        rate = self.rate * self.decay**step
        return jax.tree.map(lambda w, g: w - rate * g, weights, gradient)


# 2. The options.
@dataclass(frozen=True)
class Decay:
    """The inner rate that decays."""

    factor: float = option(0.5, "An inner step has this share of the rate of the one before.", "decay", above=0, high=1)


# 3. The learner. `options` are what the domain adds, such as the objective.
def make(base: str, net: Any, recipe: Resolved, **options: Any) -> MAML:
    """MAML, or MAML with L2F's start, with the rule in place of its own."""
    learner = METHODS[base].make(net, recipe, **options)
    return replace(learner, rule=Decayed(recipe.inner.rate, recipe.section("decay").factor))


# 4. The names. A recipe that gives inner.rule, which these methods do not read, is refused.
register_section("decay", Decay)
register(
    Method(
        "decayed",
        "MAML whose inner rate decays.",
        partial(make, "maml"),
        sections=("decay",),
        without=frozenset({"inner.rule"}),
    )
)
register(
    Method(
        "decayed+l2f",
        "MAML whose inner rate decays, with L2F's attenuated start.",
        partial(make, "maml+l2f"),
        sections=("decay", "gate"),
        without=frozenset({"inner.rule"}),
    )
)
