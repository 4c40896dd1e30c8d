"""Evaluation of runs: judge the best checkpoints on fixed episodes, and keep a record in the run folder."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy

from lethax import checkpoint
from lethax.data.safe import sha256
from lethax.errors import CheckpointError, DataError, DivergedError, RecipeError, RunError
from lethax.evaluation import Score, score
from lethax.files import read_json, to_json, write_together
from lethax.outer import begin
from lethax.recipe import Resolved
from lethax.recipe.resolve import resolve
from lethax.runs.folder import (
    EVALUATIONS,
    Run,
    best_path,
    check_data,
    check_recipe,
    check_unchanged,
    checkpoints,
    environment,
    is_model,
    listed_best,
)
from lethax.runs.rivals import Against, Contest, check_baselines, judge_baselines
from lethax.streams import test_key
from lethax.text import command_line, counted, shown

_AGAIN = "nothing is written of what was judged before, so evaluate it again"


class Result(NamedTuple):
    """An evaluation: the score after the trained number of inner steps, the score after each number, the record and its file.

    kept: arrays that the domain keeps beside the record, such as rollouts of control. run: the run as it was when it was judged.
    """

    score: Score
    curve: list[Score]
    record: dict[str, Any]
    path: Path
    kept: dict[str, np.ndarray]
    run: Run


def best_metas(run: Run, count: int) -> tuple[list[Any], list[int]]:
    """Load the `count` checkpoints with the best validation scores, and their steps. RunError if there are fewer.

    CheckpointError if a file is not the one that the run's state lists; DivergedError if no validation had a finite score.
    """
    fresh = begin(run.learner(), run.plan(), jax.random.key(run.recipe.seed))
    best = _best(run, fresh)
    steps = list(best)[:count]
    if len(steps) < count:
        raise RunError(
            f"{shown(run.folder)} keeps {counted(len(steps), 'validated checkpoint')}, not {count}: lethax evaluate, predict and "
            f"export take --ensemble {len(steps)}."
        )
    return [_load(best_path(run, step), fresh.meta, best[step]) for step in steps], steps


def _load(path: Path, like: Any, value: float) -> Any:
    """The meta-parameters of a validated checkpoint, whose validation score has to be the one that is listed."""
    meta, info = checkpoint.load(path, like)
    if (found := info.get("val_score", value)) != value:
        raise CheckpointError(
            f"{path} is of another run: its validation score is {shown(found, 40)}, and the newest state lists {value}; put the "
            "right file back."
        )
    return meta


def judged_before(run: Run, path: Path, ensemble: int, steps: int) -> dict[str, Any] | None:
    """The record of an earlier evaluation after 0 … `steps` inner steps, if it is of the checkpoints that are the best ones now.

    None where it is not there, and where the file is no such record: what is damaged is judged anew. No weights are made.
    """
    try:
        record: dict[str, Any] | None = read_json(path) if path.is_file() else None
        if record is None or not _is_record(record) or len(record["by_inner_steps"]) <= steps:
            return None
        states = checkpoint.numbered(checkpoints(run), "step")
        best = list(_listed(newest := states[max(states)], checkpoint.read_info(newest))) if states else None
        same = _same_weights(run, record)
    except (RunError, CheckpointError, DataError):
        return None
    return record if same and (best is None or record.get("checkpoints") == best[:ensemble]) else None


def _same_weights(run: Run, record: Mapping[str, Any]) -> bool:
    """Whether the checkpoints of an evaluation, as far as they are still there, are those that were judged."""
    known = record.get("weights_sha256", {})  # by the file's name; older records have none
    there = checkpoint.numbered(checkpoints(run), "best").values()
    return all(sha256(path) == known[path.name] for path in there if path.name in known)


def _is_record(record: Any) -> bool:
    """Whether it has what is read of the record of an evaluation: scores of n episodes, and of every baseline as many."""
    words, lists = ("data", "score", "episodes_hash"), ("by_inner_steps", "checkpoints")
    if not isinstance(record, dict) or not all(isinstance(record.get(word), str) for word in words):
        return False
    if not all(isinstance(record.get(name), list) for name in lists) or not isinstance(
        record.get("weights_sha256", {}), dict
    ):
        return False
    beside = record.get("baselines", {})
    if not isinstance(beside, dict) or not all(map(_is_baseline, beside.values())):
        return False
    judged = [record, *beside.values(), *([record["nearest_prototype"]] if "nearest_prototype" in record else [])]
    return all(_has_scores(part, record.get("n")) for part in judged)


def _is_baseline(entry: Any) -> bool:
    words = ("title", "on", "chosen")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(word), str) for word in words):
        return False
    setting = entry.get("setting")
    return isinstance(setting, dict) and all(type(value) in (int, float) for value in setting.values())


def _has_scores(entry: Any, episodes: Any) -> bool:
    found = entry.get("per_episode") if isinstance(entry, dict) else None
    if not isinstance(found, list) or len(found) != episodes or not isinstance(entry.get("caution", ""), str):
        return False
    return all(value is None or type(value) in (int, float) for value in found)


def _listed(path: Path, info: dict[str, Any]) -> dict[int, float]:
    """{outer step: score} of the validations with a finite score that a state lists, the best first."""
    return {int(step): value for value, step in listed_best(path, info) if math.isfinite(value)}


def _best(run: Run, fresh: Any) -> dict[int, float]:
    """{outer step: validation score} of the validated checkpoints, the best first. The newest state lists them.

    Those of a model that came with lethax, which has no state, say their validation scores themselves.
    """
    folder = checkpoints(run)
    found = checkpoint.newest(folder, fresh) if folder.is_dir() else None
    go_on = command_line("train", "--resume", run.folder)
    if found is None and is_model(run):
        infos = {step: checkpoint.read_info(path) for step, path in checkpoint.numbered(folder, "best").items()}
        kept = {step: float(info.get("val_score", 0.0)) for step, info in infos.items()}
        sign = -1 if run.learner().objective.higher_is_better else 1
        return dict(sorted(kept.items(), key=lambda entry: (sign * entry[1], entry[0])))
    if found is None:
        raise RunError(f"{shown(run.folder)} has no checkpoint yet: train it with {go_on}.")
    state, info, path = found
    check_recipe(run, path, info)
    best = _listed(path, info)
    plan = run.plan()
    if not best and int(state.step) < min(plan.epoch, plan.total):
        raise RunError(f"{shown(run.folder)} was not validated yet, at step {int(state.step)}: go on with {go_on}.")
    if not best:
        raise DivergedError(f"{shown(run.folder)} has learned nothing: no validation has a finite score.")
    return best


def check_alike(runs: Sequence[Run], verb: str) -> None:
    """RecipeError if runs are judged by different scores, which are not to be compared."""
    kinds = {run.learner().objective.score_name: shown(run.folder) for run in runs}
    if len(kinds) > 1:
        others = " and ".join(f"{folder} is judged by its {kind}" for kind, folder in kinds.items())
        raise RecipeError(f"{others}: {verb} them one after the other.")


def _is_other(run: Run, judged: Resolved) -> bool:
    """Whether the data that are judged are not those of training: others, or those of its name prepared anew."""
    if judged.data != run.recipe.data:
        return True
    return run.inputs is not None and run.inputs.sha256 not in (None, run.domain.identity(judged))


def evaluate_run(
    run: Run,
    *,
    episodes: int,
    ensemble: int,
    steps: int,
    seed: int,
    split: str = "test",
    data: str | None = None,
    changed: Mapping[str, Any] | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    against: Against | None = None,
) -> Result:
    """Judge the best checkpoints on fixed test episodes after 0 … `steps` inner steps. `write_evaluation` keeps the result.

    `data`: another data set, or another setting of control, of which only the test classes are judged. Its examples are given the
    size and the normalisation of the training data; the checkpoint was chosen on those alone. Named on purpose, it may also be the
    run's own, prepared anew. The record has `Store.identity` of both, "data_sha256" and "trained_on", and "elsewhere" says how the
    other data were seen, and which of their classes the run has seen.
    `changed`: other values of options than in training, by their short names: "way", "shot", "head" and "norm" make sense.
    "gates" are means over the checkpoints of an ensemble, of each episode; their mean and deviation are over episodes. `watch` sees
    the parts of the evaluation as they come, and passes them on. `against`: the baselines that are judged on the same episodes.
    """
    if data is None:
        check_data(run, f"judge on it on purpose: {command_line('evaluate', run.folder, '--data', run.recipe.data)}")
    domain, inputs, changed = run.domain, run.inputs, changed or {}
    recipe = resolve(run.recipe.with_values(**changed)) if changed else run.recipe
    home = seen_by = None
    if data is not None:
        home, (seen_by, recipe) = recipe, domain.elsewhere(recipe, inputs, data)
        if split != "test" and _is_other(run, recipe) and recipe.data not in domain.columns(home, split):
            raise RecipeError(
                f"--split is {split}, but of other data only the test classes are judged: leave --split out."
            )
        domain = seen_by
    domain.check_split(recipe, split)
    learner, inner = domain.learner(recipe, inputs), recipe.inner.steps
    metas, at = best_metas(run, ensemble)
    weights = {path.name: sha256(path) for path in (best_path(run, step) for step in at)}
    key = test_key(seed)
    features = against.features if against else None
    contest = Contest(recipe, inputs, split, episodes, key, metas[0], features, seen_by, home)
    if against:
        check_baselines(contest, against.names)
    judged = list(watch(
        domain.judge(recipe, inputs, split, metas, episodes, max(steps, inner), key, curve=True)
    ))  # fmt: skip
    table = np.concatenate([part.scores for part in judged])
    curve = [score(column) for column in table.T]
    final = curve[inner]
    record: dict[str, Any] = {
        "data": recipe.data, "split": split, "method": recipe.method, "way": recipe.episode.way, "shot": recipe.episode.shot,
        "query": recipe.episode.eval_query, "inner_steps": inner, "norm": recipe.net.norm, "seed": seed, "checkpoints": at,
        "weights_sha256": weights,
        "score": learner.objective.score_name, "n": final.n, "mean": final.mean, "ci95": final.ci95, "std": final.std,
        "median": float(np.median(final.per_task)),
        "episodes_hash": domain.episodes_hash(recipe, split, episodes, key),
        "by_inner_steps": [{"steps": j, "mean": s.mean, "ci95": s.ci95} for j, s in enumerate(curve)],
        "per_episode": final.per_task.tolist(), "command": environment()["command"],
        **domain.report(recipe, split, table, key),
    }  # fmt: skip
    if "gates" in judged[0].seen:
        record["gates"] = _gates(learner.gate_names(), np.concatenate([part.seen["gates"] for part in judged]))
    if changed:
        record["changed"] = dict(changed)
    if against:
        record["baselines"] = judge_baselines(contest, against.names, against.watch, final.per_task)
    if inputs is not None:
        record["trained_on"] = inputs.sha256
    path = run.folder / EVALUATIONS / file_name(_where(run, record), seed, episodes, ensemble)
    return Result(final, curve, record, path, domain.kept(judged), run)


def _gates(names: Sequence[str], gates: np.ndarray) -> list[dict[str, Any]]:
    """Mean and deviation over episodes of gates [n, L]."""
    return [{"name": n, "mean": float(g.mean()), "std": float(g.std())} for n, g in zip(names, gates.T, strict=True)]


def _where(run: Run, record: Mapping[str, Any]) -> str:
    """What an evaluation is of: the split, before it the name of data that are not the run's own, and behind it what is changed."""
    own = record["data"] == run.recipe.data and record.get("trained_on") in (record.get("data_sha256"), None)
    changed = (f"{name}_{value}" for name, value in record.get("changed", {}).items())
    return "-".join([*([] if own else [record["data"]]), record["split"], *changed])


