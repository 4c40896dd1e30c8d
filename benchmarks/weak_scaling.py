"""Weak scaling on paper and by simulation: the meta-batch over many devices, and sweeps over many machines.

    python benchmarks/weak_scaling.py [--out docs/results/weak-scaling.json]

Weak scaling gives every device the same work, the meta-batch of a case of docs/results/peers.json, however many devices there are.
The step's own time is the median measured there, on two cores of a CPU, and a twentieth and a hundredth of it. An outer step
then takes the step's own time, the wait for the slowest device, and the sum of the meta-gradients over all devices (an all-reduce):

    ring   2 (n − 1) (latency + bytes / n / bandwidth)
    tree   2 ⌈log₂ n⌉ (latency + bytes / bandwidth)

of which the shorter is taken. It is not overlapped with the computation. The slowest of n devices is simulated: times are
log-normal with a median of 1. In a sweep, machines take runs from a shared folder. Each run has a log-normal time, and a machine
that looks for one reads the lock of every run before it.
"""

import argparse
import heapq
import itertools
import json
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lethax.files import to_json

NETWORKS = {  # latency in s, bandwidth in bytes/s, of one direction: usual values, not measured
    "Ethernet, 25 Gb/s": (20e-6, 25e9 / 8),
    "InfiniBand, 400 Gb/s": (2e-6, 400e9 / 8),
    "NVLink, 450 GB/s": (2e-6, 450e9),  # it joins some dozens of devices, but the model does not stop there
}
DEVICES = tuple(2**power for power in range(13))  # 1 to 4096
MEASURED = Path(__file__).parents[1] / "docs/results/peers.json"
SPREAD = 0.05  # deviation of the logarithm of a device's time
RUN_SPREAD, LOOK = 0.2, 1e-3  # of a run's time; seconds to read a lock on a shared file system


def all_reduce(devices: int, size: float, latency: float, bandwidth: float) -> float:
    """Seconds of the shorter of a ring and a tree."""
    if devices == 1:
        return 0.0
    ring = 2 * (devices - 1) * (latency + size / devices / bandwidth)
    tree = 2 * math.ceil(math.log2(devices)) * (latency + size / bandwidth)
    return min(ring, tree)


def slowest(devices: int, spread: float, draws: int = 400) -> float:
    """The mean of the largest of so many log-normal times with a median of 1."""
    random = np.random.default_rng(0)
    return float(np.mean([np.exp(spread * random.standard_normal(devices)).max() for _ in range(draws)]))


def sweep(machines: int, runs: int, seconds: float) -> float:
    """The seconds until all runs are done."""
    random = np.random.default_rng(0)
    free = [0.0] * machines
    for number in range(runs):
        begun = heapq.heappop(free) + LOOK * number
        heapq.heappush(free, begun + seconds * float(np.exp(RUN_SPREAD * random.standard_normal())))
    return max(free)


def nets() -> Iterator[tuple[str, int, float]]:
    """Of each net its name, the bytes of its meta-gradient, and the measured seconds of an outer step. L2F takes MAML's."""
    import jax

    from lethax import benchmark, trees

    measured = {
        row["case"]["name"]: row["implementations"]["Lethax"] for row in json.loads(MEASURED.read_text())["rows"]
    }
    l2f = replace(benchmark.CONV_32, method="l2f")
    for name, case in (
        ("sinusoid", benchmark.SINUSOID), ("4-conv, 32 px", benchmark.CONV_32), ("4-conv, 32 px, L2F", l2f),
        ("ResNet12, 84 px", benchmark.RESNET),
    ):  # fmt: skip
        _, _, learner, _ = benchmark.learner_of(case)
        size = 4 * trees.size(jax.eval_shape(learner.init, jax.random.key(0)))
        yield name, size, measured[case.name]["median_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows, reach = [], []
    waits = {devices: slowest(devices, SPREAD) for devices in DEVICES}
    for (net, size, seconds), faster, network in itertools.product(nets(), (1, 20, 100), NETWORKS):
        step, case = seconds / faster, {"net": net, "bytes": size, "faster": faster, "network": network}
        sums = {devices: all_reduce(devices, size, *NETWORKS[network]) for devices in DEVICES}
        rows += [
            {
                **case, "step_s": step, "devices": devices, "all_reduce_s": sum_s, "efficiency": step / (step + sum_s),
                "efficiency_with_waiting": step / (step * waits[devices] + sum_s),
            }
            for devices, sum_s in sums.items()
        ]  # fmt: skip
        below = [devices for devices, sum_s in sums.items() if step / (step + sum_s) < 0.9]
        reach.append({**case, "first_below_90_percent": below[0] if below else None})
    sweeps = []
    for machines in (1, 10, 100, 1000):
        runs = 10 * machines
        whole = sweep(machines, runs, 3600.0)
        sweeps.append(
            {
                "machines": machines,
                "runs": runs,
                "hours": whole / 3600,
                "efficiency": 3600 * 10 * math.exp(RUN_SPREAD**2 / 2) / whole,
            }
        )
    made = {
        "command": shlex.join(["python", *sys.argv]), "spread": SPREAD, "run_spread": RUN_SPREAD, "look_s": LOOK,
        "networks": {name: {"latency_s": one, "bytes_per_s": other} for name, (one, other) in NETWORKS.items()},
        "rows": rows, "reach": reach, "sweeps": sweeps,
    }  # fmt: skip
    for row in (*rows, *reach, *sweeps):
        print(" ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    if args.out:
        args.out.write_text(to_json(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
