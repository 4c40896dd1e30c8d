"""Time Lethax and its peers on the same steps: python benchmarks/compare_peers.py [--case NAME] [--out FILE], or --check.

--check first: all of them give the same losses and meta-gradients, or outputs, on the same weights and episodes, in float64.
Each measurement is a process of its own. The implementations take turns, so that what disturbs the machine disturbs all. The
peers come with `pip install -e ".[bench]"`; what cannot be imported is said, and passed over.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, Implementation, problem

from lethax import benchmark
from lethax.__main__ import huge_pages
from lethax.benchmark import Case, Measured
from lethax.errors import LethaxError

CASES = {case.name: case for case in benchmark.ALL if case.memory == "fast"}
OURS, LEAN = "Lethax", "Lethax, lean"
TOLERANCE = 1e-9
EXACT = {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # of a check, which is mostly compilation
PACKAGES = ("jax", "jaxlib", "numpy", "torch", "higher", "torchopt", "jax-meta", "dm-haiku")
# What could slow one of them down is not handed on: with OMP_WAIT_POLICY=passive PyTorch takes a third longer.
FOREIGN = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "GLIBC_TUNABLES", "XLA_FLAGS", "JAX_")


@dataclass(frozen=True)
class Runner:
    """How an implementation is run in a process of its own; without `peer` it is Lethax."""

    name: str
    case: Case
    peer: Implementation | None = None

    def process(self, words: list[str], cache: Path, **more: str) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of the process, which begins with the words and this runner."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        environment = {**plain, **(self.peer.environment if self.peer else {}), "LETHAX_CACHE": str(cache), **more}
        said = json.dumps([self.name, asdict(self.case)])
        return [sys.executable, __file__, *words, "--worker", said], environment


def runners(case: Case) -> list[Runner]:
    """Lethax, fast and lean where that is another program, and the peers that do the case and can be imported."""
    ours = [Runner(OURS, case)]
    if case.net == "conv4" and not case.judged:
        ours.append(Runner(LEAN, benchmark.lean(case)))
    return ours + [Runner(name, case, peer) for name, peer in PEERS.items() if peer.does(case)]


def check(cases: list[Case]) -> bool:
    """Print the largest difference of each implementation from Lethax, relative to the largest entry of the tensor."""
    right = True
    for case in map(problem.small, cases):
        reference: dict[str, np.ndarray] = {}
        for runner in runners(case):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "answer.npz"
                command, env = runner.process(["--answer", str(file)], Path(folder), **EXACT)
                done = subprocess.run(command, env=env, capture_output=True, text=True)
                if done.returncode:
                    print(f"{case.name}: {runner.name} failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
                    right = right and bool(runner.peer)
                    continue
                with np.load(file) as arrays:
                    found = dict(arrays)
            reference = reference or found
            error = difference(reference, found)
            right &= error < TOLERANCE
            verdict = "agrees" if error < TOLERANCE else "DIFFERS"
            print(f"{case.name}: {runner.name} {verdict}, {error:.1e} of {len(found)} arrays", flush=True)
    return right


def difference(wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    """The largest difference of two answers; infinite if they have other arrays, or numbers of less than 64 bits."""
    if wanted.keys() != found.keys() or any(array.dtype != np.float64 for array in found.values()):
        return np.inf
    same = [(wanted[name], found[name]) for name in wanted]
    return max(
        np.inf if a.shape != b.shape or not np.isfinite(b).all() else float(np.abs(a - b).max() / np.abs(a).max())
        for a, b in same
    )


def compare(case: Case, rounds: int, calls: int, among: list[str] | None = None) -> dict[str, Any]:
    """Measure all implementations in turn, or Lethax and the peers that are named, and compare their medians."""
    found: dict[str, list[Measured]] = {}
    known = {one.name: one for one in runners(case) if not among or one.peer is None or one.name in among}
    failed: dict[str, str] = {}
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(rounds):
            for name, runner in known.items():
                command, env = runner.process(["--calls", str(calls)], Path(cache))
                if name in failed:
                    continue
                try:
                    found.setdefault(name, []).append(benchmark.in_a_process(command, env, f"{case.name}, {name}"))
                except LethaxError as error:
                    failed[name] = str(error)
                    print(error, file=sys.stderr, flush=True)
    rows = {name: summary(known[name], parts) for name, parts in found.items() if name not in failed}
    row = {"case": asdict(case), "load_before": load, "implementations": rows, "failed": failed}
    peers = {name: one["median_s"] for name, one in rows.items() if known[name].peer}
    if not peers or OURS not in rows:
        return row
    best = min(peers, key=lambda name: peers[name])
    ratios = {name: peers[best] / rows[name]["median_s"] for name in (OURS, LEAN) if name in rows}
    return {**row, "best_peer": best, "ratios": ratios}


def summary(runner: Runner, parts: list[Measured]) -> dict[str, Any]:
    """What the turns of one implementation took. Compilation is in the first step of the first turn."""
    seconds = [one for part in parts for one in part.seconds]
    allocator = (
        runner.peer.environment if runner.peer else {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1, where Linux gives it"}
    )
    return {
        "median_s": statistics.median(seconds), "min_s": min(seconds), "seconds": seconds,
        "first_step_s": [part.first for part in parts],
        "peak_mib": [part.peak and part.peak / 2**20 for part in parts], "environment": allocator,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """One line of a case: milliseconds and peak memory of each, and the ratios."""
    each = [
        f"{name} {1e3 * one['median_s']:.4g} ms ({max(one['peak_mib']):.0f} MiB)"
        for name, one in row["implementations"].items()
    ]
    ratios = [f"{row['best_peer']} / {name} = {ratio:.2f}" for name, ratio in row.get("ratios", {}).items()]
    return f"{row['case']['name']}: {', '.join(each)}; {', '.join(ratios) or 'nothing to compare with'}"


def work(name: str, case: Case, calls: int, file: Path | None) -> None:
    """Do in this process what `check` and `compare` ask of one implementation."""
    peer = PEERS.get(name)
    if file is None and peer is None:
        huge_pages()  # as the `lethax` program
        benchmark.tell(benchmark.measure(case, calls))
        return

    def made(dtype: type) -> Any:
        assert peer is not None
        weights = {name: w.astype(dtype) for name, w in problem.weights(case).items()}
        return getattr(import_module(f"peers.{peer.module}"), peer.name)(case, weights)

    if file is None:

        def prepare() -> tuple[Any, int]:
            one = made(np.float32)
            return one.call, one.steps

        benchmark.tell(benchmark.timed(prepare, calls))
        return
    episodes = problem.episodes(case)
    if peer is None:
        from peers import ours

        found = ours.answer(case, problem.weights(case), episodes)
    else:
        found = made(np.float64).answer(episodes)
    np.savez(file, **found)


def versions() -> dict[str, str]:
    """Of the packages that are there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare what they compute, and time nothing")
    parser.add_argument("--case", action="append", choices=CASES, help="one case; may be given again (default: all)")
    parser.add_argument("--out", type=Path, default=Path("docs/results/peers.json"))
    parser.add_argument("--peer", action="append", choices=PEERS, help="one peer; may be given again (default: all)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every implementation (default: 2)")
    parser.add_argument("--calls", type=int, default=3, help="timed calls in a turn, after its first (default: 3)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, case = json.loads(args.worker)
        work(name, Case(**case), args.calls, args.answer)
        return
    cases = [CASES[name] for name in args.case or CASES]
    if args.check:
        sys.exit(0 if check(cases) else 1)
    rows = {}
    if args.out.is_file():  # cases that are not measured now stay
        rows = {row["case"]["name"]: row for row in json.loads(args.out.read_text())["rows"]}
    for case in cases:
        about = {"command": shlex.join(["python", *sys.argv]), "versions": versions(), **benchmark.machine()}
        rows[case.name] = {**about, **compare(case, args.rounds, args.calls, args.peer)}
        print(line(rows[case.name]), flush=True)
        args.out.write_text(json.dumps({"rows": list(rows.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
