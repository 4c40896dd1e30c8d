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
from scipy.special import stdtrit

from lethax import processes, trees
from lethax.devices import TaskLoop, divided, everywhere, over_devices, over_tasks
from lethax.learner import Classifier, HostFamily, Learner, TaskFamily, read
from lethax.objectives import ScoredObjective
from lethax.records import Episode, EpisodeShape

Judged = Learner | Classifier  # what has outputs for the queries of an episode


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


def over_seeds(of_seeds: Sequence[float]) -> float | None:
    """Half-width of the 95 % interval over training runs: Student's t, t(0.975, n − 1) s/√n with the sample deviation s.

    of_seeds: the score, or the difference, of each of n runs. None for one run, which says nothing about another.
    """
    n = len(of_seeds)
    if n < 2:
        return None
    return float(stdtrit(n - 1, 0.975) * np.std(np.asarray(of_seeds, np.float64), ddof=1) / n**0.5)


def by_repeats(per_task: np.ndarray, repeats: int) -> tuple[float, float]:
    """Mean and half-width of the protocol 100 × 100 × 100: both are means over repeats of 100 curves each."""
    groups = [score(group) for group in np.split(np.asarray(per_task), repeats)]
    return float(np.mean([g.mean for g in groups])), float(np.mean([g.ci95 for g in groups]))


@dataclass(frozen=True)
class Trial:
    """What a learner is evaluated on. Episode t is a function of the key, t and the data alone: it is the same for every method.

    Arguments:
        shape: the classes, support and query examples of an episode.
        episodes: the number of episodes.
        steps: the number of inner steps; only read where `curve` is True, as the learner has its own number.
        curve: True judges the query outputs after each of 0 … `steps` inner steps; False judges them after the learner's own.
        task_loop, devices: as in `meta_batch.Plan`.
        together: the number of episodes in one compiled call.

    Example: see `evaluate`.
    """

    shape: EpisodeShape
    episodes: int = 600
    steps: int = 5
    curve: bool = False
    task_loop: TaskLoop = "vmap"
    together: int = 1
    devices: int = 1


def draw(
    family: TaskFamily | HostFamily, shape: EpisodeShape, together: int, source: Any, key: PRNGKeyArray, first: Array
) -> Episode:
    """Draw the episodes `first`, `first` + 1, … of a key, as many as `together`, with a leading axis.

    A `HostFamily` reads them, some in shapes of their own.
    """
    if isinstance(family, HostFamily):
        return read(family, source, shape, key, int(first), together, episode_keys)
    return _drawn(family, shape, together, source, key, first)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn(
    family: TaskFamily, shape: EpisodeShape, together: int, source: Any, key: PRNGKeyArray, first: Array
) -> Episode:
    return jax.vmap(lambda k: family.draw(source, shape, k))(episode_keys(key, first, together))


def episode_keys(key: PRNGKeyArray, first: Any, count: int) -> Array:
    """The keys of `count` test episodes from number `first` on."""
    return jax.vmap(lambda t: jax.random.fold_in(key, t))(first + jnp.arange(count))


@partial(jax.jit, static_argnums=(0, 1))
def _judge(learner: Judged, trial: Trial, metas: tuple[Any, ...], episodes: Episode) -> tuple[Array, Any]:
    objective = learner.objective
    assert isinstance(objective, ScoredObjective)

    def one(metas: tuple[Any, ...], episode: Episode) -> tuple[Array, Any]:
        outputs, gates = [], []
        for meta in metas:
            if trial.curve or not isinstance(learner, Learner):
                path, info = learner.path(meta, episode, trial.steps)
            else:
                fast, info = learner.adapt(meta, episode.support)
                path = learner.predict(fast, episode.query.x, episode.query.mask)[None]
            outputs.append(path)
            gates += [info["gates"]] if "gates" in info else []
        mean = sum(outputs[1:], start=outputs[0]) / len(outputs)
        seen = {"gates": sum(gates[1:], start=gates[0]) / len(gates)} if gates else {}
        return jax.vmap(lambda o: objective.score(o, episode.query.y, episode.query.mask))(mean), seen

    def local(metas: tuple[Any, ...], episodes: Episode) -> tuple[Array, Any]:
        return over_tasks(lambda episode: one(metas, episode), episodes, trial.task_loop)

    judged = over_devices(local, trial.devices)(metas, episodes)
    return everywhere(judged, trial.devices, jax.lax.with_sharding_constraint)  # where every process can read them


def evaluate(
    learner: Judged, metas: Sequence[Any], family: TaskFamily | HostFamily, source: Any, trial: Trial, key: PRNGKeyArray
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Judge meta-parameters on fixed, seeded episodes.

    Each episode's task is adapted to on its support set, and the query outputs are scored by the learner's objective. No derivative
    is taken through the inner loop.

    Arguments:
        learner: the method.
        metas: the meta-parameters. Several are an ensemble: their outputs are averaged, and their gates.
        family: a task family: `family.draw(source, shape, key)` gives an `Episode`.
        source: the family's arrays on the device.
        trial: the episodes and the inner steps.
        key: the key that all episodes follow from; equal keys give every method the same episodes.

    Returns:
        An iterator of (scores, seen), one for each compiled call of n episodes: scores [n, 1], or [n, steps + 1] with
        `trial.curve`; seen is {"gates": [n, L]} with L2F, else {}. A score is the accuracy in [0, 1] or the squared error.

    Raises:
        DataError: before anything compiles, where the data do not allow episodes of `trial.shape`.

    Example:
        >>> import jax, lethax
        >>> import numpy as np
        >>> from lethax.data.curves import family
        >>> tasks, _, ranges = family("sinusoid")
        >>> learner = lethax.MAML(lethax.MLP(hidden=(8,)), lethax.SquaredError(), steps=1)
        >>> meta = learner.init(jax.random.key(0))
        >>> trial = lethax.Trial(lethax.EpisodeShape(way=1, shot=5, query=10), episodes=4, steps=2, curve=True, together=2)
        >>> parts = lethax.evaluate(learner, [meta], tasks, ranges, trial, jax.random.key(1))
        >>> np.concatenate([scores for scores, _ in parts]).shape
        (4, 3)
    """
    models = everywhere(processes.here(tuple(metas)), trial.devices)  # of training, which may have other devices
    for first in range(0, trial.episodes, trial.together):
        episodes = draw(family, trial.shape, trial.together, source, key, jnp.asarray(first))
        scores, seen = _judge(learner, trial, models, divided(episodes, trial.devices))
        keep = min(trial.together, trial.episodes - first)
        yield np.asarray(scores)[:keep], {name: np.asarray(leaf)[:keep] for name, leaf in seen.items()}


def episodes_hash(
    family: TaskFamily | HostFamily, source: Any, shape: EpisodeShape, key: PRNGKeyArray, episodes: int
) -> str:
    """SHA-256 (16 digits) of the first, middle and last episode's arrays: equal hashes, equal episodes."""
    digest = hashlib.sha256(repr((shape, episodes)).encode())
    for t in sorted({0, episodes // 2, episodes - 1}):
        episode = trees.at(draw(family, shape, 1, source, key, jnp.asarray(t)), 0)
        for leaf in jax.tree.leaves(episode):
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
