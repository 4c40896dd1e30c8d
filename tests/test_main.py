"""The start of the program: huge pages where Linux gives them on request."""

import os
import subprocess
import sys

import pytest

from lethax import __main__ as program


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Set what the kernel and the user say; the starts anew are in the list that comes back."""

    def set_up(kernel, tunables=None):
        said, starts = tmp_path / "enabled", []
        said.write_text(kernel)
        monkeypatch.setattr(program, "_ON_REQUEST", said)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(os, "execv", lambda path, argv: starts.append((path, argv)))
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        if tunables:
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)
        program.huge_pages()
        return starts

    return set_up


@pytest.mark.parametrize(("tunables", "after"), [
    (None, "glibc.malloc.hugetlb=1"),
    ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
])  # fmt: skip
def test_starts_anew_with_huge_pages(started, tunables, after):
    assert started("always [madvise] never", tunables) == [(sys.executable, sys.orig_argv)]
    assert os.environ["GLIBC_TUNABLES"] == after


@pytest.mark.parametrize(("kernel", "tunables"), [
    ("[always] madvise never", None),
    ("always madvise [never]", None),
    ("always [madvise] never", "glibc.malloc.hugetlb=0"),
])  # fmt: skip
def test_stays_where_nothing_is_to_gain_or_the_user_has_chosen(started, kernel, tunables):
    assert started(kernel, tunables) == [] and os.environ.get("GLIBC_TUNABLES") == tunables


def test_the_program_keeps_its_arguments_and_exit_code():
    bare = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-m", "lethax", "data", "verify", "no such set"], env=bare, capture_output=True, text=True
    )
    assert done.returncode == 1 and "no such set" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", ["--version", "--help", "data list"])  # the help is longer than the buffer
def test_an_output_that_cannot_be_written_is_said_once(words):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lethax", *words.split()],
            env=buffered, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.stderr == "lethax: standard output: No space left on device; check the path and the disk.\n"
    assert done.returncode == 1


def test_a_cache_that_cannot_be_is_said_and_done_without(monkeypatch, tmp_path, caplog):
    from lethax import devices

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "file" / "cache"))
    devices.use_all_cores()
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/file/cache/programs cannot be written (Not a directory): programs are compiled anew at every start; "
        "$LETHAX_CACHE names another folder."
    ]
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    devices.use_all_cores()
    assert len(caplog.records) == 1 and (tmp_path / "cache" / "programs").is_dir()
