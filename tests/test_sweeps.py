"""Sweeps as jobs, in real processes: no run is trained or judged twice, whoever starts it, ends it or fails."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lethax import cli, clusters
from lethax.cli import groups, program
from lethax.errors import RecipeError

pytest.importorskip("submitit", reason="jobs need submitit, which requirements-dev.txt has")

ROOT = Path(__file__).parent.parent
# Makes the cells of a table that take no time, in every process; notes which one trains and judges what; and has some of them fail.
PLUGIN = """
import os, time
from pathlib import Path
import lethax
from lethax import clusters, reproduce
from lethax.domains import supervised
from lethax.errors import DivergedError
from lethax.report import cells
from lethax.runs import training

HERE = Path(__file__).parent
cells.FOLDER, supervised.CHUNK, clusters.Slurm.lag = HERE / "recipes", 20, 1.0
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
        (HERE / f"{runs[0].folder.parent.name}.begun").touch()  # there is a state to save
        time.sleep(float(os.environ.get("PAUSE", "0")))

def judged(run, **others):
    note(run, "judged")
    return evaluated(run, **others)

training._computed, reproduce.evaluate_run = noted, judged
"""
JOBS = ["reproduce", "x", "--steps", "60", "--episodes", "100", "--jobs"]


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
        "JAX_ENABLE_COMPILATION_CACHE": "true",  # jobs compile the same programs again
        **around,
    }
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what a process ignores, its children ignore as well
    process = subprocess.Popen(
        [sys.executable, "-m", "lethax", *words], env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_jobs_that_are_ended_or_fail(folder: Path) -> None:
    """A job that is killed leaves the others; Ctrl-C ends the jobs, which save their states; the same command goes on with all."""
    with command(folder, *JOBS, "local", PAUSE="3") as process:
        until((folder / "first.begun").exists, process)
        os.kill(int(notes(folder, "first")[0][0]), signal.SIGTERM)
        until((folder / "second.begun").exists, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, _ = process.communicate(timeout=100)
    assert process.returncode == 130 and "Traceback" not in out, out
    assert re.search(
        r"1/3 table_x/first: job .* failed: its process was ended \(terminated; the state is saved at step \d0:", out
    ), out
    ended = (
        "lethax: interrupted; the jobs end as well, and what they have saved is kept: the same command goes on with it"
    )
    assert out.splitlines()[-1] == ended
    assert not alive(int(notes(folder, "second")[0][0])) and not list(folder.glob("runs/**/.lock"))
    with command(folder, *JOBS, "local", "--jobs-at-once", "2", FAILS="third") as process:
        out, _ = process.communicate(timeout=200)
    assert process.returncode == 1 and out.splitlines()[-1].startswith("lethax: 3/3 table_x/third: job ")
    (line,) = (line for line in out.splitlines() if line.startswith("3/3 ") and " failed: " in line)
    said, log = line.split(" failed: ")[1].split(". Its log is ")
    assert said == "outer step 3 is not finite" and said in Path(log).read_text()
    assert done_once(folder, "first", "second") and rows(folder) == {"table_x/first", "table_x/second"}


# A job whose command saves and ends when it is asked to. It is asked once it has said a line.
ASKED = """
import os, signal, subprocess, sys
from lethax import command
saves = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); print('ready', file=sys.stderr); time.sleep(60)"
popen = subprocess.Popen
subprocess.Popen = lambda words, **how: popen([sys.executable, "-c", saves], **how)
command.print = lambda *_, **how: os.kill(os.getpid(), signal.SIGTERM)
command.Command(["train"], {})()
"""


def test_a_job_that_is_asked_to_end_has_no_result() -> None:
    """It exits as its command does, which submitit takes for no result."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert (done.returncode, done.stderr) == (143, b"")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# sbatch, srun, sacct and scontrol of a cluster that is this machine, one script under four names. A job is its script, whose exit
# code ends up in a file, and whose process id is that of its srun's program.
FAKE = '''#!{python}
import os, shutil, subprocess, sys
from pathlib import Path
here, words = Path(__file__).parent / "slurm", sys.argv[1:]
run = """while [ -e {{0}}.again ] && [ ! -e {{0}}.code ]; do sleep 0.1; done
rm -f {{0}}.again {{0}}.code; bash {{0}}.sh; echo $? > {{0}}.code"""
begin = lambda number: subprocess.Popen(
    ["bash", "-c", run.format(number)], cwd=here, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    env={{**os.environ, "SLURM_JOB_ID": number, "SLURM_PROCID": "0", "FROM": os.environ.get("FROM", os.getcwd())}},
)
match Path(sys.argv[0]).name:
    case "sbatch":
        here.mkdir(exist_ok=True)
        number = str(101 + len(list(here.glob("*.sh"))))
        shutil.copy(words[0], here / f"{{number}}.sh")
        begin(number)
        print("Submitted batch job", number)
    case "srun":
        number = os.environ["SLURM_JOB_ID"]
        with open(words[words.index("--output") + 1].replace("%j", number).replace("%t", "0"), "a") as log:
            program = subprocess.Popen(words[words.index("{python}"):], stdout=log, stderr=log, cwd=os.environ["FROM"])
            (here / f"{{number}}.pid").write_text(str(program.pid))
            sys.exit(program.wait())
    case "sacct":
        print("JobID|State|NodeList")
        for number in (path.stem for path in here.glob("*.sh")):
            code = here / f"{{number}}.code"
            ended = code.exists() and not (here / f"{{number}}.again").exists()
            print(f"{{number}}|{{'RUNNING' if not ended else 'COMPLETED' if code.read_text() == '0' else 'FAILED'}}|here")
    case "scontrol":
        (here / f"{{words[1]}}.again").touch()
        begin(words[1])
'''


