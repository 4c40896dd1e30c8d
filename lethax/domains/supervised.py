"""What all tasks with a support set, a query set and a loss share: the learner, the outer loop and the evaluation.

`Supervised` is abstract. Of where the data come from it knows nothing: `made.Made`, `prepared.Prepared` and
`metadataset.MetaDataset` are its final forms.
"""

from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import processes
from lethax.devices import TaskLoop, devices_for, each_has
from lethax.domains.contract import Family, Inputs, Judged, Judging, Values
from lethax.errors import RecipeError
from lethax.evaluation import Trial, episodes_hash, evaluate
from lethax.inner import Loop
from lethax.learner import Learner, Net
from lethax.meta_batch import Plan
from lethax.methods.registry import Method, method_of
from lethax.objectives import ScoredObjective
from lethax.recipe import Recipe, Resolved
from lethax.recipe.built_in import OuterSection
from lethax.records import EpisodeShape

CHUNK = 500  # outer steps in one compiled call where that is no slower than one


def _nothing(recipe: Recipe, method: Method) -> Values:
    return {}


def _judging(recipe: Resolved) -> Judging:
    return Judging(600, 1)


def blind(recipe: Resolved) -> str:
    """A remark if L2F's gates read a gradient that says nothing of the task, else the empty string."""
    gate = recipe.gate
    means = gate.embedding == "mean" and gate.scope in ("network", "layer", "tensor")
    of_task = means and gate.task_dependent and not gate.fixed
    if not (recipe.reads("gate") and of_task):
        return ""
    of_classes = recipe.method == "anil+l2f" or (recipe.method == "leo+l2f" and recipe.leo.gates != "class")
    if of_classes and "episode.way" in recipe.used:
        return (
            "the gradients of a softmax sum to 0 over the classes, so the means that L2F's gates read are 0 for all tasks: "
            "--gate.embedding mean_abs lets the gates differ"
        )
    if recipe.inner.head not in ("zero", "vector"):
        return ""
    return (
        f"under --head {recipe.inner.head} the first gradient says nothing of the task, so L2F's gates are equal for all tasks: "
        "--head prototypes lets them differ"
    )


