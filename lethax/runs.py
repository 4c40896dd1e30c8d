"""A run is a folder: recipe.toml, environment.json, metrics.jsonl, checkpoints/, evaluations/. Training goes on to the same bits.

At a checkpoint, in this order: the metrics line, the best meta-parameters, the state with the list of the best. A resumed run
drops whatever is newer than the state it goes on from and does it again.
"""

import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lethax import __version__, assemble, checkpoint, toml, trees
from lethax import recipe as recipes
from lethax.errors import DivergedError, RunError
from lethax.evaluate import Score, bernoulli_std, by_repeats, episodes_hash, evaluate, score
from lethax.files import append_line, truncate_lines, write_atomic
from lethax.lock import RunLock
from lethax.outer import TrainState, begin, fit, not_finite
from lethax.recipe import REGRESSION, Recipe

LOG_EVERY = 100  # outer steps a line of metrics
SAVE_SECONDS = 60.0  # between checkpoints that are not at the end of an epoch


class Run(NamedTuple):
    """A run folder and its resolved recipe."""

    folder: Path
    recipe: Recipe


class Status(NamedTuple):
    """Where training stands: the step reached, and the line of metrics written there, if one was."""

    step: int
    total: int
    line: dict[str, Any] | None


@dataclass
class _Window:
    """Sums since the last line of metrics; part of a checkpoint, so that a resumed run writes the same lines.

    Steps whose meta-gradient was not finite, which a run with `non_finite` "skip" passes over, are counted and not summed.
    """

    count: int = 0
    skipped: int = 0
    sums: dict[str, Any] = field(default_factory=dict)

    def add(self, info: dict[str, Any]) -> None:
        kept = np.all(info["finite"], axis=-1)
        for name in ("loss", "score", "gates"):
            if name in info:
                values = np.asarray(info[name], np.float64)[kept]
                self.sums[name] = (np.asarray(self.sums.get(name, 0.0)) + values.sum(axis=0)).tolist()
        self.count += int(kept.sum())
        self.skipped += int((~kept).sum())

    def line(self, step: int) -> dict[str, Any]:
        means = {name: (np.asarray(total) / max(self.count, 1)).tolist() for name, total in self.sums.items()}
        line = {"step": step, **means, **({"skipped": self.skipped} if self.skipped else {})}
        self.count, self.skipped, self.sums = 0, 0, {}
        return line


