"""Train on a store that is larger than memory, and on a small one: python benchmarks/large_store.py --root FOLDER [--gib 20].

FOLDER gets a data set of so many GiB of noise at 84 px, and one of a hundredth of it. A process for each measures the seconds of an
outer step (4-conv, 16 filters, 5-way 5-shot, 15 queries, one inner step, first order: little work for many pictures) and the memory
that is its own (RssAnon), without the pages of the mapped file that the system may drop at any time.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lethax.data.host import LIMIT
from lethax.data.store import find_store
from lethax.data.writer import StoreWriter
from lethax.files import to_json
from lethax.hardware import processor, text

SIDE, EACH = 84, 600  # pixels, pictures of a class


def make(root: Path, name: str, gib: float) -> None:
    """A data set of noise; validation and test classes are few."""
    classes = max(int(gib * 2**30 / (SIDE * SIDE * 3 * EACH)), 5)
    random = np.random.default_rng(0)
    with StoreWriter(root, name, mean=(0.5,) * 3, std=(0.25,) * 3, source={"kind": "noise"}) as writer:
        for split, count in (("train", classes), ("val", 5), ("test", 5)):
            array = writer.split(split, (SIDE, SIDE, 3), [(f"{split}{i}", "", EACH) for i in range(count)])
            for i in range(count):
                array[i * EACH : (i + 1) * EACH] = random.integers(0, 256, (EACH, SIDE, SIDE, 3), np.uint8)


def measure(root: Path, name: str, steps: int) -> dict[str, float]:
    """Seconds of an outer step and bytes of memory, in this process."""
    import jax

    from lethax.devices import use_all_cores
    from lethax.domains import domain_of
    from lethax.outer import begin, fit
    from lethax.recipe import Recipe
    from lethax.recipe.resolve import resolve

    os.environ["LETHAX_DATA"] = str(root)
    use_all_cores()
    recipe = resolve(Recipe.of(
        data=name, method="maml", order=1, filters=16, shot=5, query=15, inner_steps=1, batch=2, steps=steps + 5,
        first_order_steps=0,
    ))  # fmt: skip
    domain = domain_of(recipe)
    learner, plan = domain.learner(recipe, domain.inputs(recipe)), domain.plan(recipe)
    family, seconds = domain.family(recipe, "train"), []
    calls = fit(learner, begin(learner, plan, jax.random.key(0)), family.tasks, family.source, plan)
    for _ in range(steps + 5):
        begun = time.perf_counter()
        jax.block_until_ready(next(calls))
        seconds.append(time.perf_counter() - begun)
    own = next(line for line in text("proc/self/status").splitlines() if line.startswith("RssAnon:"))
    return {"median_s": statistics.median(seconds[5:]), "own_mib": int(own.split()[1]) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--gib", type=float, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/results/large-store.json"))
    parser.add_argument("--case", help="measure one data set in this process")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.root, args.case, args.steps)))
        return
    rows = []
    for name, gib in (("noise-small", args.gib / 100), ("noise-large", args.gib)):
        if find_store(name, args.root) is None:
            make(args.root, name, gib)
    for name, gib, mib in (
        ("noise-small", args.gib / 100, "1e6"),
        ("noise-small", args.gib / 100, "0"),
        ("noise-large", args.gib, "0"),
    ):
        words = [sys.executable, __file__, "--root", str(args.root), "--steps", str(args.steps), "--case", name]
        said = subprocess.run(words, env={**os.environ, LIMIT: mib}, check=True, capture_output=True, text=True).stdout
        where = "disk" if mib == "0" else "device"
        rows.append({"gib": gib, "where": where, **json.loads(said.splitlines()[-1])})
        print(
            f"{gib:g} GiB on the {where}: {rows[-1]['median_s']:.3f} s a step, {rows[-1]['own_mib']:,.0f} MiB",
            flush=True,
        )
    made = {"command": shlex.join(["python", *sys.argv]), "processor": processor().model, "rows": rows}
    args.out.write_text(to_json(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
