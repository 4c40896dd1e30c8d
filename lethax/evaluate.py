"""Evaluation on fixed, seeded episodes: intervals, curves over inner steps, ensembles, paired differences."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from lethax.devices import TaskLoop, over_devices, over_tasks
from lethax.learner import Learner
from lethax.records import EpisodeShape


class Score(NamedTuple):
    """Scores of n episodes: mean, half-width 1.96 s/√n with the population deviation s, s, and every episode's score."""

    mean: float
    ci95: float
    std: float
    n: int
    per_task: np.ndarray


def score(per_task: np.ndarray) -> Score:
    """The interval over episodes; it is not the √(p(1 − p)) that the paper prints, see `bernoulli_std`."""
    per_task = np.asarray(per_task, np.float64)
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # an inner loop that diverged on a task has an error without bound
        n, std = len(per_task), float(per_task.std())
    return Score(float(per_task.mean()), 1.96 * std / n**0.5, std, n, per_task)


def bernoulli_std(accuracy: float) -> float:
    """√(p(1 − p)): what the published ± of the paper's classification tables is; not an interval."""
    return (accuracy * (1 - accuracy)) ** 0.5


def paired(first: np.ndarray, second: np.ndarray) -> Score:
    """first − second, episode by episode; both must come from the same episodes."""
    return score(np.asarray(first, np.float64) - np.asarray(second, np.float64))


def by_repeats(per_task: np.ndarray, repeats: int) -> tuple[float, float]:
    """Mean and half-width of the protocol 100 × 100 × 100: both are means over repeats of 100 curves each."""
    groups = [score(group) for group in np.split(np.asarray(per_task), repeats)]
    return float(np.mean([g.mean for g in groups])), float(np.mean([g.ci95 for g in groups]))


@dataclass(frozen=True)
class Trial:
    """What to evaluate on. Episode t is a function of (seed, t) and the split alone, the same for every method.

    episodes: how many. steps: inner steps, all of 0 … steps are judged if `curve`. task_loop, devices: as in `outer.Plan`;
    together: episodes in one compiled call.
    """

    shape: EpisodeShape
    episodes: int = 600
    steps: int = 5
    curve: bool = False
    task_loop: TaskLoop = "vmap"
    together: int = 1
    devices: int = 1


@partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(family: Any, shape: EpisodeShape, together: int, source: Any, key: PRNGKeyArray, first: Array) -> Any:
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(first + jnp.arange(together))
    return jax.vmap(lambda k: family.draw(source, shape, k))(keys)


@partial(jax.jit, static_argnums=(0, 1))
def _judge(learner: Learner, trial: Trial, metas: tuple[Any, ...], episodes: Any) -> tuple[Array, Any]:
    def one(metas: tuple[Any, ...], episode: Any) -> tuple[Array, Any]:
        outputs, gates = [], []
        for meta in metas:
            if trial.curve:
                path, info = learner.path(meta, episode, trial.steps)
            else:
                fast, info = learner.adapt(meta, episode.support)
                path = learner.predict(fast, episode.query.x, episode.query.mask)[None]
            outputs.append(path)
            gates += [info["gates"]] if "gates" in info else []
        mean = sum(outputs[1:], start=outputs[0]) / len(outputs)
        seen = {"gates": sum(gates[1:], start=gates[0]) / len(gates)} if gates else {}
        return jax.vmap(lambda o: learner.objective.score(o, episode.query.y, episode.query.mask))(mean), seen

    def local(metas: tuple[Any, ...], episodes: Any) -> tuple[Array, Any]:
        return over_tasks(lambda episode: one(metas, episode), episodes, trial.task_loop)

    return over_devices(local, trial.devices)(metas, episodes)


def evaluate(
    learner: Any, metas: Sequence[Any], family: Any, source: Any, trial: Trial, key: PRNGKeyArray
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yields (scores [n, 1 or steps + 1], {"gates": [n, L]}) of each call; several metas are an ensemble of mean outputs, and of
    mean gates.

    The inner loop is first order here: no derivative is taken through it.
    """
    for first in range(0, trial.episodes, trial.together):
        episodes = _draw(family, trial.shape, trial.together, source, key, jnp.asarray(first))
        scores, seen = _judge(learner, trial, tuple(metas), episodes)
        keep = min(trial.together, trial.episodes - first)
        yield np.asarray(scores)[:keep], {name: np.asarray(leaf)[:keep] for name, leaf in seen.items()}


def episodes_hash(family: Any, source: Any, shape: EpisodeShape, key: PRNGKeyArray, episodes: int) -> str:
    """SHA-256 (16 digits) of the first, middle and last episode's arrays: equal hashes, equal episodes."""
    digest = hashlib.sha256(repr((shape, episodes)).encode())
    for t in sorted({0, episodes // 2, episodes - 1}):
        episode = jax.tree.map(lambda leaf: leaf[0], _draw(family, shape, 1, source, key, jnp.asarray(t)))
        for leaf in jax.tree.leaves(episode):
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
