"""A method of your own in one file: MAML whose inner rate decays, w_{j+1} = w_j − α β^j ∇L_D(w_j).

`Decayed` is the idea: a rule, which says how an inner gradient moves the weights. `Options` become options of the command line.
`register_rule` makes the method known as `decayed`, and with L2F's start as `decayed+l2f`.

    lethax train sinusoid --plugin examples/new_method.py --method decayed --inner-steps 5 --decay 0.7
    lethax evaluate runs/sinusoid-decayed-5shot-seed0 --plugin examples/new_method.py
"""

from dataclasses import dataclass
from typing import Any

import jax

from lethax import FixedRule, option, register_rule


@dataclass(frozen=True)
class Decayed(FixedRule):
    """rate: α. decay: β."""

    rate: float
    decay: float

    def apply(self, params: Any, weights: Any, gradient: Any, step: Any) -> Any:
        """w_{j+1} from w_j and its gradient at inner step j, from 0."""
        rate = self.rate * self.decay**step
        return jax.tree.map(lambda w, g: w - rate * g, weights, gradient)


@dataclass(frozen=True)
class Options:
    """The inner rate that decays."""

    factor: float = option(0.5, "An inner step has this share of the rate of the one before.", "decay", above=0, high=1)


register_rule(
    "decayed", "MAML whose inner rate decays.", lambda r: Decayed(r.inner.rate, r.section("decayed").factor), Options
)
