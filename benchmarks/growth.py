"""How the cost of an outer step grows, and how far it is from what the machine can do.

    python benchmarks/growth.py [--calls 3] [--out docs/results/growth.json]

One quantity of the reference changes at a time (4-conv with 64 filters, 32 px, 5-way 5-shot, 15 queries, 5 inner steps of second
order, two episodes). Each case is a process of its own, and is timed at its second start, when its programs are compiled.

The ceiling is the least time that the convolutions take: each product the larger of its operations by the speed of a large product
of matrices, and of its operands and result, moved once, by the speed of a copy. A convolution has three products: its result and
its two derivatives. An inner step of first order takes the three, one of second order nine, because each of the three has two
derivatives more. Pictures need no derivative, so that the first layer has two and four. All else, such as batch norm, is left out.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from lethax import benchmark
from lethax.__main__ import huge_pages
from lethax.benchmark import CONV_32, Case
from lethax.files import to_json
from lethax.hardware import processor

VARIED = {
    "shot": (1, 10), "way": (2, 10, 20), "steps": (1, 10, 20), "filters": (16, 32, 128), "px": (16, 64, 84),
    "batch": (1, 4, 8), "order": (1,), "method": ("l2f",),
}  # fmt: skip
LEAN = {"steps": (1, 10, 20), "batch": (4, 8)}


def cases() -> Iterator[tuple[str, Case]]:
    """The name of what changes, and the case."""
    for memory, varied in (("fast", VARIED), ("lean", LEAN)):
        base = replace(CONV_32, memory=memory)
        yield "reference", base
        for name, values in varied.items():
            for value in values:
                yield f"{name} {value}", replace(base, **{name: value})  # type: ignore[arg-type]


def products(case: Case) -> Iterator[tuple[float, float]]:
    """(operations, bytes) of the convolutions of an outer step, layer by layer."""
    side, inputs = case.px, 3
    support, query = case.way * case.shot * case.steps, case.way * case.query
    for layer in range(4):
        of_step, of_query = (3, 3) if layer else (2, 2)
        if case.order == 2:
            of_step = 9 if layer else 4
        images = case.batch * (support * of_step + query * of_query)
        kernels = case.batch * (case.steps * of_step + of_query)
        positions, kernel = images * side * side, 9 * inputs * case.filters
        yield 2.0 * positions * kernel, 4.0 * (positions * (inputs + case.filters) + kernels * kernel)
        side, inputs = side // 2, case.filters


def machine() -> tuple[float, float]:
    """Operations a second of a product of two matrices of 2048, and bytes a second of a copy of 512 MiB, medians of nine."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "float32")
    square, long = jnp.ones((2048, 2048)), jnp.ones(1 << 27)

    def seconds(function: object, argument: object) -> float:
        call = jax.jit(function)  # type: ignore[arg-type]
        jax.block_until_ready(call(argument))
        times = []
        for _ in range(9):
            begun = time.perf_counter()
            jax.block_until_ready(call(argument))
            times.append(time.perf_counter() - begun)
        return statistics.median(times)

    return 2 * 2048**3 / seconds(lambda a: a @ a, square), 2 * long.nbytes / seconds(lambda a: a + 1, long)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    huge_pages()  # as the `lethax` program
    rows, every = [], os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        listed = [(name, case, every) for name, case in cases()] + [("one device", CONV_32, {min(every)})]
        for name, case, cores in listed:
            os.sched_setaffinity(0, cores)
            cold, warm = benchmark.apart(case, 1, Path(folder)), benchmark.apart(case, args.calls, Path(folder))
            rows.append({
                "varied": name, "memory": case.memory, "devices": len(cores), "case": asdict(case), "median_s": warm.median,
                "peak_mib": warm.peak and warm.peak / 2**20, "peak_with_compilation_mib": cold.peak and cold.peak / 2**20,
                "first_step_s": cold.first, "first_step_of_a_second_start_s": warm.first,
            })  # fmt: skip
            print(f"{name}, {case.memory}: {warm.median:.3f} s", flush=True)
    os.sched_setaffinity(0, every)
    speed, bandwidth = machine()  # last: a process begins with the peak memory of the one that starts it
    print(f"a product of matrices: {speed / 1e9:.0f} GFLOP/s; a copy: {bandwidth / 1e9:.1f} GB/s")
    for row, (_, case, cores) in zip(rows, listed, strict=True):
        found, share = list(products(case)), len(cores) / len(every)
        ceiling = sum(max(flop / (speed * share), moved / bandwidth) for flop, moved in found)
        row["gflop"], row["gbyte"] = (sum(one) / 1e9 for one in zip(*found, strict=True))
        row["ceiling_s"], row["share"] = ceiling, ceiling / row["median_s"]
        print(json.dumps({key: value for key, value in row.items() if key != "case"}))
    if args.out:
        command = shlex.join(["python", *sys.argv])
        made = {
            "command": command,
            "processor": processor(),
            "flop_per_s": speed,
            "bytes_per_s": bandwidth,
            "rows": rows,
        }
        args.out.write_text(to_json(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