def create(recipe: Recipe, folder: Path) -> Run:
    """A new run folder; RunError where there is one already."""
    recipe = recipes.resolve(recipe)
    if (folder / "recipe.toml").exists():
        raise RunError(
            f"{folder} holds a run already: resume it with `lethax train --resume {folder}`, or choose another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "environment.json", json.dumps(_environment(), indent=1) + "\n")
    write_atomic(folder / "recipe.toml", toml.dump(recipe))
    return Run(folder, recipe)


def open_run(folder: Path) -> Run:
    """An existing run; RunError where there is none."""
    if not (folder / "recipe.toml").is_file():
        raise RunError(
            f"{folder} is not a run: it has no recipe.toml. Start one with `lethax train DATA --out {folder}`."
        )
    recipe = recipes.load(folder / "recipe.toml")
    recipes.check(recipes.resolve(recipe))
    return Run(folder, recipes.resolve(recipe))


def _environment() -> dict[str, Any]:
    return {
        "lethax": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}",
        "machine": platform.machine(),
        "command": shlex.join(["lethax", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def train(run: Run) -> Iterator[Status]:
    """Train to the recipe's last step, from the newest checkpoint if there is one; yields after every compiled call.

    RunError if another process trains here; DivergedError, naming step and tensor, when a meta-gradient is NaN or Inf.
    """
    with RunLock(run.folder):
        yield from _train(run)


def _train(run: Run) -> Iterator[Status]:
    recipe = run.recipe
    learner, plan = assemble.learner(recipe), assemble.plan(recipe)
    training = assemble.family(recipe, "train")
    fresh = begin(learner, plan, jax.random.key(recipe.seed))
    first, info = _restore(run, fresh)
    state = first
    window, best = _Window(**info["window"]), info["best"]
    saved, done = time.monotonic(), int(state.step)
    try:
        for state, seen in fit(learner, first, training.tasks, training.source, plan):
            broken = None if plan.skip else not_finite(seen, state.meta, done)
            if broken:
                _diverged(run, *broken)
            done = int(state.step)
            window.add(seen)
            line = None
            if done % LOG_EVERY == 0 or done == plan.total:
                line = window.line(done)
            if done % plan.epoch == 0 or done == plan.total:
                line = (line or window.line(done)) | _validate(run, learner, state.meta)
                best = _keep_best(run, state, line["val_score"], best)
            if line:
                append_line(run.folder / "metrics.jsonl", json.dumps(line))
            if "val_score" in (line or {}) or time.monotonic() - saved > SAVE_SECONDS:
                _save(run, state, window, best)
                saved = time.monotonic()
            yield Status(done, plan.total, line)
    except (KeyboardInterrupt, GeneratorExit):
        if done == int(state.step):
            _save(run, state, window, best)
        raise


def _checkpoints(run: Run) -> Path:
    return run.folder / "checkpoints"


def _restore(run: Run, fresh: TrainState) -> tuple[TrainState, dict[str, Any]]:
    found = checkpoint.newest(_checkpoints(run), fresh) if _checkpoints(run).is_dir() else None
    nothing: dict[str, Any] = {"window": {}, "best": []}
    state, info = (found[0], found[1]) if found else (fresh, nothing)
    step = int(state.step)
    if (run.folder / "metrics.jsonl").exists():
        truncate_lines(run.folder / "metrics.jsonl", lambda line: line["step"] <= step)
    if _checkpoints(run).is_dir():
        _drop(run, info["best"], newer_than=step)
    return state, info


def _drop(run: Run, best: list[list[float]], newer_than: int | None = None) -> None:
    """Delete the best-… files that the list does not name, and states newer than the one gone on from."""
    wanted = {_best_path(run, int(step)).name for _, step in best}
    for path in _checkpoints(run).glob("best-*.safetensors"):
        if path.name not in wanted:
            path.unlink()
    if newer_than is not None:
        for path in _checkpoints(run).glob("step-*.safetensors"):
            if int(path.stem.removeprefix("step-")) > newer_than:
                path.unlink()


def _best_path(run: Run, step: int) -> Path:
    return _checkpoints(run) / f"best-{step:08d}.safetensors"


def _save(run: Run, state: TrainState, window: _Window, best: list[list[float]]) -> None:
    folder = _checkpoints(run)
    folder.mkdir(exist_ok=True)
    info = {"best": best, "window": asdict(window)}
    checkpoint.save(checkpoint.step_path(folder, int(state.step)), state, info)
    checkpoint.prune(folder, keep=2)
    _drop(run, best)


def _keep_best(run: Run, state: TrainState, value: float, best: list[list[float]]) -> list[list[float]]:
    """The recipe's `keep` best [score, step]; among equals the earlier."""
    sign = 1 if run.recipe.data in REGRESSION else -1  # a squared error is better the lower it is
    step = int(state.step)
    kept = sorted([*best, [value, step]], key=lambda entry: (sign * entry[0], entry[1]))[: run.recipe.keep]
    if [value, step] in kept:
        _checkpoints(run).mkdir(exist_ok=True)
        checkpoint.save(_best_path(run, step), state.meta, {"step": step, "val_score": value})
    return kept


def _validate(run: Run, learner: Any, meta: Any) -> dict[str, Any]:
    assert run.recipe.val_episodes
    tasks, source = assemble.family(run.recipe, "val")
    trial = assemble.trial(run.recipe, run.recipe.val_episodes)
    key = assemble.validation_key(run.recipe.seed)
    scores = np.concatenate([s for s, _ in evaluate(learner, [meta], tasks, source, trial, key)])
    result = score(scores[:, -1])
    return {"val_score": result.mean, "val_ci95": result.ci95, "val_episodes": result.n}


def _diverged(run: Run, step: int, tensor: str) -> None:
    kept = sorted(_checkpoints(run).glob("step-*.safetensors")) if _checkpoints(run).is_dir() else []
    last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
    raise DivergedError(
        f"outer step {step}: the meta-gradient of {tensor} is not finite; {last}. "
        "Try a smaller --inner-rate or --outer-rate, --clip-norm 10, or --non-finite skip."
    )


class Result(NamedTuple):
    """An evaluation: the score after the last step trained for, of each number of inner steps, gates, and the file written."""

    score: Score
    curve: list[Score]
    gates: np.ndarray | None
    record: dict[str, Any]
    path: Path


def best_metas(run: Run, count: int) -> tuple[list[Any], list[int]]:
    """Meta-parameters of the `count` best validation scores; of the newest state where there was no validation yet."""
    learner, plan = assemble.learner(run.recipe), assemble.plan(run.recipe)
    fresh = begin(learner, plan, jax.random.key(run.recipe.seed))
    found = checkpoint.newest(_checkpoints(run), fresh) if _checkpoints(run).is_dir() else None
    if found is None:
        raise RunError(f"{run.folder} has no checkpoint yet: train it with `lethax train --resume {run.folder}`.")
    steps = [int(step) for _, step in found[1]["best"]][:count]
    if len(steps) < count:
        raise RunError(f"{run.folder} keeps {len(steps)} validated checkpoints, not {count}: lower --ensemble.")
    return [checkpoint.load(_best_path(run, step), fresh.meta)[0] for step in steps], steps


def evaluate_run(run: Run, *, episodes: int, ensemble: int, steps: int, seed: int, split: str = "test") -> Result:
    """Judge the best checkpoints on fixed test episodes after 0 … `steps` inner steps, and write evaluations/….json."""
    recipe = run.recipe
    learner = assemble.learner(recipe)
    tasks, source = assemble.family(recipe, split)
    inner = recipe.inner_steps or 0
    trial = assemble.trial(recipe, episodes, curve=True, steps=max(steps, inner))
    metas, at = best_metas(run, ensemble)
    key = assemble.test_key(seed)
    parts, gates = [], []
    for scores, seen in evaluate(learner, metas, tasks, source, trial, key):
        parts.append(scores)
        gates.extend([seen["gates"]] if "gates" in seen else [])
    table = np.concatenate(parts)
    curve = [score(column) for column in table.T]
    final = curve[inner]
    record: dict[str, Any] = {
        "data": recipe.data, "split": split, "method": recipe.method, "way": recipe.way, "shot": recipe.shot,
        "query": trial.shape.query, "inner_steps": inner, "norm": recipe.norm, "seed": seed, "checkpoints": at,
        "score": learner.objective.score_name, "n": final.n, "mean": final.mean, "ci95": final.ci95, "std": final.std,
        "episodes_hash": episodes_hash(tasks, source, trial.shape, key, episodes),
        "by_inner_steps": [{"steps": j, "mean": s.mean, "ci95": s.ci95} for j, s in enumerate(curve)],
        "per_episode": final.per_task.tolist(), "command": _environment()["command"],
    }  # fmt: skip
    if recipe.data in REGRESSION and episodes % 100 == 0:
        record["mean_100"], record["ci95_100"] = by_repeats(final.per_task, episodes // 100)
    if recipe.data not in REGRESSION:
        record["bernoulli_std"] = bernoulli_std(final.mean)
    all_gates = np.concatenate(gates) if gates else None
    if all_gates is not None:
        record["gates"] = [{"name": n, "mean": float(g.mean()), "std": float(g.std())}
                           for n, g in zip(gate_names(learner), all_gates.T, strict=True)]  # fmt: skip
    path = run.folder / "evaluations" / f"{split}-seed{seed}-n{episodes}-best{ensemble}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(record, indent=1) + "\n")
    return Result(final, curve, all_gates, record, path)


def gate_names(learner: Any) -> list[str]:
    """What each gate of an L2F learner scales."""
    weights = jax.eval_shape(learner.net.init, jax.random.key(0))
    return learner.start.groups(trees.partition(weights, learner.mask(weights))[0])
