"""Domains whose tasks are drawn and not prepared: their data are only names, and any number of examples fits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import trees
from lethax.devices import TaskLoop
from lethax.domains.contract import Inputs, Values
from lethax.domains.supervised import Supervised, on_cpu
from lethax.errors import RecipeError
from lethax.recipe import Recipe, Resolved

# Weights of all tasks together. With more of them a core is faster with one task after another, which its cache holds.
_CACHED = 1_000_000


def _everything_fits(recipe: Resolved) -> None:
    return None


def _nothing(recipe: Resolved, table: np.ndarray) -> Mapping[str, Any]:
    return {}


@final
@dataclass(frozen=True, kw_only=True)
class Made(Supervised):
    """A domain whose tasks are drawn. An episode has K support examples and Q query examples, and no classes.

    made: the names that they have as data, all with inputs and outputs of one kind. check: see `contract.Domain`. summary: what an
    evaluation's record says beside the scores [n, steps + 1]. The other fields: see `Supervised`. The domain alone chooses the
    network, by `net`, which may read "net.filters", "net.depth" and "net.deviation".
    """

    made: tuple[str, ...]
    check: Callable[[Resolved], None] = _everything_fits
    summary: Callable[[Resolved, np.ndarray], Mapping[str, Any]] = _nothing

    classes: ClassVar[bool] = False
    same: ClassVar[Values] = {"episode.way": 1, "net.kind": "mlp"}
    never: ClassVar[frozenset[str]] = frozenset({
        "episode.way", "episode.rotate", "inner.head", "net.kind", "net.norm", "net.per_step_norm",
    })  # fmt: skip

    def claims(self, recipe: Recipe) -> bool:
        """Whether the data have a name of this domain."""
        return recipe.data in self.made

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """Leave the recipe as it is, because any number of examples can be drawn."""
        return recipe, ""

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """None, because there is no data set."""
        return None

    def _through(self, recipe: Resolved, tasks: int) -> tuple[TaskLoop, int]:
        how, devices = super()._through(recipe, tasks)
        weights = trees.size(jax.eval_shape(self.net(recipe, None).init, jax.random.key(0)))
        return "scan" if on_cpu() and tasks * weights > _CACHED else how, devices

    def identity(self, recipe: Resolved) -> str | None:
        """None, because there is no data set."""
        return None

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> "tuple[Made, Resolved]":
        """The recipe on other data of this domain."""
        return self, another(recipe, data, self.made)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """Every split allows any episode."""

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """The summary that the domain makes of its scores."""
        return self.summary(recipe, table)


def another(recipe: Resolved, data: str, known: tuple[str, ...]) -> Resolved:
    """The recipe on other data of the same domain. RecipeError for data of any other."""
    if data not in known:
        raise RecipeError(f"a run on {recipe.data} cannot be judged on {data}: its net reads inputs of another kind.")
    return replace(recipe, data=data)
