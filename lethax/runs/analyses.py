"""Analyses of trained runs: what is measured of the best checkpoint, on fixed episodes. `MEASURES` has them by name."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from lethax import trees
from lethax.analysis import attenuation, conflict, landscape, surface
from lethax.analysis.gradients import Batch
from lethax.domains.contract import Family
from lethax.domains.supervised import Supervised
from lethax.errors import RunError
from lethax.evaluation import Trial, draw, evaluate
from lethax.learner import Learner
from lethax.meta_batch import Plan
from lethax.methods.l2f import Attenuator
from lethax.methods.maml import MAML
from lethax.methods.parts import normed_layers
from lethax.records import Episode, Progress
from lethax.runs.evaluation import best_metas
from lethax.runs.folder import Run, check_data
from lethax.streams import Stream, stream, test_key
from lethax.text import shown

_TOGETHER = (
    16  # tasks whose meta-gradients make one landscape, and whose examples are compared: each costs many gradients
)

Tell = Callable[[float, str], None]  # hears the share that is done, and what is done now


class Trained(NamedTuple):
    """A trained run to be analysed: its best meta-parameters, of outer step `step`, and the episodes that it is looked at on."""

    run: Run
    learner: Learner
    meta: Any
    step: int
    family: Family
    trial: Trial
    seed: int

    @property
    def key(self) -> PRNGKeyArray:
        """The key of the episodes."""
        return test_key(self.seed)

    @property
    def score_name(self) -> str:
        """What a score is, such as "accuracy"."""
        return self.learner.objective.score_name

    def judge(self, learner: Learner, meta: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The score of every episode [N], and what was seen of it, such as "gates" [N, L]."""
        parts = list(evaluate(learner, [meta], *self.family, self.trial, self.key))
        seen = {name: np.concatenate([of_part[name] for _, of_part in parts]) for name in parts[0][1]}
        return np.concatenate([scores[:, 0] for scores, _ in parts]), seen

    def episodes(self) -> Iterator[Episode]:
        """The episodes one after another, the same that `judge` has."""
        for number in range(self.trial.episodes):
            batch = draw(self.family.tasks, self.trial.shape, 1, self.family.source, self.key, jnp.asarray(number))
            yield trees.at(batch, 0)


def open_trained(run: Run, *, tasks: int, split: str, seed: int) -> Trained:
    """Load the best checkpoint of a run, with `tasks` episodes of a split. RunError if its tasks have none of one shape."""
    domain = run.domain
    if not isinstance(domain, Supervised) or domain.drawn:
        raise RunError(
            f"{shown(run.folder)} is of {shown(run.recipe.data, 60)}, whose tasks have no support and query sets of one shape: "
            "analyse takes runs of curves, images and features."
        )
    check_data(run, "analyse another run")
    domain.check_split(run.recipe, split)
    metas, steps = best_metas(run, 1)
    trial = domain.trial(run.recipe, tasks, run.recipe.inner.steps, curve=False)
    learner = run.learner().at(run.recipe.outer.steps)  # that of the end: without a multi-step loss
    return Trained(run, learner, metas[0], steps[0], domain.family(run.recipe, split), trial, seed)


def _check_gates(trained: Trained) -> None:
    if not trained.learner.gate_names():
        raise RunError(
            f"{shown(trained.run.folder)} has no gates, as its method is {shown(trained.run.recipe.method, 60)}: name runs of a "
            "method with L2F's start."
        )


def _gates(trained: Trained, tell: Tell) -> attenuation.Gates:
    tell(0.0, "")
    _, seen = trained.judge(trained.learner, trained.meta)
    tell(1.0, "")
    return attenuation.gates(trained.learner.gate_names(), seen["gates"])


def _moving_layers(learner: MAML, weights: Any) -> list[str]:
    """The layers that the inner loop moves, from input to output."""
    return attenuation.layers_of(trees.names(trees.partition(weights, learner.mask(weights))[0]))


def _check_path(trained: Trained) -> None:
    if not isinstance(trained.learner, MAML):
        raise RunError(
            f"{shown(trained.run.folder)} is of method {shown(trained.run.recipe.method, 60)}, whose inner loop does not move the "
            "weights of the net: there are no layers to attenuate and no path of weights to follow."
        )


def _check_stops(trained: Trained) -> None:
    """What `_check_path` raises, and RunError where the gradients that move the weights are not those of the path's stops."""
    _check_path(trained)
    if trained.run.recipe.gate.every_step:
        raise RunError(
            f"{shown(trained.run.folder)} attenuates its weights before every inner step, and their gradient is that of the "
            "attenuated weights, which are no stops of the path to follow: name runs without --gate.every-step."
        )


def _attenuation(trained: Trained, tell: Tell) -> attenuation.ByHand:
    learner = trained.learner
    assert isinstance(learner, MAML)
    ungated, layers = replace(learner, start=None), _moving_layers(learner, trained.meta["weights"])
    return attenuation.by_hand(
        trained.score_name, lambda meta: trained.judge(ungated, meta)[0], trained.meta, layers, tell=tell
    )


def _gated_before_norm(trained: Trained) -> tuple[str, ...]:
    """The layers that have a gate and a batch norm behind it."""
    learner = trained.learner
    if not isinstance(learner, MAML) or not isinstance(learner.start, Attenuator):
        return ()
    moving = _moving_layers(learner, trained.meta["weights"])
    return tuple(layer for layer in normed_layers(learner.net) if layer in moving)


