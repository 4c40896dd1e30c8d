"""One process a folder, proved with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lethax import lock
from lethax.errors import RunError
from lethax.lock import InUse, RunLock, locked

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


def test_who_only_asks_refuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask is to have the lock for a moment, and a file that a kill has left names a process that is long gone."""
    (tmp_path / ".lock").write_text(" 999 oldhost")
    take, asked = lock.lock_descriptor, iter([True, True])
    monkeypatch.setattr(lock, "lock_descriptor", lambda *at, **how: not next(asked, False) and take(*at, **how))
    with RunLock(tmp_path):
        assert lock.holder(tmp_path) == str(os.getpid())
    assert lock.holder(tmp_path) == ""


def test_shorter_pid_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("99999999999999")
    with RunLock(tmp_path), pytest.raises(RunError) as caught, RunLock(tmp_path):
        pass
    assert "99999" not in str(caught.value)


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be locked: No such file or directory"), RunLock(tmp_path / "none"):
        pass


COUNT = """
import sys
from pathlib import Path
from lethax.lock import InUse, locked
folder, counter = Path(sys.argv[1]), Path(sys.argv[1]) / "counter"
print("ready", flush=True)
sys.stdin.readline()
for _ in range(50):
    while True:
        try:
            with locked(folder):
                counter.write_text(str(int(counter.read_text()) + 1))
            break
        except InUse:
            pass
"""


def test_processes_never_hold_it_at_once_though_each_deletes_the_file(tmp_path: Path) -> None:
    """Two that read the same count would lose one."""
    (tmp_path / "counter").write_text("0")
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)], stdin=pipe, stdout=pipe, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert (tmp_path / "counter").read_text() == "150" and os.listdir(tmp_path) == ["counter"]


def test_waiting_ends_when_the_holder_is_killed(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        code = "import sys; from pathlib import Path; from lethax.lock import locked\nprint('ready', flush=True)\n" + (
            "with locked(Path(sys.argv[1]), wait=True): print('held', flush=True)"
        )
        waiting = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        try:
            assert waiting.stdout and waiting.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
        assert waiting.communicate(timeout=30)[0] == "held\n"


def test_a_folder_that_takes_the_place_of_a_moved_one_keeps_its_lock(tmp_path: Path) -> None:
    """Somebody may move a run while it trains, and begin another one there."""
    (tmp_path / "run").mkdir()
    with RunLock(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "aside")
        (tmp_path / "run").mkdir()
        inner = RunLock(tmp_path / "run")
        inner.__enter__()
    with pytest.raises(InUse), locked(tmp_path / "run"):
        pass
    inner.__exit__(None, None, None)
    with locked(tmp_path / "run"):
        pass


def test_a_link_in_the_place_of_the_lock_is_refused_and_leads_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="cannot be locked"), RunLock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
