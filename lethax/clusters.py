"""Where jobs run, by submitit: on this machine, or under SLURM."""

import math
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lethax import signals
from lethax.command import Command
from lethax.errors import EnvironmentFault, RecipeError, RunError
from lethax.files import read_json, to_json, write_atomic
from lethax.lock import locked
from lethax.text import counted, shown

POLL = 1.0  # seconds between two looks at jobs that are told to end
_PATIENCE = 60.0  # seconds in which a job of this machine has to save its state and end
_YEAR = 60 * 24 * 365  # minutes: a job of this machine has no limit of time
SUBMITTED = "submitted.json"  # which job of SLURM was submitted for each run
# Of sbatch: what follows from a job being one process that lethax waits for.
_OURS = ("array", "error", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "signal", "wrap")


class Cluster:
    """Where jobs run. The jobs are those of submitit."""

    most: float = math.inf  # jobs at a time, unless another number is given
    lag = 0.0  # seconds until the files of a job that has ended are seen here

    def start(self, words: Sequence[str], runs: Sequence[Path]) -> Any:
        """Start a job that does some runs by a `lethax` command."""
        raise NotImplementedError

    def known(self, runs: Sequence[Path]) -> Any:
        """The job that a command before this one has started for one of some runs, if it has not ended; else None."""
        return None

    def queued(self, job: Any) -> bool:
        """Whether the job waits to begin."""
        return False

    def fate(self, job: Any) -> str:
        """How a job without a result has ended."""
        return "its process was ended"

    def foretell(self, jobs: Sequence[Any]) -> None:
        """Set the sentence that the command says if it is interrupted."""
        raise NotImplementedError

    def leave(self, jobs: Sequence[Any]) -> None:
        """Do what has to be done when the command ends before its jobs."""


class Local(Cluster):
    """Jobs are processes of this machine. They end with the command that waits for them."""

    most = 1  # two trainings at once take longer than one after the other

    def __init__(self, folder: Path) -> None:
        self._folder, self._executor = folder, _submitit().LocalExecutor

    def start(self, words: Sequence[str], runs: Sequence[Path]) -> Any:
        """Start a process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        own = tempfile.mkdtemp(
            prefix="local-", dir=self._folder
        )  # files have the number of the process, which may come again
        executor = self._executor(own)
        executor.update_parameters(timeout_min=_YEAR, stderr_to_stdout=True)
        hidden = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}  # which submitit sets to none
        with signals.unheard():  # the jobs are told to end by `leave`
            return executor.submit(Command(words, hidden))

    def foretell(self, jobs: Sequence[Any]) -> None:
        """They end as well."""
        signals.say("the jobs end as well, and what they have saved is kept", "the same command goes on with it")

    def leave(self, jobs: Sequence[Any]) -> None:
        """End the jobs, and wait until they have saved their states. One that only begins may miss the first signal."""
        until = time.monotonic() + _PATIENCE
        while (alive := [job for job in jobs if not job.done()]) and time.monotonic() < until:
            for job in alive:
                with suppress(ProcessLookupError):
                    os.kill(int(job.job_id), signal.SIGTERM)
            time.sleep(POLL)


class Slurm(Cluster):
    """Jobs of SLURM. They go on without the command, and a file says which runs they have, so that no run is given to two jobs."""

    lag = 60.0  # of a file system on the network

    def __init__(self, folder: Path, name: str, options: Iterable[str]) -> None:
        submitit, given = _submitit(), sbatch_options(options)
        try:
            self._executor = submitit.SlurmExecutor(folder, max_num_timeout=1000)
        except RuntimeError:
            raise EnvironmentFault(
                "--jobs slurm needs SLURM, but this machine has no srun: call it where sbatch works, or take --jobs local."
            ) from None
        cores = given.get("cpus-per-task")  # which srun does not take over from sbatch since SLURM 22.05
        self._executor.update_parameters(
            job_name=name,
            time=in_minutes(str(given.pop("time", "4:00:00"))),
            srun_args=[f"--cpus-per-task={cores}"] if cores else None,
            stderr_to_stdout=True,
            additional_parameters=given,
        )
        self._folder, self._job = folder, submitit.SlurmJob

    def start(self, words: Sequence[str], runs: Sequence[Path]) -> Any:
        """Submit a job, unless another command was quicker."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder, wait=True):
            if known := self.known(runs):
                return known
            job = self._submit(words)
            now = {**self._submitted(), **dict.fromkeys(map(self._name, runs), job.job_id)}
            write_atomic(self._folder / SUBMITTED, to_json(now) + "\n")
            return job

    def known(self, runs: Sequence[Path]) -> Any:
        """The job that was submitted for one of some runs, if it has not ended."""
        submitted = self._submitted()
        for number in {submitted[name]: None for name in map(self._name, runs) if name in submitted}:
            job = self._job(self._folder, number)
            if not job.done(force_check=True):
                return job
        return None

    def _name(self, run: Path) -> str:
        return run.relative_to(self._folder.parent).as_posix()

    def _submit(self, words: Sequence[str]) -> Any:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return self._executor.submit(Command(words, {}))
        except (FailedJobError, FailedSubmissionError) as error:
            raise RunError(
                f"sbatch does not take the job ({shown(error, 400)}): change --jobs-options, or submit fewer at a time with "
                "--jobs-at-once."
            ) from None

    def _submitted(self) -> dict[str, str]:
        path = self._folder / SUBMITTED
        found = read_json(path) if path.is_file() else {}
        if not isinstance(found, dict) or not all(isinstance(number, str) for number in found.values()):
            raise RunError(f"{shown(path)} does not say which job each run has: delete it once no job runs.")
        return found

    def queued(self, job: Any) -> bool:
        """Whether SLURM has not begun it, or is asked for the first time."""
        return str(job.state).upper() in ("PENDING", "READY", "REQUEUED", "UNKNOWN")

    def fate(self, job: Any) -> str:
        """The state that SLURM gives it."""
        return f"SLURM ended it as {shown(job.state, 60)}"

    def foretell(self, jobs: Sequence[Any]) -> None:
        """They go on."""
        stop = " ".join(["scancel", *dict.fromkeys(str(job.job_id) for job in jobs)])
        signals.say(f"{counted(len(jobs), 'job')} of SLURM {'go' if len(jobs) > 1 else 'goes'} on",
                    f"the same command follows them again, and {shown(stop, 2000)} stops them")  # fmt: skip


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise EnvironmentFault(
            '--jobs needs the package submitit, which is not installed: pip install "lethax[cluster]"'
        ) from None
    return submitit


