"""Evaluation of runs: the best checkpoints, judged on fixed episodes, and the record that is kept in the run folder."""

import math
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy

from lethax import assemble, checkpoint
from lethax.baselines import NearestPrototype
from lethax.data.fits import room
from lethax.data.store import open_store
from lethax.errors import DataError, DivergedError, RecipeError, RunError
from lethax.evaluate import Score, bernoulli_std, by_repeats, evaluate, score
from lethax.files import to_json, write_atomic
from lethax.folders import Run, best_path, check_data, checkpoints, environment, listed_best, trained_on
from lethax.names import CONTROL, LOCOMOTION, NAVIGATION, REGRESSION
from lethax.outer import begin
from lethax.recipe import Recipe
from lethax.text import counted, shown


class Result(NamedTuple):
    """An evaluation: the score after the last step trained for, of each number of inner steps, the record, its file.

    rollouts: of control, what is kept beside the record; see `rl.evaluate.evaluate`.
    """

    score: Score
    curve: list[Score]
    record: dict[str, Any]
    path: Path
    rollouts: dict[str, np.ndarray]


def best_metas(run: Run, count: int) -> tuple[list[Any], list[int]]:
    """Meta-parameters of the `count` best validation scores, and their steps; RunError where there are fewer.

    DivergedError where no validation had a finite score.
    """
    learner, plan = assemble.learner(run.recipe), assemble.plan(run.recipe)
    fresh = begin(learner, plan, jax.random.key(run.recipe.seed))
    found = checkpoint.newest(checkpoints(run), fresh) if checkpoints(run).is_dir() else None
    go_on = shlex.join(["lethax", "train", "--resume", str(run.folder)])
    if found is None:
        raise RunError(f"{shown(run.folder)} has no checkpoint yet: train it with {go_on}.")
    state, info, path = found
    steps = [int(step) for value, step in listed_best(path, info) if math.isfinite(value)][:count]
    if not steps and int(state.step) < plan.epoch and int(state.step) < plan.total:
        raise RunError(f"{shown(run.folder)} was not validated yet, at step {int(state.step)}: go on with {go_on}.")
    if not steps:
        raise DivergedError(f"{shown(run.folder)} has learned nothing: no validation has a finite score.")
    if len(steps) < count:
        raise RunError(
            f"{shown(run.folder)} keeps {counted(len(steps), 'validated checkpoint')}, not {count}: lower --ensemble."
        )
    return [checkpoint.load(best_path(run, step), fresh.meta)[0] for step in steps], steps