def file_name(where: str, seed: int, episodes: int, ensemble: int) -> str:
    """The file of an evaluation. where: the split, with the name of the data set before it if that is not the run's own."""
    return f"{where}-seed{seed}-n{episodes}-best{ensemble}.json"


def write_evaluation(result: Result) -> None:
    """Write evaluations/….json, and beside it the arrays that the domain keeps.

    RunError if they cannot be written, or the folder holds another run by now.
    """
    check_unchanged(result.run, _AGAIN)
    if not _same_weights(result.run, result.record):
        raise RunError(f"{shown(result.run.folder)} was trained anew by another process meanwhile: {_AGAIN}.")
    result.path.parent.mkdir(exist_ok=True)
    arrays = {kept_path(result.path): safetensors.numpy.save(result.kept)} if result.kept else {}
    write_together({**arrays, result.path: to_json(result.record) + "\n"})


def kept_path(evaluation: Path) -> Path:
    """The file of the arrays that are kept beside an evaluation; in control it has a rollout of every task."""
    return evaluation.with_suffix(".rollouts.safetensors")


def read_kept(evaluation: Path) -> dict[str, np.ndarray]:
    """Read the arrays that are kept beside an evaluation."""
    try:
        return safetensors.numpy.load_file(kept_path(evaluation))
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{kept_path(evaluation)} cannot be read ({error}): evaluate the run again.") from None
