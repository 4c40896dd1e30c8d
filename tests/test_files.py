"""Files are old or new, never a mixture, and errors name the file."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethax.errors import RunError
from lethax.files import append_line, read_json, read_lines, truncate_lines, write_atomic, write_together

DIE = """
import os, sys
from pathlib import Path
from lethax.files import write_atomic
os.replace = lambda *_: os._exit(9)
write_atomic(Path(sys.argv[1]), "new")
"""


@pytest.mark.parametrize("content", ["", "grün\n", b"\x00\xff", b"x" * 100_000])
def test_write_atomic_writes_text_and_bytes(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("call", range(9))
@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_description_stands_beside_what_it_describes_alone(
    call: int, fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any call that changes files; and a disk that is full before any of them is replaced changes nothing."""
    program, about = tmp_path / "program", tmp_path / "program.json"
    write_together({program: "old", about: "of old"})
    left = [call]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise fault
            return real(*args, **options)

        return instead

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(os, "replace", failing(os.replace))
        try:
            write_together({program: "new", about: "of new"})
        except (KeyboardInterrupt, RunError):
            pass
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found in ({"program": old_or_new, "program.json": f"of {old_or_new}"} for old_or_new in ("old", "new")) or (
        list(found) == ["program"] and call > 1
    )


def test_write_atomic_respects_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_content_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def spy(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            calls.append(name)
            real(*args)

        return call

    monkeypatch.setattr(os, "fsync", spy("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", spy("replace", os.replace))
    write_atomic(tmp_path / "a", "x")
    assert calls == ["fsync", "replace", "fsync"]


def test_process_that_dies_before_the_rename_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", DIE, str(path)]).returncode == 9
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob(".a.*.tmp"))) == 1


def test_failed_write_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="a cannot be written: No space left on device"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a"
    for attempt in (lambda: write_atomic(path, "x"), lambda: append_line(path, "x")):
        with pytest.raises(RunError, match=f"{path} cannot be written: No such file"):
            attempt()
    for read in (lambda: read_json(path), lambda: truncate_lines(path, 99)):
        with pytest.raises(RunError, match=f"{path} cannot be read: No such file"):
            read()


def test_text_with_bytes_of_a_path_that_is_no_utf_8_is_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", os.fsdecode(b"lethax compare --out \xff"))
    assert (tmp_path / "a").read_bytes() == rb"lethax compare --out \udcff"


def test_read_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "ü"]}', encoding="utf-8")
    assert read_json(path) == {"a": [1, "ü"]}
    for damaged in ("{", "", "[" * 100_000):
        path.write_text(damaged)
        with pytest.raises(RunError, match=f"{path} is not JSON"):
            read_json(path)


def lines(path: Path, *entries: dict[str, Any]) -> None:
    for entry in entries:
        append_line(path, json.dumps(entry, ensure_ascii=False))


def test_truncate_keeps_what_satisfies(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines(path, *({"step": step, "note": "a\u2028b"} for step in (10, 20, 30)))
    truncate_lines(path, 20)
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").strip().split("\n")] == [10, 20]


@pytest.mark.parametrize("torn", ['{"step": 30, "lo', "3", "\x00\x00\x00", '{"a": "\udcc3'])
def test_truncate_drops_a_torn_last_line(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "m.jsonl"
    lines(path, {"step": 10})
    path.write_bytes(path.read_bytes() + torn.encode(errors="surrogateescape"))
    truncate_lines(path, 99)
    assert path.read_text() == '{"step": 10}\n'
    lines(path, {"step": 20})
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'


def test_truncate_names_damage_that_no_torn_write_explains(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    before = '{"step": 10}\n{"st\n{"step": 30}\n'
    path.write_text(before)
    with pytest.raises(RunError, match="m.jsonl, entry 2 is not a JSON object"):
        truncate_lines(path, 99)
    assert path.read_text() == before


@pytest.mark.parametrize("line", ['{"loss": 1}', '{"step": "10"}', '{"step": null}', '{"step": true}', '{"step": 1.5}'])
def test_lines_without_a_step_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"step": 10}}\n{line}\n')
    for read in (read_lines, lambda path: truncate_lines(path, 99)):
        with pytest.raises(RunError, match="m.jsonl, entry 2 has no number 'step'"):
            read(path)


def test_deep_lines_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("[" * 100_000 + '\n{"step": 10}\n')
    with pytest.raises(RunError, match="m.jsonl, entry 1 is not a JSON object"):
        truncate_lines(path, 99)


def test_a_log_that_needs_no_repair_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines(path, {"step": 10})
    before = path.stat().st_ino
    truncate_lines(path, 10)
    assert path.stat().st_ino == before


def test_truncate_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").touch()
    truncate_lines(tmp_path / "m.jsonl", 99)
    assert (tmp_path / "m.jsonl").read_text() == ""


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    """A rename over /dev/null would take the device from everybody."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="pipe is a folder or a device: name a file"):
        write_atomic(tmp_path / "pipe", "text")
    assert not (tmp_path / "pipe").is_file() and len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_lines):
        with pytest.raises(RunError, match="pipe cannot be read: it is no plain file; check"):
            read(tmp_path / "pipe")
