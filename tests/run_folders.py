"""Run folders that look as if they had been trained and evaluated, for tests of what is made from them."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from lethax import checkpoint
from lethax.files import append_line, to_json, write_atomic
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.runs import folder as folders
from lethax.runs import making

STEPS = 400


def trained(folder: Path, method: str = "maml", data: str = "sinusoid", seed: int = 0, **values: Any) -> folders.Run:
    """A run of a few lines of metrics, whose numbers follow from the seed."""
    run = making.create(resolve(Recipe.of(data=data, method=method, seed=seed, steps=STEPS, **values)), folder)
    draws, gates = np.random.default_rng(seed), len(run.learner().gate_names())
    for step in range(100, STEPS + 1, 100):
        line: dict[str, Any] = {
            "step": step,
            "loss": 4 / step + draws.random() / 100,
            "score": 4 / step + draws.random() / 100,
        }
        line |= {"gates": draws.random(gates).tolist()} if gates else {}
        line |= (
            {"val_score": 3 / step + draws.random() / 100, "val_ci95": 0.01, "val_episodes": 20}
            if step % 200 == 0
            else {}
        )
        append_line(folder / folders.METRICS, to_json(line, None))
    append_line(folder / folders.TIMING, to_json({"step": STEPS, "seconds": 61.5}, None))
    return run


def stated(folder: Path, step: int = STEPS) -> None:
    """A state of training at a step, whose validation is the best one, as that of a run that is trained so far."""
    (folder / folders.CHECKPOINTS).mkdir(exist_ok=True)
    info = {"best": [[0.5, step]], "recipe": folders.made_with(folders.open_run(folder).recipe)}
    checkpoint.save(checkpoint.path_of(folder / folders.CHECKPOINTS, "step", step), {}, info)


def evaluated(
    run: folders.Run, score: str = "mse", shift: float = 0.0, episodes: int = 30, **others: Any
) -> dict[str, Any]:
    """Write the record of an evaluation on episodes that all runs share, and return it. shift: what all scores have more."""
    scores = np.random.default_rng(1).random(episodes) + shift
    draws = np.random.default_rng(run.recipe.seed)
    record = {
        "data": run.recipe.data, "split": "test", "method": run.recipe.method, "way": 1, "shot": 5, "query": 10, "inner_steps": 1,
        "norm": "batch", "seed": 0, "checkpoints": [STEPS], "score": score, "n": episodes, "mean": float(scores.mean()),
        "ci95": float(1.96 * scores.std() / episodes**0.5), "std": float(scores.std()), "median": float(np.median(scores)),
        "episodes_hash": "0123456789abcdef",
        "by_inner_steps": [{"steps": j, "mean": 1.0 / (j + 1), "ci95": 0.05} for j in range(4)],
        "per_episode": scores.tolist(), "command": "lethax evaluate",
        **({"gates": [{"name": n, "mean": float(draws.random()), "std": 0.1} for n in names]}
           if (names := run.learner().gate_names()) else {}),
        **others,
    }  # fmt: skip
    (run.folder / folders.EVALUATIONS).mkdir(exist_ok=True)
    write_atomic(run.folder / folders.EVALUATIONS / f"test-seed0-n{episodes}-best1.json", to_json(record))
    return record


def walked(run: folders.Run) -> None:
    """Keep paths of two tasks beside the evaluation, as those of navigation."""
    way = np.cumsum(np.random.default_rng(2).normal(0, 0.05, (2, 3, 12, 2)), axis=2).astype(np.float32)
    kept = {"tasks": np.full((2, 4), 0.3, np.float32), "observations": way, "alive": np.ones((2, 3, 12), bool)}
    for path in (run.folder / folders.EVALUATIONS).glob("*.json"):
        path.with_suffix(".rollouts.safetensors").write_bytes(safetensors.numpy.save(kept))


def probed(run: folders.Run) -> None:
    """Measurements of both probes at two steps."""
    for step in (0, 200):
        for split in ("train", "val"):
            band = {"loss": [1.0, 0.8], "loss_min": [0.9, 0.7], "loss_max": [1.1, 1.0], "loss_variation": [0.2, 0.3]}
            band |= {
                "difference_mean": [0.5, 0.4],
                "difference_min": [0.4, 0.3],
                "difference_max": [0.6, None],
                "smoothness": [3.0, 2.0],
            }
            whole = {"initialisation": {name: values[0] for name, values in band.items()}} if split == "train" else {}
            line = {"step": step, "probe": "landscape", "split": split, "tasks": 4, **band, **whole}
            append_line(run.folder / folders.PROBES, to_json(line, None))
            angles = {f"{kind}{what}": [1.5, 1.6] for kind in ("between", "within", "random") for what in ("", "_std")}
            line = {"step": step, "probe": "conflict", "split": split, "tasks": 16, "tensors": ["a", "b<i>"], **angles}
            append_line(run.folder / folders.PROBES, to_json(line, None))
