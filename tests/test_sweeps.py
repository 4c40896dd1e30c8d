"""Sweeps as jobs, in real processes: no run is trained or judged twice, whoever starts it, ends it or fails."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="jobs need submitit, which requirements-dev.txt has")

ROOT = Path(__file__).parent.parent
# Makes the cells of a table that take no time, in every process; notes which one trains and judges what; and has some of them fail.
PLUGIN = """
import os, time
from pathlib import Path
import lethax
from lethax import clusters, reproduce
from lethax.domains import Judging, supervised
from lethax.errors import DivergedError
from lethax.report import cells
from lethax.runs import training

HERE = Path(__file__).parent
cells.FOLDER, supervised.CHUNK, clusters.Slurm.lag = HERE / "recipes", 20, 1.0
reproduce.CellJob.protocol = property(lambda job: Judging(100, 1))
lethax.register_rule("plainly", "An inner step.", lambda r: lethax.SGD(r.inner.rate))
computed, evaluated = training._computed, reproduce.evaluate_run

def note(run, what):
    with open(HERE / "notes", "a") as file:
        file.write(f"{os.getpid()} {run.folder.parent.name} {what}\\n")

def noted(runs, *others):
    for call in computed(runs, *others):
        if runs[0].folder.parent.name in os.environ.get("FAILS", ""):
            raise DivergedError("outer step 3 is not finite.")
        for run in runs:
            note(run, call.done)
        yield call
        time.sleep(float(os.environ.get("PAUSE", "0")))

def judged(run, **others):
    note(run, "judged")
    return evaluated(run, **others)

training._computed, reproduce.evaluate_run = noted, judged
"""
JOBS = ["reproduce", "x", "--steps", "60", "--jobs"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three cells, which do not train together."""
    (tmp_path / "recipes" / "table_x").mkdir(parents=True)
    for name, width in (("first", 4), ("second", 5), ("third", 6)):
        text = f'data = "sinusoid"\nmethod = "maml"\nshot = 5\nfilters = {width}\nepoch = 20\nval_episodes = 5\n'
        (tmp_path / "recipes" / "table_x" / f"{name}.toml").write_text(text)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return tmp_path


@contextmanager
def command(folder: Path, *words: str, **around: str) -> Iterator[subprocess.Popen[str]]:
    """A `lethax` command in a session of its own, as a terminal starts one."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LETHAX_PLUGINS": str(folder / "plugin.py"),
        "LETHAX_CACHE": str(folder),
        **around,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "lethax", *words], env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def notes(folder: Path, of: str) -> list[list[str]]:
    """[process, cell, step or "judged"] of a cell, in the order in which it happened."""
    path = folder / "notes"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line[1] == of]


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 200
    while not true():
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.05)


def done_once(folder: Path, *names: str) -> bool:
    return all([what for _, _, what in notes(folder, name)] == ["20", "40", "60", "judged"] for name in names)


def rows(folder: Path) -> set[str]:
    path = folder / "results" / "table-x.json"
    return {row["cell"] for row in json.loads(path.read_text())["cells"]} if path.exists() else set()


def test_two_commands_at_once_share_the_runs(folder: Path) -> None:
    """One with jobs and one without: each run has one owner, and each command waits for the runs of the other."""
    with (
        command(folder, *JOBS, "local", PAUSE="1") as one,
        command(folder, *JOBS[:-1], "--tables", "other", PAUSE="1") as two,
    ):
        (out, _), (said, _) = one.communicate(timeout=300), two.communicate(timeout=300)
    assert (one.returncode, two.returncode) == (0, 0), out + said
    assert done_once(folder, "first", "second", "third"), (folder / "notes").read_text()
    assert "is in use by process" in out + said
    assert rows(folder) == {"table_x/first", "table_x/second", "table_x/third"}
    assert (folder / "other" / "table-x.json").read_text().count('"cell"') == 3
    assert len({process for name in ("first", "second", "third") for process, _, _ in notes(folder, name)}) > 1
