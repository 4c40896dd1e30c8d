"""Features: few-shot classification of feature vectors of a backbone, the domain of LEO. Rusu et al. 2019."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import nets
from lethax.data.source import features_on_device
from lethax.data.store import find_store
from lethax.domains import prepared, supervised
from lethax.domains.contract import Family, Inputs, Judged, Judging
from lethax.errors import RecipeError
from lethax.evaluate import Trial
from lethax.learner import Learner
from lethax.methods.registry import Method, method_of
from lethax.objectives import CrossEntropy
from lethax.outer import Plan
from lethax.recipe import Recipe, Resolved

_TOGETHER = 20  # episodes in one call of an evaluation


class Features:
    """Tasks are N classes of a prepared data set of feature vectors."""

    kind = "features"
    sections: tuple[str, ...] = ()
    without = frozenset({"episode.rotate", "net.norm", "net.per_step_norm"})
    made: tuple[str, ...] = ()
    classes = True
    episodes, curve = 600, 10
    drawings: tuple[str, ...] = ()
    table = "scores"
    milder = "--inner-rate or --outer-rate, --clip-norm 10"

    def claims(self, recipe: Recipe) -> bool:
        """By the network or the method that is asked for; else by what the data set holds."""
        if recipe.method in ("leo", "leo+l2f"):
            return True
        if recipe.get("net.kind"):
            return bool(recipe.get("net.kind") == "mlp")
        store = find_store(recipe.data)
        return store is not None and bool(store.features)

    def defaults(self, recipe: Recipe, method: Method) -> Mapping[str, Any]:
        """A small net; ours."""
        query = recipe.get("episode.query", 15)
        return {
            "episode.query": query, "episode.eval_query": query, "net.kind": "mlp", "net.filters": 100, "net.depth": 2,
        }  # fmt: skip

    def check(self, recipe: Resolved) -> None:
        """Episodes have several classes."""
        prepared.check_way(recipe)

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """The episodes that the classes allow."""
        return prepared.fit(recipe, usual)

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """Of the prepared data set; RecipeError where it holds images."""
        found = prepared.inputs(recipe)
        if len(found.example) != 1:
            wrong, right = (
                (f"method '{recipe.method}'", "take conv4 or resnet12; leo takes features, see lethax embed")
                if recipe.reads("leo")
                else ("net 'mlp'", "take conv4 or resnet12")
            )
            raise RecipeError(f"{wrong} does not fit data '{recipe.data}': it holds images, which {right}.")
        return found

    def learner(self, recipe: Resolved, inputs: Inputs | None) -> Learner:
        """The method on a fully connected network."""
        assert inputs is not None
        hidden = (recipe.net.filters,) * recipe.net.depth
        net = nets.MLP(inputs.example[0], hidden, recipe.episode.way, spread=recipe.net.deviation)
        loop = "scan" if supervised.lean(recipe) else "unroll"
        learner: Learner = method_of(recipe).make(net, recipe, objective=CrossEntropy(), loop=loop)
        return learner

    def plan(self, recipe: Resolved) -> Plan:
        """All tasks of an outer step at once, many steps a call."""
        return supervised.plan(recipe, "vmap", 1, supervised.CHUNK)

    def family(self, recipe: Resolved, split: str) -> Family:
        """Features on the device."""
        return Family(*features_on_device(prepared.store_of(recipe, split).splits[split]))

    def _trial(self, recipe: Resolved, episodes: int, steps: int, curve: bool) -> Trial:
        return Trial(supervised.shape_of(recipe, "test"), episodes, steps, curve, "vmap", _TOGETHER, 1)

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """The accuracy in each episode."""
        trial = self._trial(recipe, episodes, steps, curve)
        return supervised.judge(self.learner(recipe, inputs), metas, self.family(recipe, split), trial, key)

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """Of three episodes' features."""
        return supervised.hash_of(recipe, self.family(recipe, split), episodes, key)

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> Resolved:
        """A data set of features as long."""
        assert inputs is not None
        return prepared.elsewhere(recipe, inputs, data)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """By the classes of the split."""
        prepared.check_split(recipe, split)

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """The nearest prototype on the same episodes."""
        trial = self._trial(recipe, len(table), 0, True)
        return prepared.report(recipe, self.family(recipe, split), trial, table, key)

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def protocol(self, recipe: Resolved) -> Judging:
        """LEO: 10 000 episodes and the best checkpoint, as published."""
        return Judging(10_000, 1) if recipe.reads("leo") else prepared.protocol(recipe)

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """Runs of one data set and one shape."""
        return self.learner(recipe, inputs), self.plan(recipe), self.family(recipe, "train").tasks
