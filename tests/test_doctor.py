"""`lethax doctor`: a row for everything, what is wrong, and no traceback where packages are broken."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from lethax import cli, doctor, hardware
from lethax.data.writer import StoreWriter
from lethax.doctor import OK, WARNING, WRONG, folders, installed, machine
from lethax.doctor.installed import Requirement, Seen

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


def row_of(rows, what):
    (found,) = (row for row in rows if row.what == what)
    return found


def test_this_installation_is_right_and_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "NONE", 0)
    code = cli.main(["doctor", "--json", "--root", str(tmp_path / "data")])
    said = json.loads(capsys.readouterr().out)
    rows = {row["what"]: row for row in said["rows"]}
    wrong = [row for row in rows.values() if row["state"] == "wrong"]
    assert code == 0 and said["ok"] and not wrong
    assert {
        "python",
        "lethax",
        "jax",
        "numpy",
        "jax computes",
        "processor",
        "memory",
        "cores",
        "cache",
        "disk space",
    } <= set(rows)
    assert "cpu" in rows["jax computes"]["found"] and str(tmp_path / "data") in rows["data folder"]["found"]


def test_a_plugin_that_the_command_names_is_looked_at(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("1 / 0")
    assert cli.main(["doctor", "--quick", "--json", "--plugin", str(tmp_path / "mine.py")]) == 1
    wrong = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["state"] == "wrong"]
    assert [row["what"] for row in wrong] == ["plugins"] and "ZeroDivisionError" in wrong[0]["found"]


def test_requirements_are_those_of_the_project_and_every_extra_says_what_it_gives():
    found = installed.requirements()
    assert {one.name for one in found if not one.extra} == {
        re.match(r"[\w-]+", one)[0] for one in PROJECT["dependencies"]
    }
    assert all(one.version for one in found if not one.extra)
    assert {one.extra for one in found} - {""} == set(PROJECT["optional-dependencies"]) == set(installed.GIVES)


@pytest.mark.parametrize("have,error,state,said,advice", [
    ("1.2.3", "", OK, "1.2.3", ""),
    ("1.10", "", OK, "1.10", ""),
    ("1.1.9.dev2", "", WRONG, "1.1.9.dev2 is too old", "Install 1.2 or newer: pip install 'jax>=1.2'"),
    (None, "No module named 'jax'", WRONG, "not installed", "Install it: pip install 'jax>=1.2'"),
    ("1.2.3", "OSError: libx.so", WRONG, "1.2.3 cannot be imported: OSError: libx.so", "--force-reinstall"),
])  # fmt: skip
def test_a_dependency(monkeypatch, have, error, state, said, advice):
    monkeypatch.setattr(installed, "version_of", lambda name: have)
    row = installed.dependency(Requirement("jax", "1.2", ""), error)
    assert (row.state, row.found) == (state, said) and advice in row.advice and bool(row.advice) == bool(advice)


def test_extras(monkeypatch):
    have = {"plotly": "5.0", "gymnasium": "1.0"}
    needed = [
        Requirement("plotly", "6", "report"),
        Requirement("gymnasium", "1.0", "rl"),
        Requirement("mujoco", "3.2", "rl"),
    ]
    monkeypatch.setattr(installed, "requirements", lambda: needed)
    monkeypatch.setattr(installed, "version_of", have.get)
    rows = list(installed.rows(Seen(facts={"product": 42.0, "backend": "cpu", "devices": ["cpu", "cpu"]})))
    assert row_of(rows, "[report]")[1:3] == (WARNING, "plotly 5.0 is older than 6")
    assert row_of(rows, "[rl]").state == OK and "half-cheetah" in row_of(rows, "[rl]").found
    assert "pip install 'lethax[rl]'" in row_of(rows, "[rl]").advice
    assert row_of(rows, "jax computes").found == "on 2 x cpu (cpu)"


def test_jax_that_does_not_compute():
    assert installed.computes(Seen(errors={"a program of JAX": "RuntimeError: no backend"})).state == WRONG
    row = installed.computes(Seen(facts={"product": 41.0, "backend": "cpu", "devices": ["cpu"]}))
    assert row.state == WRONG and row.found == "6 times 7 is 41.0 on 1 x cpu"


BROKEN = {
    "tyro": "raise ImportError('its files are damaged')",
    "jax": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
}


def test_a_broken_installation_is_looked_at_without_a_traceback(tmp_path):
    """The command line cannot be loaded, and the import of JAX ends its process: both are rows."""
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "plugin.py").write_text("1 / 0")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(doctor.__file__).parents[2])]),
           "LETHAX_DATA": str(tmp_path / "data")}  # fmt: skip

    def lethax(*words):
        return subprocess.run(
            [sys.executable, "-m", "lethax", *words], env=env, capture_output=True, text=True, cwd=tmp_path
        )

    done = lethax("doctor", "--json")
    rows = [doctor.Row(**row) for row in json.loads(done.stdout)["rows"]]
    assert done.returncode == 1 and not done.stderr
    assert "Python ended with signal 9" in row_of(rows, "jax").found
    assert "not tried, because of jax" in row_of(rows, "tyro").found
    done = lethax("train", "sinusoid")
    assert done.returncode == 1 and done.stderr == (
        "lethax: the program cannot be loaded (ImportError: its files are damaged); lethax doctor says what is wrong with it.\n"
    )
    (tmp_path / "jax.py").write_text("")
    done = lethax("--plugin", "plugin.py", "doctor", "--root", "others")
    text = " ".join(done.stdout.split())
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "cannot be imported: ImportError: its files are damaged" in text and "wrong plugins RecipeError:" in text
    assert "wrong jax computes" in text and "to mend: " in text and "data folder others" in text


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Set what the files of the kernel say."""
    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")

    def set_up(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return set_up


def test_processor_and_huge_pages(kernel):
    assert machine.huge_pages().found == "not on this system" and machine.processor().state == OK
    for flags, state, said in (
        ("fpu avx avx2 avx512f", OK, "with avx512f"), ("fpu avx sse4_2", WARNING, "without AVX2"), ("fpu", WRONG, "without AVX"),
    ):  # fmt: skip
        kernel(proc__cpuinfo=f"model name\t: Quick 3\nflags\t\t: {flags}\n\nmodel name\t: Slow 1\nflags\t\t: none\n")
        row = machine.processor()
        assert (row.state, row.found.startswith("Quick 3, x86_64")) == (state, True) and row.found.endswith(said)
    for chosen, state in (("always [madvise] never", OK), ("always madvise [never]", WARNING)):
        kernel(sys__kernel__mm__transparent_hugepage__enabled=chosen)
        assert machine.huge_pages().state == state


def test_limits_of_a_container(kernel, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert machine.cores()[1:3] == (WARNING, "8, of which the process may use 6")
    kernel(proc__self__cgroup="0::/box/inner\n", proc__meminfo="MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    assert machine.memory()[1:3] == (OK, "16.0 GiB, 8.0 GiB of it free")
    kernel(sys__fs__cgroup__box__cpu_dot_max="150000 100000\n", sys__fs__cgroup__box__inner__cpu_dot_max="max 100000\n")
    kernel(sys__fs__cgroup__box__inner__memory_dot_max=f"{1 << 30}\n", sys__fs__cgroup__box__memory_dot_max="max\n")
    assert machine.cores().found == "8, of which its container allows 1.5"
    assert machine.memory()[1:3] == (WARNING, "16.0 GiB, 8.0 GiB of it free; its container allows 1.0 GiB")


def test_limits_of_version_1_of_control_groups(kernel, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    kernel(proc__self__cgroup="4:memory:/box\n1:cpu,cpuacct:/box\n", proc__meminfo="MemTotal: 16777216 kB\n")
    kernel(
        sys__fs__cgroup__memory__box__memory_dot_limit_in_bytes=f"{4 << 30}",
        sys__fs__cgroup__cpu__box__cpu_dot_cfs_quota_us="50000",
    )
    kernel(sys__fs__cgroup__cpu__box__cpu_dot_cfs_period_us="100000", sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="-1")
    assert machine.cores().found == "4, of which its container allows 0.5"
    assert machine.memory()[1:3] == (OK, "16.0 GiB; its container allows 4.0 GiB")


def test_data_sets_are_compared_with_their_checksums(tmp_path, monkeypatch):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    for name in ("fine", "spoilt"):
        with StoreWriter(tmp_path, name, mean=(0.5,), std=(0.5,), source={}) as writer:
            writer.split("train", (16, 16, 1), [("cat", "", 3), ("dog", "", 2)])[:] = 127
    (part,) = (tmp_path / "spoilt").glob("train-*.npy")
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    rows = list(folders.rows(quick=False, numpy=True))
    assert row_of(rows, "data fine")[1:3] == (OK, "train, 1 KiB; its checksums are right")
    assert (
        row_of(rows, "data spoilt").state == WRONG and "is damaged: its SHA-256 is" in row_of(rows, "data spoilt").found
    )
    rows = list(folders.rows(quick=True, numpy=True))
    assert row_of(rows, "data spoilt")[1:3] == (OK, "train, 1 KiB; its checksums were not compared")
    (tmp_path / "spoilt" / "manifest.json").write_text("{")
    assert row_of(folders.rows(quick=True, numpy=True), "data spoilt").state == WRONG
    assert row_of(folders.rows(quick=True, numpy=False), "data sets").state == WARNING


def test_cache_and_space(tmp_path, monkeypatch):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path))
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "one").write_bytes(bytes(3 << 20))
    assert folders.of_cache(tmp_path / "programs").found.endswith("programs, 1 file, 3 MiB")
    monkeypatch.setattr(folders, "LARGE_CACHE", 1 << 20)
    assert folders.of_cache(tmp_path / "programs").state == WARNING
    for free, state in ((100 << 20, WRONG), (1 << 30, WARNING), (1 << 40, OK)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert {row.state for row in folders.rows(quick=True, numpy=True) if row.what == "disk space"} == {state}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "file"))
    assert row_of(folders.rows(quick=True, numpy=True), "data folder").state == WRONG


def test_the_table_has_what_to_do_below_what_was_found_and_fits():
    rows = [
        doctor.Row("python", OK, "3.11"),
        doctor.Row("jax", WRONG, "long " * 40, "Do this " * 20),
        doctor.Row("x", WARNING, "y"),
    ]
    lines = doctor.table(rows, 70)
    assert (
        lines[0] == "ok       python  3.11"
        and lines[1].startswith("wrong    jax     long long")
        and max(map(len, lines)) <= 70
    )
    assert all(line.startswith(" " * 17) for line in lines[2:-1]) and any(
        line.strip().startswith("Do this") for line in lines
    )
    assert doctor.summary(rows) == "1 thing to mend: jax; 1 warning: x."
    assert doctor.summary(rows[:1]) == "Nothing is wrong; 0 warnings."


def test_what_is_wrong_is_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda quick: [doctor.Row("jax", WRONG, "broken", "Mend it.")])
    assert cli.main(["doctor", "--quick"]) == 1
    out, err = capsys.readouterr()
    assert (
        out.startswith("wrong    jax  broken\n")
        and err == "lethax: something is wrong with jax: the table says what to do.\n"
    )
