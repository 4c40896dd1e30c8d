"""What curves, images and features have in common: learners with a query loss, one outer loop, one way to judge."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from lethax.devices import TaskLoop, devices_for
from lethax.domains.contract import Family, Judged
from lethax.evaluate import Trial, episodes_hash, evaluate
from lethax.outer import Plan
from lethax.recipe import Resolved
from lethax.records import EpisodeShape

CHUNK = 500  # outer steps in one compiled call where that is no slower than one


def shape_of(recipe: Resolved, split: str) -> EpisodeShape:
    """N, K, Q of a split's episodes."""
    episode = recipe.episode
    return EpisodeShape(episode.way, episode.shot, episode.query if split == "train" else episode.eval_query)


def on_cpu() -> bool:
    """Whether the programs run on the processor."""
    return jax.default_backend() == "cpu"


def lean(recipe: Resolved) -> bool:
    """Whether memory stays flat in inner steps: asked for, or a GPU's own way."""
    return recipe.memory == "lean" or not on_cpu()


def through(recipe: Resolved, tasks: int) -> tuple[TaskLoop, int]:
    """How a device goes through the tasks of a convolutional net, and the number of devices."""
    if not on_cpu():
        return "vmap", devices_for(tasks)
    return ("scan" if recipe.memory == "lean" else "unroll"), devices_for(tasks)


def plan(recipe: Resolved, task_loop: TaskLoop, devices: int, chunk: int) -> Plan:
    """The outer loop, with `chunk` steps in a call at most: calls end where the loop changes or is validated."""
    inner, outer = recipe.inner, recipe.outer
    while any(mark and mark % chunk for mark in (outer.epoch, inner.first_order_steps, inner.multi_step_steps)):
        chunk -= 1
    stairs = max(outer.full_steps // outer.epoch, 1)  # the published run anneals once an epoch
    return Plan(
        shape_of(recipe, "train"), outer.steps, outer.batch, outer.rate, outer.min_rate, stairs, outer.epoch, outer.clamp,
        outer.clip_norm, outer.clip_tensor_norm, outer.non_finite == "skip", outer.reduction, task_loop, chunk, devices,
    )  # fmt: skip


def judge(
    learner: Any,
    metas: Sequence[Any],
    family: Family,
    trial: Trial,
    key: PRNGKeyArray,
) -> Iterator[Judged]:
    """`evaluate` on a family."""
    for scores, seen in evaluate(learner, metas, *family, trial, key):
        yield Judged(scores, seen)


def hash_of(recipe: Resolved, family: Family, episodes: int, key: PRNGKeyArray) -> str:
    """Of the first, middle and last test episode."""
    return episodes_hash(*family, shape_of(recipe, "test"), key, episodes)
