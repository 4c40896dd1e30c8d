"""Seconds an outer step, compile time, second start and peak memory: python benchmarks/outer_steps.py [--out FILE] [--steps 9].

4-conv, 48 filters, 5-way 5-shot, 15 queries a class, 5 inner steps, two episodes an outer step, at 32 and 84 px on random
images. Every case has a process and a cache of compiled programs of its own; the second start is the same command again.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lethax.__main__ import huge_pages

CASES = [(px, method, order, memory) for px in (32, 84) for method, order, memory in (
    ("maml", 1, "fast"), ("maml", 2, "fast"), ("l2f", 2, "fast"), ("maml", 2, "lean"))]  # fmt: skip


def measure(px: int, method: str, order: int, memory: str, steps: int) -> dict[str, float]:
    """One case, in this process."""
    begun = time.perf_counter()
    import jax
    import numpy as np

    from lethax.data.source import class_split, on_device
    from lethax.devices import use_all_cores
    from lethax.domains import Inputs, domain_of
    from lethax.outer import begin, fit
    from lethax.recipe import Recipe
    from lethax.recipe.resolve import resolve

    use_all_cores()
    images = np.random.RandomState(0).randint(0, 256, (20 * 40, px, px, 3)).astype(np.uint8)
    tasks, source = on_device(class_split(images, np.repeat(np.arange(20), 40)), (0.5,) * 3, (0.25,) * 3, False)
    recipe = resolve(
        Recipe.of(
            data="cifar_fs", method=method, shot=5, order=order, memory=memory, first_order_steps=0, steps=steps + 1
        )
    )
    domain = domain_of(recipe)
    learner, plan = domain.learner(recipe, Inputs("cifar_fs", None, (px, px, 3))), domain.plan(recipe)
    calls = fit(learner, begin(learner, plan, jax.random.key(0)), tasks, source, plan)
    jax.block_until_ready(next(calls))
    first, seconds = time.perf_counter() - begun, []
    for _ in range(steps):
        begun = time.perf_counter()
        jax.block_until_ready(next(calls))
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first_step_s": first, "median_s": statistics.median(seconds), "min_s": min(seconds), "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/outer-steps.json"))
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--case", help="measure one case in this process: px,method,order,memory")
    args = parser.parse_args()
    if args.case:
        px, method, order, memory = args.case.split(",")
        print(json.dumps(measure(int(px), method, int(order), memory, args.steps)))
        return
    rows = []
    for px, method, order, memory in CASES:
        with tempfile.TemporaryDirectory() as cache:
            command = [
                sys.executable,
                __file__,
                "--steps",
                str(args.steps),
                "--case",
                f"{px},{method},{order},{memory}",
            ]
            env = {**os.environ, "LETHAX_CACHE": cache}
            outputs = [
                subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout for _ in (1, 2)
            ]
        first, second = (json.loads(output.splitlines()[-1]) for output in outputs)
        row = {"px": px, "method": method, "order": order, "memory": memory, **first}
        row |= {"second_start_first_step_s": second["first_step_s"], "second_start_median_s": second["median_s"]}
        rows.append({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
        print(rows[-1], flush=True)
        write(args.out, args.steps, rows)  # what is measured so far


def write(path: Path, steps: int, rows: list[dict[str, object]]) -> None:
    """The JSON of the rows."""
    import jax

    record = {
        "command": shlex.join(["python", *sys.argv]), "filters": 48, "way": 5, "shot": 5, "query": 15, "inner_steps": 5,
        "batch": 2, "timed_steps": steps, "cores": os.cpu_count(), "machine": platform.machine(),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "jax": jax.__version__, "rows": rows,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    huge_pages()  # as the `lethax` program
    main()
