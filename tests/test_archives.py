"""Archives: every kind is read in place; links, bombs and damage are refused in one sentence."""

import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethax.data import archives, packed, tape
from lethax.data.archives import Archive
from lethax.errors import DataError


def tarred(path: Path, files: dict[str, bytes], mode: Any = "w:gz", **fields: Any) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            for field, value in {"size": len(content), **fields}.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[Any, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


KINDS = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}
FILES = {"top/b": b"2" * 1000, "top/a": b"1", "top/empty": b""}


def test_archives_of_every_kind_are_read(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    tars = [tarred(tmp_path / f"a.{kind}", FILES, mode) for kind, mode in KINDS.items()]
    for path in [*tars, zipped(tmp_path / "a.zip", {"top/": b"", **FILES}), tmp_path / "folder"]:
        archive = Archive(path)
        order = sorted(FILES) if path.is_dir() else list(FILES)
        assert archive.names() == order
        assert list(archive.items()) == [(name, FILES[name]) for name in order]
        assert list(archive.items(lambda name: name.endswith("a"))) == [("top/a", b"1")]
        assert archive.read("top/b") == FILES["top/b"]
        with pytest.raises(DataError, match="has no top/bb. Did you mean 'top/b'"):
            archive.read("top/bb")


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, mode in KINDS.items():
        path = tarred(tmp_path / f"data.{kind}", {"a": rng.bytes(50_000), "b": rng.bytes(50_000)}, mode)
        path.write_bytes(path.read_bytes()[:60_000])
        archive = Archive(path)
        for cut in (archive.names, lambda archive=archive: archive.read("b")):
            with pytest.raises(DataError, match=f"data.{kind} .* damaged or truncated"):
                cut()
    whole = zipped(tmp_path / "data.zip", FILES).read_bytes()
    for content in (whole[:-30], b"", b"no archive at all" * 100):
        (tmp_path / "data.zip").write_bytes(content)
        says = (
            "damaged or truncated"
            if content[:2] == b"PK"
            else "neither a folder nor a .zip or .tar .* archive: it (is empty|begins)"
        )
        with pytest.raises(DataError, match=f"data.zip .*{says}"):
            Archive(tmp_path / "data.zip").names()


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_an_altered_archive_is_named(kind: str, tmp_path: Path) -> None:
    """Also where only the checksum shows it: one altered byte of data that are stored rather than compressed."""
    content = np.random.default_rng(0).bytes(300_000)
    path = tmp_path / f"data.{kind}"
    if kind == "zip":
        zipped(path, {"a": content})
    else:
        tarred(path, {"a": content}, KINDS[kind])
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)
    for read in (lambda: list(Archive(path).items()), lambda: Archive(path).read("a")):
        with pytest.raises(DataError, match=f"data.{kind} .* damaged or truncated"):
            read()


