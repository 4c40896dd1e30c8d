"""Seconds of an outer step of MAML-TRPO on 2D navigation, and where they go: python benchmarks/navigation_step.py [--out FILE].

20 tasks, 20 rollouts, 100 steps. 64-64 tanh with all curvature is the configuration of a measurement of an implementation in
PyTorch (tristandeleu/pytorch-maml-rl: 20.8 s an outer step on two cores); 100-100 ReLU is the paper's policy. Medians; compile
time apart.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from lethax.__main__ import huge_pages
from lethax.devices import use_all_cores
from lethax.domains.control import NAVIGATION_DOMAIN
from lethax.outer import begin
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.rl.outer import improve, travel
from lethax.rl.rollouts import collect_batch, draw_tasks

REFERENCE_SECONDS = 20.8
CASES = {
    "maml, 64-64 tanh": Recipe.of(data="navigation", method="maml", filters=64, rl_activation="tanh"),
    "maml, 64-64 tanh, a quarter of the curvature": Recipe.of(
        data="navigation", method="maml", filters=64, rl_activation="tanh", rl_cg_share=0.25
    ),
    "maml, 100-100 relu": Recipe.of(data="navigation", method="maml"),
    "l2f, 100-100 relu": Recipe.of(data="navigation", method="l2f"),
    "maml, 100-100 relu, a quarter of the curvature": Recipe.of(data="navigation", method="maml", rl_cg_share=0.25),
    "l2f, 100-100 relu, a quarter of the curvature": Recipe.of(data="navigation", method="l2f", rl_cg_share=0.25),
}


def timed(function: Callable[..., Any], *args: Any, repeats: int) -> tuple[float, float, Any]:
    """Seconds of the first call, the median of the others, and what came out."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        result = jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - begun)
    return seconds[0], statistics.median(seconds[1:]), result


def measure(recipe: Recipe, repeats: int) -> dict[str, float]:
    """One case: a whole step, and its parts as programs of their own."""
    resolved, domain = resolve(recipe), NAVIGATION_DOMAIN
    learner, plan, world = domain.learner(resolved), domain.plan(resolved), domain.environment(resolved)
    state = begin(learner, plan, jax.random.key(0))
    key = jax.random.key(1)
    tasks = draw_tasks(world, key, plan.batch)
    roll = jax.jit(partial(collect_batch, world, learner.net, count=plan.rollouts, shared=True))
    journey = jax.jit(lambda meta: travel(learner, plan, meta, world, tasks, key, learner.steps))
    first, whole, _ = timed(lambda: plan.single(learner, state, world, ()), repeats=repeats)
    _, rollouts, _ = timed(lambda: roll(state.meta["weights"], tasks, key), repeats=repeats)
    _, before, trip = timed(journey, state.meta, repeats=repeats)
    _, trust, _ = timed(lambda: improve(learner, plan, state.meta, trip.supports, trip.last), repeats=repeats)
    return {
        "first_step_s": first, "step_s": whole, "of_it_rollouts_s": 2 * rollouts,
        "of_it_advantages_and_adaptation_s": before - 2 * rollouts, "of_it_trust_region_s": trust,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    use_all_cores()
    rows = []
    for name, recipe in CASES.items():
        row: dict[str, Any] = {"case": name, **{k: round(v, 4) for k, v in measure(recipe, args.repeats).items()}}
        if "64-64" in name:
            row["reference_s"], row["ratio"] = REFERENCE_SECONDS, round(REFERENCE_SECONDS / row["step_s"], 1)
        rows.append(row)
        print(row, flush=True)
    if args.out:
        record = {
            "command": shlex.join(["python", *sys.argv]), "tasks": 20, "rollouts": 20, "horizon": 100,
            "repeats": args.repeats, "cores": os.cpu_count(), "machine": platform.machine(), "jax": jax.__version__,
            "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
            "rows": rows,
        }  # fmt: skip
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    huge_pages()  # as the `lethax` program
    main()