def evaluate_run(
    run: Run,
    *,
    episodes: int,
    ensemble: int,
    steps: int,
    seed: int,
    split: str = "test",
    data: str | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Result:
    """Judge the best checkpoints on fixed test episodes after 0 … `steps` inner steps; `write_evaluation` keeps the result.

    `data`: another data set, of examples of the same shape, or another setting of control; named on purpose, it may also be the
    run's own, prepared anew. The record has `Store.identity` of both: "data_sha256" and "trained_on".
    "gates" are means over the checkpoints of an ensemble, of each episode; their mean and deviation are over episodes. `watch` sees
    the parts of the evaluation as they come, and passes them on.
    """
    if data is None:
        check_data(run, f"judge on it on purpose: lethax evaluate {shown(run.folder)} --data {run.recipe.data}")
    recipe = elsewhere(run.recipe, data)
    _check_split(recipe, split)
    learner, inner = assemble.learner(recipe), recipe.inner_steps or 0
    metas, at = best_metas(run, ensemble)
    key = assemble.test_key(seed)
    judged = list(watch(assemble.judge(recipe, split, metas, episodes, max(steps, inner), key, curve=True)))
    table = np.concatenate([scores for scores, _ in judged])
    seen = {name: np.concatenate([s[name] for _, s in judged]) for name in judged[0][1]}
    curve = [score(column) for column in table.T]
    final = curve[inner]
    record: dict[str, Any] = {
        "data": recipe.data, "split": split, "method": recipe.method, "way": recipe.way, "shot": recipe.shot,
        "query": recipe.eval_query, "inner_steps": inner, "norm": recipe.norm, "seed": seed, "checkpoints": at,
        "score": learner.objective.score_name, "n": final.n, "mean": final.mean, "ci95": final.ci95, "std": final.std,
        "median": float(np.median(final.per_task)),
        "episodes_hash": assemble.hash_of(recipe, split, episodes, key),
        "by_inner_steps": [{"steps": j, "mean": s.mean, "ci95": s.ci95} for j, s in enumerate(curve)],
        "per_episode": final.per_task.tolist(), "command": environment()["command"],
    }  # fmt: skip
    if recipe.data in REGRESSION and episodes % 100 == 0:
        record["mean_100"], record["ci95_100"] = by_repeats(final.per_task, episodes // 100)
    if recipe.data not in (*REGRESSION, *CONTROL):
        record["bernoulli_std"] = bernoulli_std(final.mean)
        record["nearest_prototype"] = _baseline(recipe, split, episodes, key)
    if "gates" in seen:
        record["gates"] = [{"name": n, "mean": float(g.mean()), "std": float(g.std())}
                           for n, g in zip(learner.gate_names(), seen["gates"].T, strict=True)]  # fmt: skip
    own = recipe.data == run.recipe.data
    if recipe.data not in (*REGRESSION, *CONTROL):
        record["data_sha256"], record["trained_on"] = open_store(recipe.data).identity, trained_on(run)
        own = own and record["trained_on"] in (record["data_sha256"], None)
    where = split if own else f"{recipe.data}-{split}"
    path = run.folder / "evaluations" / f"{where}-seed{seed}-n{episodes}-best{ensemble}.json"
    rollouts = {}
    if recipe.data in CONTROL:
        record["returns"] = table.tolist()
        rollouts = {name: seen[name] for name in ("tasks", "observations", "alive")}
    return Result(final, curve, record, path, rollouts)


def write_evaluation(result: Result) -> None:
    """Write evaluations/….json, of control with the rollouts beside it; RunError where the disk does not take them."""
    result.path.parent.mkdir(exist_ok=True)
    if result.rollouts:
        write_atomic(rollouts_path(result.path), safetensors.numpy.save(result.rollouts))
    write_atomic(result.path, to_json(result.record) + "\n")


def rollouts_path(evaluation: Path) -> Path:
    """Where an evaluation of control keeps a rollout of every task."""
    return evaluation.with_suffix(".rollouts.safetensors")


def read_rollouts(evaluation: Path) -> dict[str, np.ndarray]:
    """The rollouts beside an evaluation of control."""
    try:
        return safetensors.numpy.load_file(rollouts_path(evaluation))
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{rollouts_path(evaluation)} cannot be read ({error}): evaluate the run again.") from None


def elsewhere(recipe: Recipe, data: str | None) -> Recipe:
    """The recipe on other data; RecipeError where its net cannot read them."""
    if data is None or data == recipe.data:
        return recipe
    for kind in (REGRESSION, NAVIGATION):
        if (recipe.data in kind) != (data in kind):
            raise RecipeError(
                f"a run on {recipe.data} cannot be judged on {data}: its net reads inputs of another kind."
            )
    if recipe.data in LOCOMOTION or data in LOCOMOTION:
        raise RecipeError(f"a run on {recipe.data} cannot be judged on {data}: their rewards are not comparable.")
    other = replace(recipe, data=data)
    if data not in (*REGRESSION, *CONTROL) and assemble.entry_of(other) != assemble.entry_of(recipe):
        raise RecipeError(
            f"{data} has examples of shape {assemble.entry_of(other)}, {recipe.data} of {assemble.entry_of(recipe)}: prepare it "
            "in that size."
        )
    return other


def _check_split(recipe: Recipe, split: str) -> None:
    """DataError where a split does not allow the episodes of a run, with what of the data does."""
    if recipe.data in (*REGRESSION, *CONTROL):
        return
    splits, shape = open_store(recipe.data).splits, assemble.shape_of(recipe, "test")
    rooms = {name: room({name: part}) for name, part in splits.items()}
    fitting = [n for n, r in rooms.items() if r.way >= shape.way and r.examples >= shape.shot + shape.query]
    if split in splits and split not in fitting:
        there = "".join(f"--split {name}, " for name in fitting)
        raise DataError(
            f"{recipe.data}/{split} allows {rooms[split]}; the run's episodes are {shape.way}-way with "
            f"{counted(shape.shot, 'shot')} and {counted(shape.query, 'query')} a class. Judge it with "
            f"{there}--data OTHER, or train a run of smaller episodes."
        )


def _baseline(recipe: Recipe, split: str, episodes: int, key: Any) -> dict[str, Any]:
    """What needs no learning: the nearest prototype of features, or of pixels, as they are, on the same episodes."""
    how = assemble.trial(recipe, episodes, curve=True, steps=0)
    judged = evaluate(NearestPrototype(recipe.way or 5), [{}], *assemble.family(recipe, split), how, key)
    result = score(np.concatenate([scores[:, 0] for scores, _ in judged]))
    return {"mean": result.mean, "ci95": result.ci95, "per_episode": result.per_task.tolist()}