@pytest.mark.slow
def test_jobs_of_slurm_go_on_without_the_command(folder: Path) -> None:
    """They are found again by the same command, and begin anew where SLURM takes their machine away."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(FAKE.format(python=sys.executable))
    (programs / "sbatch").chmod(0o755)
    for name in ("srun", "sacct", "scontrol"):
        shutil.copy(programs / "sbatch", programs / name)
    around = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PAUSE": "2"}
    (folder / "recipes" / "table_x" / "third.toml").unlink()
    options = ["partition=gpu", "time=1-2:30", "cpus_per_task=3", "mem=2G", "requeue"]
    words = [*JOBS, "slurm", "--jobs-at-once", "2", "--jobs-options", *options]
    with command(folder, *words, **around) as process:
        until(lambda: notes(folder, "first") and notes(folder, "second"), process)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=100)
    assert process.returncode == 130, out
    stops = "the same command follows them again, and scancel 101 102 stops them"
    assert out.splitlines()[-1] == f"lethax: interrupted; 2 jobs of SLURM go on: {stops}"
    script = (programs / "slurm" / "101.sh").read_text()
    for line in ("partition=gpu", "time=1590", "cpus-per-task=3", "mem=2G", "requeue", "job-name=lethax-table_x"):
        assert f"#SBATCH --{line}\n" in script
    assert "--cpus-per-task=3 " in next(line for line in script.splitlines() if line.startswith("srun"))
    with command(folder, *words, **around) as process:
        until(lambda: (programs / "slurm" / "102.pid").exists(), process)
        if not (programs / "slurm" / "102.code").exists():
            os.kill(int((programs / "slurm" / "102.pid").read_text()), signal.SIGUSR2)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert done_once(folder, "first", "second"), (folder / "notes").read_text()
    assert "table_x/first: job 101, " in out and len(list((programs / "slurm").glob("*.sh"))) == 2
    assert "written: results/table-x.json" in out and rows(folder) == {"table_x/first", "table_x/second"}
    assert (
        len({process for process, _, _ in notes(folder, "second")}) == 2
    )  # before and after it was put into the queue again


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:01", 91), ("1:30:00", 90), ("2-12", 3600), ("2-12:30", 3630), ("0-0:0:30", 1), ("0", 1)],
)
def test_times_are_those_of_sbatch(text: str, minutes: int) -> None:
    assert clusters.in_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "two", "1-", "-", "1:", "²"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--jobs-options has time=.*; expected such as 90, 8:00:00"):
        clusters.in_minutes(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "slurm", "--jobs-options", "mem="], "--jobs-options has mem=; it takes long options of sbatch"),
        (["--jobs", "slurm", "--jobs-options", "p=gpu"], "--jobs-options has p=gpu; it takes long options"),
        (["--jobs", "slurm", "--jobs-options", "ntasks=2"], "--jobs-options has ntasks, which lethax sets itself"),
        (["--jobs", "slurm", "--jobs-options", "time=soon"], "--jobs-options has time=soon; expected"),
        (["--jobs", "local", "--jobs-options", "mem=1G"], "give --jobs slurm as well"),
        (["--jobs-options", "mem=1G"], "give --jobs slurm as well"),
        (["--jobs-at-once", "2"], "give --jobs local or slurm as well"),
        (["--jobs", "local", "--jobs-at-once", "0"], "--jobs-at-once is 0; it has to be at least 1"),
    ],
)
def test_options_that_cannot_be(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["reproduce", "others_sinusoid", "--out", str(tmp_path / "runs"), *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_machine_without_slurm_or_submitit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["reproduce", "others_sinusoid", "--only", "maml", "--out", str(tmp_path / "runs"), "--jobs", "slurm"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(words) == 1
    assert "this machine has no srun: call it where sbatch works, or take --jobs local." in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert cli.main(words) == 1
    assert 'pip install "lethax[cluster]"' in capsys.readouterr().err


def test_a_job_has_the_command_of_its_runs() -> None:
    """With the options of the command that waits; what the runs are is the same in both."""
    words = "reproduce figure-d --steps 30 --seeds 3 --first-seed 4 --only maml --out a/b --tables c --jobs local"
    args = program.parsed(words.split())
    cells = [SimpleNamespace(name="table_d/one"), SimpleNamespace(name="table_d/two")]
    group = [SimpleNamespace(cell=cell, recipe=SimpleNamespace(seed=seed)) for cell in cells for seed in (5, 6)]
    again = groups.words_of(args, group)
    assert shlex.join(again) == (
        "reproduce figure-d --steps 30 --seeds 2 --first-seed 5 --only table_d/one table_d/two --runs-only --out a/b --tables c"
    )
    assert program.parsed(list(again)).only == ("table_d/one", "table_d/two")
