"""Control: meta-reinforcement learning of navigation and locomotion by MAML-TRPO. Baik et al. 2020, 4.4 and supplement D."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.domains.contract import Family, Inputs, Judged, Judging, Values
from lethax.domains.made import another
from lethax.errors import DivergedError, RecipeError
from lethax.learner import Learner
from lethax.methods.registry import METHODS, Method, method_of
from lethax.names import LOCOMOTION, NAVIGATION, navigation_setting
from lethax.nets.policy import GaussianPolicy
from lethax.recipe import Recipe, Resolved
from lethax.rl import evaluate as returns
from lethax.rl import film
from lethax.rl.locomotion import Locomotion
from lethax.rl.navigation import Navigation
from lethax.rl.objective import PolicyGradient
from lethax.rl.outer import PolicyPlan
from lethax.rl.physics import need
from lethax.rl.trpo import TrustRegion

_UNFIT = ("maml_pp", "mumomaml", "cavia", "reptile", "imaml")  # methods that have no policies
_TEST_TASKS = 40


@final
@dataclass(frozen=True, kw_only=True)
class Control:
    """A policy learns from rollouts in one task after another.

    made: the settings, by name. environment: the tasks of a recipe. own: values of the domain's own section. shot, horizon:
    rollouts an update and their steps, as published. compared: whether returns in one setting compare with those in another.
    on_device: whether the environment is part of the compiled program, so that runs can train together. sections, drawings: as
    in `contract.Domain`.
    """

    made: tuple[str, ...]
    sections: tuple[str, ...]
    environment: Callable[[Resolved], Any]
    own: Callable[[Recipe], Values]
    shot: int
    horizon: int
    drawings: tuple[str, ...]
    compared: bool
    on_device: bool

    kind: ClassVar[str] = "control"
    without: ClassVar[frozenset[str]] = frozenset({
        "episode.way", "episode.query", "episode.eval_query", "episode.rotate", "net.kind", "net.norm", "net.per_step_norm",
        "net.deviation", "net.precision", "inner.head", "inner.first_order_steps", "inner.multi_step_steps",
        "inner.multi_step_epochs", "outer.rate", "outer.min_rate", "outer.clamp", "outer.clip_norm", "outer.clip_tensor_norm",
        "outer.reduction", "outer.weight_decay", "outer.task_chunk",
    })  # fmt: skip
    classes: ClassVar[bool] = False
    episodes: ClassVar[int] = _TEST_TASKS
    curve: ClassVar[int] = 4
    table: ClassVar[str] = "returns"
    milder: ClassVar[str] = "a smaller --inner-rate"
    drawn: ClassVar[frozenset[str]] = frozenset()

    def claims(self, recipe: Recipe) -> bool:
        """Whether the data have a name of this domain."""
        return recipe.data in self.made

    def defaults(self, recipe: Recipe, method: Method) -> Values:
        """Baik et al. 2020, Table E(b), and values of our own for what it leaves open.

        Under "paper" the inner rate is 0.01 and the longest move 0.2; under "code" both are 0.1. MAML's code has the same longest
        move, but an inner rate of 0.5 in navigation (the table `navigation_maml`); its half-cheetah has 0.1. Differs: gates start
        near 1, not near a half: with a half, the rollouts that the first update learns from are of a policy that is far from the
        attenuated one and that nothing trains, and validation returns in navigation stay where they were.
        """
        shot = recipe.get("episode.shot", self.shot)
        return {
            "episode.way": 1, "episode.shot": shot, "episode.query": shot, "episode.eval_query": shot, "net.kind": "mlp",
            "net.filters": 100, "net.depth": 2, "outer.full_steps": 500, "outer.epoch": 10, "outer.val_episodes": 40,
            "outer.batch": self.shot, "inner.steps": 1, "inner.rate": 0.01 if recipe.preset == "paper" else 0.1,
            "gate.bias_init": 4.0, "control.horizon": self.horizon, **self.own(recipe),
        }  # fmt: skip

    def check(self, recipe: Resolved) -> None:
        """Raise RecipeError for a method that cannot train policies, and for options that exclude each other."""
        if method_of(recipe).plain in _UNFIT:
            names = (m.name for m in METHODS.values() if m.name == m.plain and m.name not in _UNFIT and not m.kinds)
            raise RecipeError(
                f"method '{recipe.method}' does not fit data '{recipe.data}': control takes {', '.join(names)}, each also "
                "with +l2f."
            )
        if not recipe.inner.steps:
            raise RecipeError("inner.steps is 0; in control a policy takes one update or more: give --inner-steps 1.")
        if recipe.reads("gate") and recipe.gate.every_step and recipe.control.resample:
            raise RecipeError(
                "control.resample draws new rollouts of the attenuated policy once, before the first update, and gate.every_step "
                "attenuates before every update: leave one of them out."
            )

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """Leave the recipe as it is, because tasks allow any number of rollouts. RecipeError for a memory that it does not have."""
        if recipe.memory != "fast":
            raise RecipeError(f"memory is {recipe.memory}, which changes nothing in control: leave it out.")
        return recipe, ""

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """None, because tasks are made. An error says so if their simulator is missing."""
        self.environment(recipe)
        return None

    def identity(self, recipe: Resolved) -> str | None:
        """None, because tasks are made."""
        return None

    def columns(self, recipe: Resolved, split: str) -> tuple[str | None, ...]:
        """The run's own setting alone."""
        return (None,)

    def learner(self, recipe: Resolved, inputs: Inputs | None = None) -> Learner:
        """Make the method's learner on a policy."""
        world, control = self.environment(recipe), recipe.control
        policy = GaussianPolicy(
            world.observations, world.actions, (recipe.net.filters,) * recipe.net.depth, control.activation
        )
        learner: Learner = method_of(recipe).make(
            policy,
            recipe,
            kept=() if control.gate_log_std else ("log_std",),
            objective=PolicyGradient(control.loss),
            derivative="plain",
        )
        return learner

    def plan(self, recipe: Resolved) -> PolicyPlan:
        """Make the plan of the outer loop, whose step is a trust-region step."""
        control, outer = recipe.control, recipe.outer
        region = TrustRegion(
            control.max_kl, control.cg_iterations, damping=control.damping, backtrack=control.backtrack,
            backtracks=control.backtracks,
        )  # fmt: skip
        return PolicyPlan(
            outer.steps, outer.batch, recipe.episode.shot, control.discount, control.smoothing, region, control.cg_share,
            control.resample, outer.epoch, skip=outer.non_finite == "skip",
            task_loop="scan" if jax.default_backend() == "cpu" else "vmap",
        )  # fmt: skip

    def family(self, recipe: Resolved, split: str) -> Family:
        """The environment, which draws its tasks itself."""
        return Family(self.environment(recipe), ())

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """Yield the mean return in each task after 0 … `steps` updates, or, not for a curve, the mean over updates 1 to 4.

        The latter is what a checkpoint is chosen by: after one update alone, returns are flat within their noise early in training,
        and the checkpoint would be chosen by chance. RecipeError for an ensemble of policies.
        """
        if len(metas) > 1:
            raise RecipeError(f"an ensemble of {len(metas)} policies was asked for; control judges one: --ensemble 1.")
        world = self.environment(recipe)
        fixed = returns.test_tasks(world, key, episodes)
        later, updates = recipe.control.later_rate, steps if curve else max(steps, self.curve)
        plan = replace(self.plan(recipe), rollouts=judged_rollouts(recipe))
        judged = returns.evaluate(self.learner(recipe), plan, metas[0], world, fixed, key, updates, later)
        if curve:
            yield from (Judged(table, seen) for table, seen in judged)
            return
        try:
            yield from (Judged(table[:, 1:].mean(axis=1, keepdims=True), seen) for table, seen in judged)
        except (
            DivergedError
        ):  # in a simulator; a checkpoint that diverges in later updates is not chosen, and training goes on
            yield Judged(np.full((episodes, 1), np.nan), {})

    def films(self, recipe: Resolved, meta: Any, key: PRNGKeyArray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Record (task, positions [T, qpos] before and after adaptation) in the first and the last of the fixed tasks."""
        world, learner, plan = self.environment(recipe), self.learner(recipe), self.plan(recipe)
        fixed = returns.test_tasks(world, key, _TEST_TASKS)
        rolled = jax.random.fold_in(key, 1)  # the tasks are of 0
        return [(task, *film.positions(learner, plan, meta, world, task, rolled)) for task in (fixed[0], fixed[-1])]

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """A hash of the fixed tasks."""
        world = self.environment(recipe)
        fixed = np.ascontiguousarray(returns.test_tasks(world, key, episodes), np.float32)
        about = repr((recipe.data, judged_rollouts(recipe), world.horizon)).encode()
        return hashlib.sha256(about + fixed.tobytes()).hexdigest()[:16]

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> "tuple[Control, Resolved]":
        """The recipe in another setting. RecipeError if rewards are other ones there."""
        if not self.compared and data != recipe.data:
            raise RecipeError(f"a run on {recipe.data} cannot be judged on {data}: their rewards are not comparable.")
        return self, another(recipe, data, self.made)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """Every split allows any episode."""

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """The returns of every task after every number of updates."""
        return {"returns": table.tolist()}

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """A rollout of every task after every number of updates."""
        names = ("tasks", "observations", "alive")
        return {name: np.concatenate([part.seen[name] for part in judged]) for name in names}

    def protocol(self, recipe: Resolved) -> Judging:
        """40 tasks after 0 to 4 updates. Runs in the first setting are also evaluated in the others that compare."""
        others = self.made[1:] if self.compared and recipe.data == self.made[0] else ()
        return Judging(_TEST_TASKS, 1, 4, others)

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """Runs of one shape train together, but never with a simulator, which runs on the host."""
        if not self.on_device:
            return None
        return self.learner(recipe, inputs), self.plan(recipe), self.environment(recipe)


def judged_rollouts(recipe: Resolved) -> int:
    """The rollouts of an update in validation and evaluation: a number of their own, or else as many as in training."""
    own = recipe.control.eval_rollouts
    return own if own > 0 else recipe.episode.shot


def _point(recipe: Resolved) -> Navigation:
    setting: Any = navigation_setting(recipe.data)
    own = recipe.navigation
    return Navigation(setting, own.limit, own.actions, own.starts, recipe.control.horizon)


def _robot(recipe: Resolved) -> Locomotion:
    """Make the robot's environment. EnvironmentFault if MuJoCo is missing."""
    need("mujoco")  # said before a folder is made
    own = recipe.locomotion
    return Locomotion(recipe.data, own.physics, recipe.control.horizon, own.action_scale, own.contact)


# A point finds its way to goals on a plane.
NAVIGATION_DOMAIN = Control(
    made=NAVIGATION,
    sections=("control", "navigation"),
    environment=_point,
    own=lambda recipe: {"navigation.limit": 0.2 if recipe.preset == "paper" else 0.1},
    shot=20,
    horizon=100,
    drawings=("paths",),
    compared=True,
    on_device=True,
)
# A robot of MuJoCo runs in a direction, at a speed, or to a goal.
LOCOMOTION_DOMAIN = Control(
    made=LOCOMOTION,
    sections=("control", "locomotion"),
    environment=_robot,
    own=lambda recipe: {"locomotion.action_scale": 10.0 if recipe.get("locomotion.physics", "gym") == "gym" else 1.0},
    shot=40,
    horizon=200,
    drawings=("films",),
    compared=False,
    on_device=False,
)
