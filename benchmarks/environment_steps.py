"""Environment steps a second: python benchmarks/environment_steps.py [--out FILE] [--seconds 1] [--repeats 5].

Every locomotion task, closed loop, random actions, at 40 and 400 rollouts on 1 and 2 threads, beside gymnasium's own loop of one
environment. Medians and extremes of the repeats, which go round all cases, so that other load meets all of them alike.
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
from pathlib import Path
from typing import Any

import numpy as np

from lethax.rl.aims import AIMS
from lethax.rl.locomotion import Locomotion
from lethax.rl.physics import quiet

Rate = Callable[[float], float]  # seconds to spend -> environment steps a second


def batched(environment: Any, rollouts: int) -> Rate:
    """Any environment with the contract of `Locomotion`; new rollouts after each horizon, whose reset counts too."""
    rng = np.random.default_rng(0)
    tasks = environment.draw(rng, rollouts)
    actions = rng.standard_normal((16, rollouts, environment.actions)).astype(np.float32)

    def rate(seconds: float) -> float:
        begun, steps, (state, _) = time.perf_counter(), 0, environment.reset(rng, tasks)
        while (spent := time.perf_counter() - begun) < seconds or steps < 2 * rollouts:
            if steps and steps // rollouts % environment.horizon == 0:
                state, _ = environment.reset(rng, tasks)
            state, *_, done = environment.step(state, actions[steps // rollouts % 16], tasks)
            steps += rollouts
            if done.any():  # as many rollouts in every step
                state = state._replace(done=np.zeros_like(done))
        return steps / spent

    return rate


def navigation(tasks: int, rollouts: int) -> Rate:
    """2D navigation on the device, with the policy that acts in it: one compiled program of `tasks` × `rollouts`."""
    import jax

    from lethax.nets.policy import GaussianPolicy
    from lethax.rl.navigation import Navigation
    from lethax.rl.rollouts import collect_batch, draw_tasks

    environment, policy = Navigation(), GaussianPolicy(2, 2)
    weights, where = policy.init(jax.random.key(0)), draw_tasks(environment, jax.random.key(1), tasks)
    roll = jax.jit(lambda key: collect_batch(environment, policy, weights, where, key, rollouts, shared=True))
    jax.block_until_ready(roll(jax.random.key(2)))

    def rate(seconds: float) -> float:
        begun, steps = time.perf_counter(), 0
        while (spent := time.perf_counter() - begun) < seconds or not steps:
            jax.block_until_ready(roll(jax.random.key(steps)))
            steps += tasks * rollouts * environment.horizon
        return steps / spent

    return rate


def single(ident: str) -> Rate:
    """gymnasium's environment, stepped and reset one rollout after the other."""
    import gymnasium

    with quiet():
        env, rng = gymnasium.make(ident, max_episode_steps=200), np.random.default_rng(0)
    actions = 0.1 * rng.standard_normal((16, *env.action_space.shape))
    env.reset(seed=0)

    def rate(seconds: float) -> float:
        begun, steps = time.perf_counter(), 0
        while (spent := time.perf_counter() - begun) < seconds or not steps:
            _, _, terminated, truncated, _ = env.step(actions[steps % 16])
            if terminated or truncated:
                env.reset()
            steps += 1
        return steps / spent

    return rate


def cases() -> dict[str, Rate]:
    """Name of a row -> how to measure it. A new environment is one more line here."""
    rows: dict[str, Rate] = {
        f"navigation with its policy, {tasks * 20} rollouts": navigation(tasks, 20) for tasks in (2, 20)
    }
    for name in AIMS:
        for rollouts in (40, 400):
            for threads in (1, 2):
                rows[f"{name}, {rollouts} rollouts, threads {threads}"] = batched(
                    Locomotion(name, threads=threads), rollouts
                )
    for ident in ("HalfCheetah-v5", "Ant-v5"):
        rows[f"gymnasium {ident}, 1 rollout, threads 1"] = single(ident)
    return rows


def measure(rows: dict[str, Rate], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Steps a second of every row: median, lowest, highest."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for rate in rows.values():
        rate(0.0)  # models, threads and pages are there before the clock runs
    for _ in range(repeats):
        for name, rate in rows.items():
            found[name].append(rate(seconds))
    return [
        {"case": name, "median": round(statistics.median(rates)), "low": round(min(rates)), "high": round(max(rates))}
        for name, rates in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one repeat of one case")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = measure(cases(), args.seconds, args.repeats)
    for row in rows:
        print(f"{row['case']:<44}{row['median']:>9,} steps/s  ({row['low']:,} to {row['high']:,})")
    if args.out:
        import gymnasium
        import mujoco

        record = {
            "command": shlex.join(["python", *sys.argv]), "seconds": args.seconds, "repeats": args.repeats,
            "cores": os.cpu_count(), "machine": platform.machine(), "python": sys.version.split()[0],
            "mujoco": mujoco.__version__, "gymnasium": gymnasium.__version__, "rows": rows,
        }  # fmt: skip
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
