"""Images: few-shot classification by convolutional networks. Baik et al. 2020, sections 4.1 and 4.2 and supplement E."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import nets
from lethax.data.source import on_device
from lethax.domains import prepared, supervised
from lethax.domains.contract import Family, Inputs, Judged, Judging
from lethax.errors import DataError, RecipeError
from lethax.evaluate import Trial
from lethax.learner import Learner
from lethax.methods.registry import Method, method_of
from lethax.nets.layers import ConvForm
from lethax.objectives import CrossEntropy
from lethax.outer import Plan
from lethax.recipe import Recipe, Resolved

_SMALLEST = 16  # pixels that conv4 can halve four times


class Images:
    """Tasks are N classes of a prepared data set of pictures."""

    kind = "images"
    sections: tuple[str, ...] = ()
    without = frozenset({"net.depth", "net.deviation"})
    made: tuple[str, ...] = ()
    classes = True
    episodes, curve = 600, 10
    drawings: tuple[str, ...] = ()
    table = "scores"
    milder = "--inner-rate or --outer-rate, --clip-norm 10"

    def claims(self, recipe: Recipe) -> bool:
        """All that nothing else claims."""
        return True

    def defaults(self, recipe: Recipe, method: Method) -> Mapping[str, Any]:
        """The settings of the paper and of the released code, by data set; mini-ImageNet's for any other."""
        net, shot = recipe.get("net.kind", "conv4"), recipe.get("episode.shot", 5)
        omniglot, imagenet = recipe.data.startswith("omniglot"), "imagenet" in recipe.data
        paper = recipe.preset == "paper"
        budget = 30_000 if not paper and method.name in ("l2f", "maml+l2f") and imagenet else 50_000
        small = 1 if net == "resnet12" else (4 if shot == 1 else 2)
        query = recipe.get("episode.query", 1 if omniglot else 15)
        return {
            "episode.query": query, "episode.eval_query": query, "episode.rotate": omniglot, "net.kind": net,
            "net.filters": 64 if paper or omniglot else 48,
            "outer.full_steps": 125_000 if recipe.data.startswith("tiered") else budget,
            "outer.batch": 8 if omniglot else small, "outer.clamp": 10.0 if imagenet else 0.0,
            **({"outer.min_rate": 1e-5} if omniglot else {}),
            "inner.rate": 0.1 if omniglot else 0.01, "inner.first_order_steps": 0 if omniglot or paper else 5_500,
            "inner.multi_step_epochs": 10 if omniglot else 15,  # of a hundred
        }  # fmt: skip

    def check(self, recipe: Resolved) -> None:
        """Episodes have several classes."""
        prepared.check_way(recipe)

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """The episodes that the classes allow."""
        return prepared.fit(recipe, usual)

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """Of the prepared data set; RecipeError where it holds features."""
        found = prepared.inputs(recipe)
        if len(found.example) == 1:
            raise RecipeError(
                f"net '{recipe.net.kind}' does not fit data '{recipe.data}': it holds features, which take --net mlp or "
                "--method leo."
            )
        return found

    def net(self, recipe: Resolved, inputs: Inputs) -> Any:
        """The network; DataError for pictures that are too small for it."""
        form: ConvForm = "patches" if supervised.lean(recipe) else "native"
        norm_steps = recipe.inner.steps if recipe.net.per_step_norm else 0
        height, _, channels = inputs.example
        if recipe.net.kind == "resnet12":
            return nets.ResNet12(
                recipe.episode.way, channels, variant=recipe.preset, norm_steps=norm_steps, conv_form=form
            )
        if height < _SMALLEST:
            raise DataError(
                f"images of {inputs.data} are {height} px; conv4 halves them four times and needs {_SMALLEST}."
            )
        return nets.Conv4(
            recipe.episode.way, height, channels, recipe.net.filters, norm_steps=norm_steps, conv_form=form
        )

    def learner(self, recipe: Resolved, inputs: Inputs | None) -> Learner:
        """The method on the network."""
        assert inputs is not None
        loop = "scan" if supervised.lean(recipe) else "unroll"
        learner: Learner = method_of(recipe).make(self.net(recipe, inputs), recipe, objective=CrossEntropy(), loop=loop)
        return learner

    def plan(self, recipe: Resolved) -> Plan:
        """Each core has tasks of its own. A convolutional net on a processor takes one step a call: see `layers.conv`."""
        chunk = 1 if supervised.on_cpu() else supervised.CHUNK
        return supervised.plan(recipe, *supervised.through(recipe, recipe.outer.batch), chunk)

    def family(self, recipe: Resolved, split: str) -> Family:
        """Pictures on the device; turned classes in training alone."""
        store = prepared.store_of(recipe, split)
        rotate = recipe.episode.rotate and split == "train"
        return Family(*on_device(store.splits[split], store.mean, store.std, rotate))

    def _trial(self, recipe: Resolved, episodes: int, steps: int, curve: bool) -> Trial:
        together = len(jax.devices())
        task_loop, devices = supervised.through(recipe, together)
        shape = supervised.shape_of(recipe, "test")
        return Trial(shape, episodes, steps, curve, task_loop, together, devices)

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """The accuracy in each episode."""
        trial = self._trial(recipe, episodes, steps, curve)
        return supervised.judge(self.learner(recipe, inputs), metas, self.family(recipe, split), trial, key)

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """Of three episodes' pictures."""
        return supervised.hash_of(recipe, self.family(recipe, split), episodes, key)

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> Resolved:
        """A data set of pictures of the same size."""
        assert inputs is not None
        return prepared.elsewhere(recipe, inputs, data)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """By the classes of the split."""
        prepared.check_split(recipe, split)

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """The nearest prototype of pixels on the same episodes."""
        trial = self._trial(recipe, len(table), 0, True)
        return prepared.report(recipe, self.family(recipe, split), trial, table, key)

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def protocol(self, recipe: Resolved) -> Judging:
        """That of the released code."""
        return prepared.protocol(recipe)

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """Never: one net fills the machine."""
        return None
