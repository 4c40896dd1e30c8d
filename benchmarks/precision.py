"""What a narrower arithmetic of the network changes: the meta-gradient, and the accuracy after a short training.

    python benchmarks/precision.py --work FOLDER [--episodes 8] [--steps 300] [--seeds 3] [--out docs/results/precision.json]

It needs CIFAR-FS. The meta-gradients are of a 4-conv with 64 filters, 5-way 5-shot, 15 queries and 5 inner steps of second order,
at the first weights, each of one episode, and are compared with those in float64 of the same numbers. The trainings have 16 filters
and 2 inner steps; each pair of them shares seed, episodes and test episodes. The runs stay in FOLDER: the same command goes on with
them.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lethax.evaluation import paired
from lethax.files import to_json
from lethax.hardware import processor

METHODS, PRECISIONS, SEED = ("maml", "l2f"), ("float32", "bfloat16"), 0
NET = {"data": "cifar_fs", "shot": 5, "query": 15, "first_order_steps": 0, "batch": 2}


def setting(method: str, precision: str) -> tuple[Any, Any, Any]:
    """The recipe, its domain and its learner."""
    from lethax.domains import domain_of
    from lethax.recipe import Recipe
    from lethax.recipe.resolve import resolve

    recipe = resolve(Recipe.of(method=method, filters=64, inner_steps=5, precision=precision, **NET))
    domain = domain_of(recipe)
    return recipe, domain, domain.learner(recipe, domain.inputs(recipe))


def draw(method: str, count: int, file: Path) -> None:
    """Write the first meta-parameters and some episodes, in float32."""
    import jax

    from lethax.meta_batch import draw_batch
    from lethax.outer import begin

    recipe, domain, learner = setting(method, "float32")
    plan = domain.plan(recipe)
    family, state = domain.family(recipe, "train"), begin(learner, plan, jax.random.key(SEED))
    drawn = [
        draw_batch(family.tasks, family.source, plan, state._replace(step=state.step + i))[0] for i in range(count // 2)
    ]
    leaves = jax.tree.leaves((state.meta, jax.tree.map(lambda *parts: np.concatenate(parts), *drawn)))
    np.savez(file, *map(np.asarray, leaves))


def gradients(method: str, precision: str, file: Path, out: Path) -> None:
    """Write the meta-gradient of every episode [episodes, entries]; JAX_ENABLE_X64 decides between float32 and float64."""
    import jax

    from lethax.meta_batch import draw_batch
    from lethax.outer import begin

    recipe, domain, learner = setting(method, precision)
    plan = domain.plan(recipe)
    family, state = domain.family(recipe, "train"), begin(learner, plan, jax.random.key(SEED))
    like = (state.meta, jax.eval_shape(lambda s: draw_batch(family.tasks, family.source, plan, s), state)[0])
    held = [part.astype(leaf.dtype) for part, leaf in zip(np.load(file).values(), jax.tree.leaves(like), strict=True)]
    meta, episodes = jax.tree.unflatten(jax.tree.structure(like), held)
    gradient = jax.jit(jax.grad(lambda m, e: learner.loss(m, e)[0]))
    found = []
    for i in range(len(jax.tree.leaves(episodes)[0])):
        grads = gradient(meta, jax.tree.map(lambda leaf, i=i: leaf[i], episodes))
        found.append(np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(grads)]))
    np.save(out, found)


def errors(method: str, count: int, work: Path) -> list[dict[str, Any]]:
    """‖g − g₆₄‖ / ‖g₆₄‖ and the cosine of each precision, medians and worst over the episodes."""

    def worker(*words: object, **environment: str) -> None:
        command = [sys.executable, __file__, "--work", str(work), "--worker", *map(str, words)]
        subprocess.run(command, env={**os.environ, **environment}, check=True)

    given = work / f"{method}.npz"
    worker("draw", method, count, given)
    arrays = {}
    for name, precision, x64 in (("float64", "float32", "1"), *((p, p, "0") for p in PRECISIONS)):
        out = work / f"{method}-{name}.npy"
        worker("gradients", method, precision, given, out, JAX_ENABLE_X64=x64)
        arrays[name] = np.load(out)
    exact = arrays.pop("float64")
    rows = []
    for name, found in arrays.items():
        norms = np.linalg.norm(exact, axis=1)
        relative = np.linalg.norm(found - exact, axis=1) / norms
        cosine = np.sum(found * exact, axis=1) / norms / np.linalg.norm(found, axis=1)
        rows.append({
            "method": method, "precision": name, "episodes": count, "relative_error": float(np.median(relative)),
            "worst_relative_error": float(relative.max()), "cosine": float(np.median(cosine)),
            "worst_cosine": float(cosine.min()),
        })  # fmt: skip
    return rows


def accuracies(method: str, steps: int, seeds: int, work: Path) -> dict[str, Any]:
    """Accuracy in % after a short training in each precision, and their paired difference over the test episodes of all seeds."""
    found: dict[str, list[Any]] = {}
    for precision in PRECISIONS:
        for seed in range(seeds):
            run = work / f"{method}-{precision}-seed{seed}"
            options = (
                f"--method {method} --precision {precision} --seed {seed} --shot 5 --query 15 --batch 2 --filters 16 "
            )
            options += f"--inner-steps 2 --first-order-steps 0 --steps {steps} --epoch {steps} --val-episodes 20"
            lethax = [sys.executable, "-m", "lethax"]
            if not (run / "recipe.toml").exists():
                subprocess.run([*lethax, "train", "cifar_fs", *options.split(), "--out", str(run)], check=True)
            if not (judged := list(run.glob("evaluations/*.json"))):
                subprocess.run([*lethax, "evaluate", str(run), "--episodes", "200"], check=True)
                judged = list(run.glob("evaluations/*.json"))
            found.setdefault(precision, []).append(json.loads(judged[0].read_text())["per_episode"])
    scores = {name: 100 * np.array(of) for name, of in found.items()}
    gap = paired(np.mean(scores["bfloat16"], axis=0), np.mean(scores["float32"], axis=0))
    return {
        "method": method, "steps": steps, "seeds": seeds, "episodes": scores["float32"].shape[1],
        "by_seed": {name: of.mean(axis=1).tolist() for name, of in scores.items()},
        "bfloat16_minus_float32": {"mean": gap.mean, "ci95_over_episodes": gap.ci95},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/precision.json"))
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    match args.worker:
        case ["draw", method, count, file]:
            return draw(method, int(count), Path(file))
        case ["gradients", method, precision, file, out]:
            return gradients(method, precision, Path(file), Path(out))
    args.work.mkdir(parents=True, exist_ok=True)
    found = [row for method in METHODS for row in errors(method, args.episodes, args.work)]
    for row in found:
        print(row, flush=True)
    trained = [accuracies(method, args.steps, args.seeds, args.work) for method in METHODS]
    for row in trained:
        print(row, flush=True)
    command = shlex.join(["python", *sys.argv])
    made = {"command": command, "processor": processor().model, "meta_gradient": found, "training": trained}
    args.out.write_text(to_json(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