def _check_effects(trained: Trained) -> None:
    if not _gated_before_norm(trained):
        raise RunError(
            f"{shown(trained.run.folder)} has no gates before a batch norm: name runs of a method with L2F's start on a net with "
            "batch norms, such as conv4."
        )
    assert isinstance(trained.learner, MAML)
    if not trained.learner.linear:
        raise RunError(
            f"{shown(trained.run.folder)} has inner steps that are not linear in the gradient, so that no factor of the rate does "
            "what its gates do: name runs of another rule, without --inner-clamp and not of imaml."
        )


def _effects(trained: Trained, tell: Tell) -> attenuation.Effects:
    learner, normed = trained.learner, _gated_before_norm(trained)
    assert isinstance(learner, MAML) and isinstance(learner.start, Attenuator)
    start = learner.start
    held = replace(start, acts="weights", ungated=tuple(dict.fromkeys((*start.ungated, *normed))))
    ways = {
        "L2F: γ θ, rate α": replace(start, acts="weights"),
        "rate alone: θ, rate α/γ²": replace(start, acts="rate", normed=normed),
        "size alone: γ θ, rate α γ²": replace(start, acts="size", normed=normed),
        "neither: θ, rate α": held,
        "no gates at all": None,
    }
    scores = []
    for done, (way, of_way) in enumerate(ways.items()):
        tell(done / len(ways), way)
        scores.append(trained.judge(replace(learner, start=of_way), trained.meta)[0])
    tell(1.0, "")
    return attenuation.Effects(trained.score_name, list(ways), np.stack(scores).astype(np.float64))


def _surface(trained: Trained, tell: Tell) -> surface.Surface:
    found, directions = [], stream(jax.random.key(trained.seed), Stream.ANALYSIS)
    for done, episode in enumerate(trained.episodes()):
        tell(done / trained.trial.episodes, "")
        key = jax.random.fold_in(directions, done)
        of_task = surface.of_task(trained.learner, trained.meta, episode, key)
        if of_task is None:
            raise RunError(
                f"{shown(trained.run.folder)} has no surface: its inner loop moves no weights, or only vectors, or a last layer "
                "that starts at 0, or it diverges."
            )
        found.append(of_task)
    tell(1.0, "")
    return trees.mean(found)


def _batch(trained: Trained, tasks: int) -> Batch:
    """The first episodes as a meta-batch at the end of training."""
    episodes = draw(
        trained.family.tasks, trained.trial.shape, tasks, trained.family.source, trained.key, jnp.asarray(0)
    )
    plan = trained.run.plan()
    assert isinstance(plan, Plan)
    progress = Progress(jnp.asarray(plan.total), jnp.asarray(plan.total))
    return Batch(episodes, jax.random.split(trained.key, tasks), progress, plan.reduction)


class Landscapes(NamedTuple):
    """The landscape along inner steps, arrays [N, J], and at the initialisation, on the meta-batch of the first tasks."""

    inner: landscape.Landscape
    initialisation: landscape.Landscape
    batch: int


def _landscape(trained: Trained, tell: Tell) -> Landscapes:
    rate, tasks = trained.run.recipe.inner.rate, trained.trial.episodes
    steps, found = [rate * multiple for multiple in landscape.MULTIPLES], []
    for number, episode in enumerate(trained.episodes()):
        tell(number / (tasks + 1), "inner steps")
        found.append(landscape.of_inner_steps(trained.learner, trained.meta, episode.support, steps))
    tell(tasks / (tasks + 1), "initialisation")
    count = min(tasks, _TOGETHER)
    whole = landscape.of_initialisation(trained.learner, trained.meta, _batch(trained, count), steps)
    tell(1.0, "")
    return Landscapes(landscape.Landscape(*map(np.stack, zip(*found, strict=True))), whole, count)


def _check_conflict(trained: Trained) -> None:
    _check_stops(trained)
    if trained.trial.episodes < 2:
        raise RunError("conflict compares tasks with each other: give --tasks 2 or more.")


def _conflict(trained: Trained, tell: Tell) -> conflict.Conflicts:
    tasks = trained.trial.episodes
    tell(0.0, "between tasks")
    between = conflict.between_tasks(trained.learner, trained.meta, _batch(trained, tasks))
    within, count = [], min(tasks, _TOGETHER)
    for number, episode in zip(range(count), trained.episodes(), strict=False):
        tell(0.5 + 0.5 * number / count, "within tasks")
        within.append(conflict.within_task(trained.learner, trained.meta, episode.support))
    tell(1.0, "")
    return conflict.both(between, within)


class Measure(NamedTuple):
    """An analysis: what it measures of a trained run, a check that raises RunError for runs that it cannot measure, and the number
    of tasks unless another is given."""

    measure: Callable[[Trained, Tell], Any]
    check: Callable[[Trained], None]
    tasks: int = 100


# To add one: its functions here, its view in `report.analyses.VIEWS`, and its name in `cli.arguments.What`.
MEASURES = {
    "gates": Measure(_gates, _check_gates, 300),
    "attenuation": Measure(_attenuation, _check_path),
    "effects": Measure(_effects, _check_effects, 300),
    "surface": Measure(_surface, _check_stops, 1),
    "landscape": Measure(_landscape, _check_stops),
    "conflict": Measure(_conflict, _check_conflict),
}
