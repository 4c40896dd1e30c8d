"""One process a run folder, proved with real processes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lethax.errors import RunError
from lethax.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from lethax.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that has the lock when this returns."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_second_process_is_told_who_holds_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        try:
            with (
                pytest.raises(RunError, match=f"run {tmp_path} is in use by process {process.pid}; "),
                RunLock(tmp_path),
            ):
                pass
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        with RunLock(tmp_path):
            pass


def test_lock_in_one_process_is_exclusive_and_given_back(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunError, match="in use"), RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass


def test_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        _ = 1 / 0
    with RunLock(tmp_path):
        pass


def test_refused_process_does_not_overwrite_the_pid(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        before = (tmp_path / ".lock").read_text()
        with pytest.raises(RunError), RunLock(tmp_path):
            pass
        assert (tmp_path / ".lock").read_text() == before


def test_shorter_pid_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("99999999999999")
    with RunLock(tmp_path), pytest.raises(RunError) as caught, RunLock(tmp_path):
        pass
    assert "99999" not in str(caught.value)


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be locked: No such file or directory"), RunLock(tmp_path / "none"):
        pass
