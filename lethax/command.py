"""A `lethax` command as a job of submitit. Each job imports this file, which therefore imports nothing that is heavy."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]


class Command:
    """Runs a command as by hand, in a process of its own. `around`: variables of the environment to set, or to take out by None."""

    def __init__(self, words: Sequence[str], around: Mapping[str, str | None]) -> None:
        self.words, self.around = list(words), dict(around)
        self._process: subprocess.Popen[str] | None = None

    def __call__(self) -> tuple[int, str]:
        """The exit code of the command, and the last line of its errors, which go to the log as well.

        If a signal ended it, the job has no result: SLURM may start it anew, and the command then goes on with what is saved.
        """
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # the package of the command that waits
        wanted = {**os.environ, **self.around, "PYTHONPATH": os.pathsep.join(paths)}
        process = self._process = subprocess.Popen(  # `_end` takes it from `self`
            [sys.executable, "-P", "-m", "lethax", *self.words],
            env={name: value for name, value in wanted.items() if value is not None},
            stderr=subprocess.PIPE, text=True, errors="replace", preexec_fn=_let_be,
        )  # fmt: skip
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        assert process.stderr
        said = ""
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            said = line.strip() or said
        code = process.wait()
        if code < 0 or code > 128:
            sys.exit(abs(code) % 128 + 128)
        return code, said

    def _end(self) -> None:
        """Ask the command once to save its state and end: asked again, it would end at once."""
        if self._process:
            process, self._process = self._process, None
            process.terminate()
            process.wait()

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again, shortly before the time of the job is over."""
        from submitit.helpers import DelayedSubmission

        self._end()
        return DelayedSubmission(Command(self.words, self.around))


def _let_be() -> None:
    """Let the command not end by the signal with which submitit tells that the time is over soon: its job ends it, by another."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