@pytest.mark.parametrize("kind", [*KINDS, "zip"])
def test_nothing_stands_behind_the_end(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    zipped(path, FILES) if kind == "zip" else tarred(path, FILES, KINDS[kind])
    whole = path.read_bytes()
    for more in (b"garbage", b"garbage" * 100):
        path.write_bytes(whole + more)
        with pytest.raises(DataError, match=f"a.{kind} (.* damaged|holds something behind its end that is no comment)"):
            Archive(path).names()


def test_a_zip_behind_another_is_refused(tmp_path: Path) -> None:
    """Only the members of the last one would be read."""
    first = zipped(tmp_path / "a.zip", FILES).read_bytes()
    for second in ({"b": b"2"}, {}):
        (tmp_path / "both.zip").write_bytes(first + zipped(tmp_path / "b.zip", second).read_bytes())
        with pytest.raises(DataError, match=f"holds {len(first)} bytes before its first member, where nothing was"):
            Archive(tmp_path / "both.zip").names()


def test_zips_of_every_form_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a comment, one to which members were added, zip64, one without members, one that might have been split."""
    with zipfile.ZipFile(zipped(tmp_path / "a.zip", FILES), "a") as archive:
        archive.writestr("more", b"3")
        archive.comment = b"a comment"
    assert Archive(tmp_path / "a.zip").names() == [*FILES, "more"]
    marked = b"PK00" + zipped(tmp_path / "a.zip", FILES).read_bytes()
    (tmp_path / "a.zip").write_bytes(marked)
    assert Archive(tmp_path / "a.zip").names() == [*FILES]
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)
    for files in (FILES, {}):
        assert Archive(zipped(tmp_path / "a.zip", files)).names() == [*files]


HEADER, END = 1536, 2560  # in a tar of FILES: where that of the second member begins, and where the zeros of the end do


@pytest.mark.parametrize(
    "cut",
    [
        lambda whole: whole[: HEADER + 148] + b"\7" + whole[HEADER + 149 :],
        lambda whole: whole[:HEADER] + bytes(512) + whole[HEADER + 512 :],
        lambda whole: whole[: HEADER + 100],
        lambda whole: whole[:HEADER],
        lambda whole: whole[:END],
    ],
)
def test_a_tar_that_lost_members_is_named(cut: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A header that is damaged, zeroed, torn or missing does not pass for the end; gzip's checksum says nothing of it."""
    whole = tarred(tmp_path / "a.tar", FILES, "w").read_bytes()
    for name, write in {"a.tar": bytes, "a.tar.gz": gzip.compress}.items():
        (tmp_path / name).write_bytes(write(cut(whole)))
        with pytest.raises(DataError, match=f"{name} .* damaged or truncated"):
            Archive(tmp_path / name).names()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_has_an_end_that_is_known(form: int, tmp_path: Path) -> None:
    """Also where more zeros or fewer stand behind the last member; names of more than 100 letters take a header of their own."""
    names = [f"{'long' * 20}/{i:040}" for i in range(3)]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    whole = (tmp_path / "a.tar").read_bytes()
    for content in (whole, whole + bytes(3 << 17), whole.rstrip(b"\0") + bytes(512 + -len(whole.rstrip(b"\0")) % 512)):
        (tmp_path / "a.tar").write_bytes(content)
        assert Archive(tmp_path / "a.tar").names() == names


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        path = tarred(tmp_path / "bad.tar", {"a": b""}, "w", type=kind, linkname="/etc/hostname")
        with pytest.raises(DataError, match="holds a, a link, a device"):
            Archive(path).names()
    entry = zipfile.ZipInfo("a")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="holds a, a link, a device"):
        Archive(zipped(tmp_path / "bad.zip", {entry: b"/etc/hostname"})).names()


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "folder" / "here").write_bytes(b"here")
    (tmp_path / "folder" / "inside").symlink_to("here")
    (tmp_path / "folder" / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "folder" / "pipe")
    archive = Archive(tmp_path / "folder")
    assert list(archive.items()) == [("here", b"here"), ("inside", b"here")]
    link = tmp_path / "folder" / "below" / "link"
    for target in ("secret", "."):
        link.symlink_to(tmp_path / target)
        with pytest.raises(DataError, match="links outside"):
            list(archive.items())
        link.unlink()


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {f"{i}": b"\0" * 1_000_000 for i in range(3)}
    paths = [zipped(tmp_path / "bomb.zip", large), tarred(tmp_path / "bomb.tar.gz", large)]
    for bound, value, says in (
        ("MEMBER_BYTES", 999_999, "holds 0 of 1000000 bytes, more than 999999"),
        ("TOTAL_BYTES", 2_500_000, "more than 2500000 bytes"),
        ("MEMBERS", 2, "more than 2 files"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archives, bound, value)
            for path in paths:
                with pytest.raises(DataError, match=says):
                    list(Archive(path).items())
    monkeypatch.setattr(archives, "TOTAL_BYTES", 1_500_000)  # also what is only skipped
    with pytest.raises(DataError, match="more than 1500000 bytes"):
        Archive(paths[1]).names()


def test_a_header_that_claims_a_huge_field_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "HEADER_BYTES", 100_000)
    path = tarred(tmp_path / "bomb.tar.gz", {"a": b"\0" * 500_000}, type=tarfile.XHDTYPE)
    with pytest.raises(DataError, match="a header of 500000 bytes, more than 65536"):
        Archive(path).names()
    path = tarred(tmp_path / "bomb.tar.gz", {f"{i}": b"11 a=bcdef\n" for i in range(200)}, type=tarfile.XHDTYPE)
    with pytest.raises(DataError, match="a header of"):
        Archive(path).names()


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """Ten kilobytes that claim almost three gigabytes of zeros."""
    path = tmp_path / "sparse.tar"
    entry = tarfile.TarInfo("a.png")
    entry.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    head[386:410], head[483:495] = b"00000000000\0" * 2, b"%011o\0" % (1 << 30)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    path.write_bytes(bytes(head) + bytes(1024))
    with pytest.raises(DataError, match="holds a.png, a link, a device or a sparse file"):
        list(Archive(path).items())


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"caf\udce9": b""}, "w")
    with pytest.raises(DataError, match=r"holds 'caf\\udce9', a name that is not UTF-8"):
        Archive(path).names()
    with pytest.raises(DataError, match="points outside"):
        Archive(tarred(tmp_path / "a.tar", {"../a": b""}, "w")).names()
    with pytest.raises(DataError, match="a name of 5000 letters"):
        Archive(zipped(tmp_path / "a.zip", {"a" * 5000: b""})).names()
    said = tarred(tmp_path / "a.tar", {"\x1b[2J\nlethax: done": b""}, "w", type=tarfile.SYMTYPE)
    with pytest.raises(DataError, match=r"holds \\x1b\[2J\\nlethax: done, a link"):
        Archive(said).names()