@dataclass(frozen=True, kw_only=True)
class Supervised(ABC):
    """A domain whose tasks have a query loss.

    kind, sections, family, protocol, episodes, curve: as in `contract.Domain`. published: values of options, as far as they
    depend on the data, the method and what is given. unread: options that change nothing in these tasks. net: the network that fits
    the tasks. objective: what a task is judged by. loop: how inner steps are compiled, see `inner.descend`, unless memory is lean;
    None: as suits the device. convolutional: on a processor, the tasks of a meta-batch go through the network one after another, a
    step a call (see `layers.conv`). at_once: episodes in one call of an evaluation, unless the network is convolutional.
    """

    kind: str
    net: Callable[[Resolved, Inputs | None], Net]
    objective: ScoredObjective
    family: Callable[[Resolved, str], Family]
    published: Callable[[Recipe, Method], Values] = _nothing
    sections: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()
    protocol: Callable[[Resolved], Judging] = _judging
    episodes: int = 600
    curve: int = 10
    loop: Loop | None = None
    convolutional: bool = False
    at_once: int = 100

    same: ClassVar[Values]  # what holds in all domains of this form, unless they say otherwise
    never: ClassVar[frozenset[str]]  # what no domain of this form reads
    milder: ClassVar[str] = "a smaller --inner-rate or --outer-rate, or --clip-norm 10"
    table: ClassVar[str] = "scores"
    drawings: ClassVar[tuple[str, ...]] = ()
    drawn: ClassVar[frozenset[str]] = frozenset()

    @property
    def without(self) -> frozenset[str]:
        """The options that the domain does not read."""
        return self.never | self.unread

    def defaults(self, recipe: Recipe, method: Method) -> Values:
        """The published values."""
        return {**self.same, **self.published(recipe, method)}

    def columns(self, recipe: Resolved, split: str) -> tuple[str | None, ...]:
        """The run's own data alone."""
        return (None,)

    def learner(self, recipe: Resolved, inputs: Inputs | None = None) -> Learner:
        """Make the method's learner on the network. RecipeError for a narrow precision where JAX is set to float64."""
        narrow = recipe.net.precision
        if narrow != "float32" and jnp.result_type(float) == jnp.float64:
            raise RecipeError(
                f"net.precision is {narrow}, but JAX_ENABLE_X64=1 asks for float64: leave one of the two out."
            )
        usual = self.loop or ("unroll" if on_cpu() else "scan")
        loop: Loop = "scan" if recipe.memory == "lean" else usual
        made: Learner = method_of(recipe).make(self.net(recipe, inputs), recipe, objective=self.objective, loop=loop)
        return made

    def plan(self, recipe: Resolved) -> Plan:
        """Make the plan of the outer loop. A call takes many steps, and ends where the loop changes or is validated."""
        inner, outer = recipe.inner, recipe.outer
        task_loop, devices = self._through(recipe, outer.batch)
        chunk = 1 if self.convolutional and on_cpu() else CHUNK
        while any(mark and mark % chunk for mark in (outer.epoch, inner.first_order_steps, inner.multi_step_steps)):
            chunk -= 1
        # The published run anneals once an epoch, which is its own, however often this one is validated.
        method = method_of(recipe)
        known = method.published(self.kind, self.defaults(recipe.recipe, method))
        stairs = max(outer.full_steps // known.get("outer.epoch", OuterSection().epoch), 1)
        return Plan(
            shape_of(recipe, "train"), outer.steps, outer.batch, outer.rate, outer.min_rate, stairs, outer.epoch, outer.clamp,
            outer.clip_norm, outer.clip_tensor_norm, outer.non_finite == "skip", outer.reduction, task_loop, chunk, devices,
            outer.weight_decay, task_chunk=outer.task_chunk,
        )  # fmt: skip

    def _through(self, recipe: Resolved, tasks: int) -> tuple[TaskLoop, int]:
        """How a device goes through its tasks, and how many devices there are."""
        fast: TaskLoop = "unroll" if self.convolutional and on_cpu() else "vmap"
        devices = devices_for(tasks) if self.convolutional else devices_for(tasks, each=1)
        return ("scan" if recipe.memory == "lean" else fast), devices

    def trial(self, recipe: Resolved, episodes: int, steps: int, curve: bool) -> Trial:
        """Make the trial of an evaluation on `episodes` episodes."""
        together = processes.count() * (each_has() if self.convolutional else self.at_once)
        task_loop, devices = self._through(recipe, together)
        return Trial(shape_of(recipe, "test"), episodes, steps, curve, task_loop, together, devices)

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """Yield the score of the objective in each episode."""
        trial = self.trial(recipe, episodes, steps, curve)
        for scores, seen in evaluate(self.learner(recipe, inputs), metas, *self.family(recipe, split), trial, key):
            yield Judged(scores, seen)

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """A hash of the first, the middle and the last episode."""
        return episodes_hash(*self.family(recipe, split), shape_of(recipe, "test"), key, episodes)

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """Nothing is kept."""
        return {}

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """Runs train together if only the arrays of their families differ. A convolutional net fills the machine alone."""
        if self.convolutional:
            return None
        return self.learner(recipe, inputs), self.plan(recipe), self.family(recipe, "train").tasks


def shape_of(recipe: Resolved, split: str) -> EpisodeShape:
    """The shape N, K, Q of the episodes of a split."""
    episode = recipe.episode
    return EpisodeShape(episode.way, episode.shot, episode.query if split == "train" else episode.eval_query)


def on_cpu() -> bool:
    """Whether programs run on the CPU."""
    return jax.default_backend() == "cpu"
