"""One run on many devices and in several real processes: the same numbers, one writer, and what remains when a process is lost."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lethax import checkpoint, processes
from lethax.errors import LethaxError
from lethax.runs import folder as folders
from lethax.runs import training

ROOT = Path(__file__).parent.parent
# Three outer steps and an evaluation, as {case: numbers}. A case is (devices, outer steps a call, episodes a chunk).
STEPS = """
import dataclasses, json, sys
import jax, numpy as np
from lethax import processes
from lethax.data.curves import family
from lethax.evaluation import Trial, evaluate
from lethax.methods import L2F
from lethax.nets import MLP
from lethax.objectives import SquaredError
from lethax.meta_batch import Plan
from lethax.outer import begin, fit
from lethax.records import EpisodeShape

cases, own = json.loads(sys.argv[1]), int(sys.argv[2])
jax.config.update("jax_num_cpu_devices", own)
processes.join(False)
learner = L2F(MLP(hidden=(8,), spread=0.5), objective=SquaredError(), steps=1)
tasks, source, test = family("sinusoid")
shape, found = EpisodeShape(1, 5, 10), {}
for devices, chunk, task_chunk in cases:
    plan = Plan(shape, total=3, batch=8, rate=0.1, reduction="mean", chunk=chunk, devices=devices, task_chunk=task_chunk)
    state = processes.of_first(begin(learner, plan, jax.random.key(0)))
    for state, info in fit(learner, state, tasks, source, plan):
        pass
    # A validation divides its episodes among all devices, also where a meta-batch has fewer.
    trial = Trial(shape, episodes=4, together=4, devices=1 if devices == 1 else len(jax.devices()))
    (scores, _), = evaluate(learner, [state.meta], tasks, test, trial, jax.random.key(1))
    numbers = [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves((state.meta, info["loss"][-1:]))]
    found[f"{devices} {chunk} {task_chunk}"] = sum(numbers, scores.ravel().tolist())
print("numbers:" + json.dumps(found))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Network(NamedTuple):
    """Where processes run: the words before their command, and the address of the first one."""

    before: list[list[str]]
    address: str


SHARED = Network([[], []], "127.0.0.1")


@pytest.fixture
def apart() -> Iterator[Network]:
    """Two machines, as far as the network goes: two namespaces with a cable between them. Without the rights for that, one."""
    names = [f"lethax{os.getpid()}{end}" for end in "ab"]
    lines = [f"ip netns add {name}" for name in names]
    lines.append(f"ip link add veth1 netns {names[0]} type veth peer name veth2 netns {names[1]}")
    for own, name in enumerate(names, 1):
        lines += [f"ip -n {name} addr add 10.77.0.{own}/24 dev veth{own}", f"ip -n {name} link set veth{own} up"]
        lines += [f"ip -n {name} link set lo up"]
    may = bool(shutil.which("ip")) and all(
        subprocess.run(line.split(), capture_output=True).returncode == 0 for line in lines
    )
    yield Network([["ip", "netns", "exec", name] for name in names], "10.77.0.1") if may else SHARED
    for name in names if shutil.which("ip") else []:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@contextlib.contextmanager