def test_a_list_of_members_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {f"{i}": b"" for i in range(1000)})
    monkeypatch.setattr(archives, "DIRECTORY_BYTES", 20_000)
    with pytest.raises(DataError, match="a list of members of more than 20000 bytes"):
        Archive(path).names()
    monkeypatch.undo()
    monkeypatch.setattr(archives, "NAMES", 1000)
    with pytest.raises(DataError, match="names without end"):
        Archive(path).names()


def test_pipes_and_links_to_themselves_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe cannot be read: it is no plain file"):
        Archive(tmp_path / "pipe").names()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "self").symlink_to("self")
    assert Archive(tmp_path / "folder").names() == []
    with pytest.raises(DataError, match="does not exist"):
        Archive(tmp_path / "folder" / "self")


def test_a_zip_is_stored_or_deflated(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr("a", b"1")
        with pytest.raises(
            DataError, match=f"holds a, packed with method {method}, where none or deflate was expected"
        ):
            Archive(tmp_path / "a.zip").read("a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", b"1")
    assert Archive(tmp_path / "a.zip").read("a") == b"1"


def test_members_of_a_zip_are_counted_before_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {f"{i}": b"" for i in range(3)})
    monkeypatch.setattr(archives, "MEMBERS", 2)
    monkeypatch.setattr(zipfile, "ZipInfo", None)  # none is made
    with pytest.raises(DataError, match="more than 2 files"):
        Archive(path).names()


def test_what_unpacks_to_much_more_than_it_is_has_a_lower_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ANY_RATIO", 1_000_000)
    for path in (
        zipped(tmp_path / "a.zip", {"a": bytes(2_000_000)}),
        tarred(tmp_path / "a.tar.gz", {"a": bytes(2_000_000)}),
    ):
        with pytest.raises(DataError, match="holds more than 1000000 bytes"):
            list(Archive(path).items())
    monkeypatch.setattr(archives, "RATIO", 2000)
    assert Archive(path).names() == ["a"]


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_names_of_many_folders_are_refused(kind: str, tmp_path: Path) -> None:
    write: Any = zipped if kind == "zip" else tarred
    assert len(Archive(write(tmp_path / "a", {"a/" * 63 + "b": b""})).names()) == 1
    with pytest.raises(DataError, match="a name of 65 folders, more than 64"):
        Archive(write(tmp_path / "a", {"a/" * 64 + "b": b""})).names()


def test_xz_has_a_bound_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tarred(tmp_path / "a.tar.xz", {"a": b"1" * 300_000, "b": b"2"}, "w:xz")
    path.write_bytes(path.read_bytes() + bytes(8) + lzma.compress(b"") + bytes(4))  # several streams
    assert Archive(path).read("b") == b"2" and len(Archive(path).read("a")) == 300_000
    monkeypatch.setattr(packed, "WINDOW", 1 << 20)
    with pytest.raises(DataError, match="needs more than 1 MiB of memory to be unpacked"):
        Archive(path).names()


def fields(path: Path, kind: bytes, *headers: bytes) -> Path:
    """A tar of one empty file after extended headers."""
    entry, blocks = tarfile.TarInfo("h"), b""
    for header in headers:
        entry.type, entry.size = kind, len(header)
        blocks += entry.tobuf() + header + bytes(-len(header) % 512)
    path.write_bytes(blocks + tarfile.TarInfo("a").tobuf() + bytes(1024))
    return path


@pytest.mark.parametrize(
    ("kind", "headers", "says"),
    [
        (b"x", [b"19 comment=1234567\n"], None),
        (b"g", [b"19 comment=1234567\n"] * 3, None),
        (b"x", [b"1" * 5000], "not the length that it says"),
        (b"x", [b"2 " * 5000 + b"="], "not the length that it says"),
        (b"x", [b"9999 a=b\n"], "not the length that it says"),
        (b"X", [b"75 a=" + b"1" * 69 + b"\n"], "more than 64 digits in a row"),
        (b"g", [b"1005 a=" + b"a" * 997 + b"\n"] * 5, "headers without end"),
        (b"L", [b"a" * 70_000], "a header of 70000 bytes, more than 65536"),
    ],
)  # fmt: skip
def test_extended_headers_are_short_and_whole(
    kind: bytes, headers: list[bytes], says: str | None, tmp_path: Path
) -> None:
    path = fields(tmp_path / "a.tar", kind, *headers)
    if says is None:
        assert Archive(path).names() == ["a"]
        return
    with pytest.raises(DataError, match=says):
        Archive(path).names()