def result(job: Any) -> tuple[int | None, str]:
    """The exit code of a job's command, None where it has left no result, and the last line of its errors."""
    from submitit.core.utils import UncompletedJobError

    if not job.paths.result_pickle.exists():
        return None, _last_error(job.paths.stdout)
    try:
        code, said = job.result()
        return int(code), str(said)
    except UncompletedJobError:
        return 1, "its command could not be started"


def _last_error(log: Path) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 10_000, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("lethax: ")), "")


def sbatch_options(words: Iterable[str]) -> dict[str, str | bool]:
    """The options of sbatch in words such as "mem=16G" and "requeue", by their names. RecipeError for those that cannot be."""
    found: dict[str, str | bool] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        if not re.fullmatch("[a-z][a-z-]+", name) or (equals and not value) or not value.isprintable():
            raise RecipeError(
                f"--jobs-options has {shown(word, 100)}; it takes long options of sbatch, such as time=8:00:00 mem=16G requeue."
            )
        if name in _OURS:
            raise RecipeError(f"--jobs-options has {name}, which lethax sets itself: leave it out.")
        found[name] = value if equals else True
    if "time" in found:
        in_minutes(str(found["time"]))
    return found


def in_minutes(text: str) -> int:
    """The minutes of a time as sbatch takes it: "90", "90:00", "1:30:00", "2-12", "2-12:30" or "2-12:30:00"."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if (
        not all(part.isdecimal() and len(part) < 9 for part in [*parts, days or "0"])
        or len(parts) > 3
        or text[0] == "-"
    ):
        raise RecipeError(f"--jobs-options has time={shown(text, 60)}; expected such as 90, 8:00:00 or 2-12:00:00.")
    numbers = [int(part) for part in parts]
    if dash or len(numbers) == 3:
        hours, minutes, seconds = (numbers + [0, 0])[:3]
    else:
        hours, (minutes, seconds) = 0, (numbers + [0])[:2]
    return max(math.ceil(((int(days or 0) * 24 + hours) * 60 + minutes) + seconds / 60), 1)
