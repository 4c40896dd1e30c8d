"""Seconds from the start of a command to its first outer step: python benchmarks/cold_start.py [--out FILE] [--rounds 5].

Every measurement is a whole process. The compiled programs are on the disk, in a cache that one unmeasured process of each command
has filled, so these are second runs of the same command. The clock of a training stops when the state after its first call is on
the disk: 500 outer steps on sinusoids, one on pictures. The pictures are noise, with the sizes and the recipe of CIFAR-FS.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lethax import benchmark
from lethax.data.writer import StoreWriter
from lethax.files import to_json

_ROOT = Path(__file__).resolve().parents[1]
SIDE, EACH = 32, 600  # pixels, pictures of a class
LETHAX = ("-m", "lethax")
CASES = {  # words behind the interpreter
    "python": ("-c", "pass"),
    "import jax, optax": ("-c", "import jax, optax"),
    "lethax --help": (*LETHAX, "--help"),
    # The first validation follows after an epoch: here it is not what is waited for.
    "sinusoid": (*LETHAX, "train", "sinusoid", "--method", "l2f", "--epoch", "5000"),
    "CIFAR-FS": (*LETHAX, "train", "cifar_fs", "--method", "l2f"),
}


def make(root: Path) -> None:
    """Noise in the place of CIFAR-FS."""
    random = np.random.default_rng(0)
    with StoreWriter(root, "cifar_fs", mean=(0.5,) * 3, std=(0.25,) * 3, source={"kind": "noise"}) as writer:
        for split, count in (("train", 64), ("val", 16), ("test", 20)):
            array = writer.split(split, (SIDE, SIDE, 3), [(f"{split}{i}", "", EACH) for i in range(count)])
            array[:] = random.integers(0, 256, array.shape, np.uint8)


def measure(words: tuple[str, ...], env: Mapping[str, str]) -> float:
    """Seconds of a process to its end, or, of a training, to its first state; it is killed then."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        training = "train" in words
        command = [sys.executable, "-P", *words, *(["--out", str(out)] if training else [])]
        begun = time.perf_counter()
        with subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            if training:
                _wait(process, lambda: any(out.glob("checkpoints/step*")))
            else:
                process.communicate()
            seconds = time.perf_counter() - begun
            if training:
                process.kill()
    if not training and process.returncode:
        sys.exit(f"{shlex.join(words)} failed.")
    return seconds


def _wait(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    while not reached():
        if process.poll() is not None:
            assert process.stdout
            sys.exit(process.stdout.read().decode(errors="replace"))
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/cold-start.json"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root / "data")
        paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        around = {"LETHAX_DATA": str(root / "data"), "LETHAX_CACHE": str(root / "cache"), "PYTHONPATH": paths}
        env = {**{name: value for name, value in os.environ.items() if not name.startswith("JAX_")}, **around}
        first = {name: round(measure(words, env), 3) for name, words in CASES.items()}
        for _ in range(args.rounds):
            for name, words in CASES.items():  # in turn, so that what else the machine does falls on all
                seconds[name].append(round(measure(words, env), 3))
    rows = [
        {
            "case": name,
            "words": shlex.join(words),
            "first_run_s": first[name],
            "median_s": statistics.median(seconds[name]),
        }
        | {"seconds": seconds[name]}
        for name, words in CASES.items()
    ]
    for row in rows:
        print(f"{row['case']}: {row['median_s']:.2f} s, at first {row['first_run_s']:.2f} s")
    made = {"command": shlex.join(["python", *sys.argv]), **benchmark.machine(), "load": os.getloadavg(), "rows": rows}
    args.out.write_text(to_json(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
