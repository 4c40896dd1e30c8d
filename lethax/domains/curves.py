"""Curves: few-shot regression of sinusoids and of mixtures of functions. Baik et al. 2020, 4.3; Vuorio et al. 2019."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import nets
from lethax.data import curves
from lethax.domains import supervised
from lethax.domains.contract import Family, Inputs, Judged, Judging
from lethax.errors import RecipeError
from lethax.evaluate import Trial, by_repeats
from lethax.learner import Learner
from lethax.methods.registry import Method, method_of
from lethax.names import CURVES
from lethax.objectives import SquaredError
from lethax.outer import Plan
from lethax.recipe import Recipe, Resolved

_TOGETHER = 500  # curves in one call of an evaluation


class Curves:
    """Tasks are functions of one variable; an episode has K support points and query points of one function."""

    kind = "curves"
    sections: tuple[str, ...] = ()
    without = frozenset({"episode.way", "episode.rotate", "net.kind", "net.norm", "net.per_step_norm"})
    made: tuple[str, ...] = CURVES
    classes = False
    episodes, curve = 600, 10
    drawings: tuple[str, ...] = ()
    table = "scores"
    milder = "--inner-rate or --outer-rate, --clip-norm 10"

    def claims(self, recipe: Recipe) -> bool:
        """By name."""
        return recipe.data in self.made

    def defaults(self, recipe: Recipe, method: Method) -> Mapping[str, Any]:
        """Sinusoids: Baik et al. 2020, Table E; mixtures: the released code of Vuorio et al. 2019, 25 tasks a family."""
        common = {"episode.way": 1, "episode.eval_query": 100, "net.kind": "mlp"}
        # A normal as in the sources of these families; PyTorch's uniform weights elsewhere.
        deviation = 0.01 if recipe.data in ("sinusoid_maml", "sinusoid_reptile") else 0.0
        if not recipe.data.startswith("modes"):
            return common | {
                "episode.query": 10, "inner.steps": 1, "net.filters": 40, "net.depth": 2, "net.deviation": deviation,
            }  # fmt: skip
        return common | {
            "episode.query": 5, "outer.full_steps": 70_000, "outer.batch": 25 * int(recipe.data.removeprefix("modes")),
            "inner.steps": 5, "inner.rate": 0.001, "net.filters": 100, "net.depth": 3, "net.deviation": 0.01,
            "outer.reduction": "mean", "inner.clamp": 10.0 if method.plain == "mumomaml" else 0.0,
        }  # fmt: skip

    def check(self, recipe: Resolved) -> None:
        """Every combination goes."""

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """Functions allow any number of points."""
        return recipe, ""

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """None: curves are made."""
        return None

    def learner(self, recipe: Resolved, inputs: Inputs | None = None) -> Learner:
        """The method on a small fully connected network."""
        net = nets.MLP(hidden=(recipe.net.filters,) * recipe.net.depth, spread=recipe.net.deviation)
        learner: Learner = method_of(recipe).make(net, recipe, objective=SquaredError(), loop="unroll")
        return learner

    def plan(self, recipe: Resolved) -> Plan:
        """All tasks of an outer step at once, many steps a call."""
        return supervised.plan(recipe, "vmap", 1, supervised.CHUNK)

    def family(self, recipe: Resolved, split: str) -> Family:
        """Training and validation functions from one set of ranges, test functions from the other."""
        tasks, training, evaluation = curves.family(recipe.data)
        return Family(tasks, evaluation if split == "test" else training)

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """The mean squared error of each function."""
        trial = Trial(supervised.shape_of(recipe, "test"), episodes, steps, curve, "vmap", _TOGETHER, 1)
        return supervised.judge(self.learner(recipe), metas, self.family(recipe, split), trial, key)

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """Of three functions' points."""
        return supervised.hash_of(recipe, self.family(recipe, split), episodes, key)

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> Resolved:
        """Any other family of curves."""
        if data not in self.made:
            raise RecipeError(
                f"a run on {recipe.data} cannot be judged on {data}: its net reads inputs of another kind."
            )
        return replace(recipe, data=data)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """Every split does."""

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """Mean and interval of the published protocol, over sets of 100 functions."""
        episodes = len(table)
        if episodes % 100:
            return {}
        mean, ci95 = by_repeats(table[:, recipe.inner.steps], episodes // 100)
        return {"mean_100": mean, "ci95_100": ci95}

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def protocol(self, recipe: Resolved) -> Judging:
        """10 000 functions, the best checkpoint."""
        return Judging(10_000, 1)

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """Families with as many forms differ in their ranges alone."""
        return self.learner(recipe), self.plan(recipe), self.family(recipe, "train").tasks
