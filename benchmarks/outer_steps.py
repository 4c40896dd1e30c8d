"""Seconds an outer step, compile time, second start and peak memory: python benchmarks/outer_steps.py [--out FILE] [--steps 9].

4-conv, 48 filters, 5-way 5-shot, 15 queries a class, 5 inner steps, two episodes an outer step, at 32 and 84 px on random
images. Every case has a process and a cache of compiled programs of its own; the second start is the same command again.
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

from lethax import benchmark
from lethax.__main__ import huge_pages
from lethax.benchmark import Case

CASES = [
    Case("outer step", px=px, filters=48, method=method, order=order, memory=memory)
    for px in (32, 84)
    for method, order, memory in (("maml", 1, "fast"), ("maml", 2, "fast"), ("l2f", 2, "fast"), ("maml", 2, "lean"))
]


def measured(case: Case, steps: int) -> dict[str, object]:
    """What a first and a second start of the case take."""
    with tempfile.TemporaryDirectory() as cache:
        first, second = (benchmark.apart(case, steps, Path(cache)) for _ in (1, 2))
    row = benchmark.row(case, first)
    row |= {"second_start_first_step_s": second.first, "second_start_median_s": second.median}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/outer-steps.json"))
    parser.add_argument("--steps", type=int, default=9)
    args = parser.parse_args()
    record = {"command": shlex.join(["python", *sys.argv]), **benchmark.machine(), "rows": []}
    for case in CASES:
        record["rows"].append(measured(case, args.steps))
        print(record["rows"][-1], flush=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")  # what is measured so far


if __name__ == "__main__":
    huge_pages()  # as the `lethax` program
    main()