def started(*commands: list[str], network: Network = SHARED, **others: str) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each command, all of one run, which are gone at the end."""
    port, found, pipe = free_port(), [], subprocess.PIPE
    try:
        for number, (words, before) in enumerate(zip(commands, network.before, strict=False)):
            around = {**os.environ, "PYTHONPATH": str(ROOT), **others}
            if len(commands) > 1:
                around |= {processes.COORDINATOR: f"{network.address}:{port}", processes.PROCESSES: str(len(commands)),
                           processes.PROCESS: str(number)}  # fmt: skip
            whole = [*before, sys.executable, *words]
            found.append(subprocess.Popen(whole, env=around, stdout=pipe, stderr=pipe, text=True, cwd=ROOT))
        yield found
    finally:
        for process in found:
            process.kill()
            process.communicate()


def numbers(process: subprocess.Popen[str]) -> dict[str, list[float]]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    line = next(line for line in out.splitlines() if line.startswith("numbers:"))
    found: dict[str, list[float]] = json.loads(line.removeprefix("numbers:"))
    return found


def test_devices_and_processes_give_the_same_numbers(apart: Network) -> None:
    alone = [[1, 1, 0], [4, 3, 1]]
    together = [[4, 1, 0], [2, 3, 2]]
    with started(["-c", STEPS, json.dumps(alone), "4"], JAX_ENABLE_X64="1") as (one,):
        of_one = numbers(one)
    words = ["-c", STEPS, json.dumps(together), "2"]
    with started(words, words, network=apart, JAX_ENABLE_X64="1") as (first, second):
        of_two = numbers(first), numbers(second)
    expected = of_one.pop("1 1 0")
    assert len(of_one) == 1 and len(of_two[0]) == 2
    for found in (of_one, *of_two):
        for case, values in found.items():
            np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12, err_msg=case)


TRAIN = [
    "-m",
    "lethax",
    "train",
    "sinusoid",
    "--method",
    "l2f",
    "--filters",
    "8",
    "--epoch",
    "10",
    "--val-episodes",
    "4",
]


def test_a_lost_process_ends_a_run_that_one_process_goes_on_with(tmp_path: Path) -> None:
    words = [*TRAIN, "--steps", "1000000", "--out", str(tmp_path / "run")]
    with started(words, words) as (first, second):
        states = tmp_path / "run" / folders.CHECKPOINTS
        until = time.monotonic() + 300
        while not checkpoint.numbered(states, "step"):
            assert time.monotonic() < until and first.poll() is None, first.communicate()
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        _, err = first.communicate(timeout=100)
        out, _ = second.communicate()
    assert first.returncode == 1 and "run" not in out
    run = folders.open_run(tmp_path / "run")
    reached = folders.reached(run)
    saved = f"the state is saved at step {reached}. Go on in any number of processes: lethax train --resume"
    assert f"lethax: one of 2 processes was lost; {saved}" in err and "Traceback" not in err
    statuses = training.train(run)
    assert next(statuses).step == reached + 10
    statuses.close()
    lines = [json.loads(line)["step"] for line in (tmp_path / "run" / folders.METRICS).read_text().splitlines()]
    assert lines == list(range(10, reached + 11, 10))  # each written once


def test_processes_with_other_options_do_not_train_together(tmp_path: Path) -> None:
    """Such as the jobs of a sweep, which a launcher started side by side."""
    words = [*TRAIN, "--steps", "10", "--out", str(tmp_path / "run")]
    with started(words, [*words, "--seed", "1"]) as both:
        for process, code in zip(both, (1, 2), strict=True):
            _, err = process.communicate(timeout=100)
            assert process.returncode == code and f"set {processes.PROCESSES}=1 for runs of their own" in err
    assert not (tmp_path / "run" / folders.CHECKPOINTS).exists()


@pytest.mark.parametrize(
    "given,message",
    [
        ({processes.PROCESSES: "2"}, "LETHAX_PROCESSES is set, but not LETHAX_COORDINATOR and LETHAX_PROCESS"),
        (
            ("here:1", "2", "2"),
            "LETHAX_PROCESSES is 2 and LETHAX_PROCESS is 2: the processes of a run are numbered from 0",
        ),
        (("here:1", "two", "0"), "LETHAX_PROCESSES is two and"),
        (("here", "2", "0"), "LETHAX_COORDINATOR is here; it has to be HOST:PORT"),
        ((":1234", "2", "0"), "LETHAX_COORDINATOR is :1234; it has to be HOST:PORT"),
        (("here:99999999", "2", "0"), "with a port from 1 to 65535"),
    ],
)
def test_an_environment_that_cannot_be_is_one_sentence(
    given: dict[str, str] | tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (processes.COORDINATOR, processes.PROCESSES, processes.PROCESS)
    for name, value in (given if isinstance(given, dict) else dict(zip(names, given, strict=True))).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LethaxError, match=message):
        processes.join(False)


def test_a_process_that_is_to_be_alone_stays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.PROCESSES, "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    processes.join(False)
    assert processes.count() == 1 and processes.first()
