"""Curves: few-shot regression of sinusoids and of mixtures of functions. Baik et al. 2020, 4.3; Vuorio et al. 2019."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lethax import nets
from lethax.data import curves
from lethax.domains.contract import Family, Inputs, Judging, Values
from lethax.domains.made import Made
from lethax.evaluation import by_repeats
from lethax.methods.registry import Method
from lethax.names import CURVES
from lethax.objectives import SquaredError
from lethax.recipe import Recipe, Resolved


def _published(recipe: Recipe, method: Method) -> Values:
    """The published values: Baik et al. 2020, Table E (sinusoids); the code of Vuorio et al. 2019, 25 tasks a family (mixtures)."""
    common = {"episode.eval_query": 100}
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


def _net(recipe: Resolved, inputs: Inputs | None) -> nets.MLP:
    return nets.MLP(hidden=(recipe.net.filters,) * recipe.net.depth, spread=recipe.net.deviation)


def _family(recipe: Resolved, split: str) -> Family:
    """The functions of a split. Training and validation share one set of ranges, and the test has the other."""
    tasks, training, evaluation = curves.family(recipe.data)
    return Family(tasks, evaluation if split == "test" else training)


def _summary(recipe: Resolved, table: np.ndarray) -> Mapping[str, Any]:
    """The mean and the interval of the published protocol, over sets of 100 functions."""
    if len(table) % 100:
        return {}
    mean, ci95 = by_repeats(table[:, recipe.inner.steps], len(table) // 100)
    return {"mean_100": mean, "ci95_100": ci95}


DOMAIN = Made(
    kind="curves",
    made=CURVES,
    published=_published,
    net=_net,
    objective=SquaredError(),
    family=_family,
    summary=_summary,
    protocol=lambda recipe: Judging(10_000, 1),
    loop="unroll",
    at_once=500,
)
