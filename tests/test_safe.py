"""The store and the reading of files from elsewhere: failures, hostile manifests, pickles and archives."""

import errno
import io
import json
import os
import pickle
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethax.data import archives
from lethax.data.archives import Archive
from lethax.data.pickles import load_pickle
from lethax.data.store import Store, StoreWriter, open_store
from lethax.errors import DataError


def write(root: Path, shade: int = 0) -> Store:
    with StoreWriter(root, "tiny", mean=(0.5,), std=(0.25,), source={}) as writer:
        writer.split("train", (4, 5, 1), [("a", "x", 3), ("b", "", 2)])[:] = shade
    return open_store("tiny", root)


def test_a_failed_rename_restores_the_earlier_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, shade=7)
    real = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(target).name == "manifest.json":
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(DataError, match="cannot be written: Input/output error"):
        write(tmp_path)
    assert os.listdir(tmp_path) == ["tiny"] and len(os.listdir(tmp_path / "tiny")) == 2
    assert open_store("tiny", tmp_path).splits["train"].images[0, 0, 0, 0] == 7


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate here")
def test_a_full_disk_is_told_before_anything_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device; free some space"):
        write(tmp_path)
    assert os.listdir(tmp_path) == []


def test_splits_of_a_writer_are_checked(tmp_path: Path) -> None:
    one = [("a", "", 1)]
    for given in ([("train", [])], [("train", [("a", "", 0)])], [("other", one)], [], [("test", one)] * 2):
        with pytest.raises(DataError, match="split"):
            with StoreWriter(tmp_path, "tiny", mean=(0.0,), std=(1.0,), source={}) as writer:
                for split, classes in given:
                    writer.split(split, (2, 2, 1), classes)
    assert os.listdir(tmp_path) == []


def counted(shape: list[int], *classes: list[Any], split: str = "train") -> dict[str, Any]:
    return {"splits": {split: {"shape": shape, "classes": classes, "sha256": "0" * 64}}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 3}, "has store format 3; this version reads 2"),
        ({"splits": {}}, "is damaged"),
        (counted([5, 4, 5, 1], ["a", "", 6], ["b", "", -1]), "counts of train"),
        (counted([5, 4, 5, 1], *([[name, "", 2**62] for name in "abcd"] + [["e", "", 5]])), "has 5 images"),  # 2^64 + 5
        (counted([5, 4, 5, 1], ["a", "", 4]), "has 5 images"),
        (counted([6, 4, 5, 1], ["a", "", 6]), "the manifest says"),
        (counted([1, 1, 1, 1], ["a", "", 1], split="val"), "no file val.npy"),
        ({"mean": [0.0, 0.0]}, "2 means"),
        ({"std": [0.0]}, "no usable number"),
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """In format 1, which has no checksum that could find it first; in format 2, as a change of the manifest."""
    store = write(tmp_path)
    (store.folder / "manifest.json").write_text(json.dumps({**store.manifest, **change}))
    with pytest.raises(DataError, match="format 3" if "format" in change else "was changed after it was written"):
        open_store("tiny", tmp_path)
    next(store.folder.glob("train-*.npy")).rename(store.folder / "train.npy")
    (store.folder / "manifest.json").write_text(json.dumps({**store.manifest, "format": 1, **change}))
    with pytest.raises(DataError, match=says):
        open_store("tiny", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", pickle.dumps([1]), None, "longer"])
def test_a_damaged_array_is_refused(tmp_path: Path, content: Any) -> None:
    path = next(write(tmp_path).folder.glob("train-*.npy"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if content is None else whole + b"x" if content == "longer" else content)
    with pytest.raises(DataError, match="tiny is damaged .* prepare tiny again"):
        open_store("tiny", tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_plain_data_are_read(protocol: int) -> None:
    data = {
        "bytes": b"\x00\xff", "list": [1, (2.5, None)], "u1": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "big": np.arange(3, dtype=">i4"), "text": np.array(["ab", "c"]), "one": np.float32(1.5),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }  # fmt: skip
    found = load_pickle(pickle.dumps(data, protocol=protocol), "plain", encoding="latin1")
    assert list(found) == list(data) and found["bytes"] == data["bytes"] and found["list"] == data["list"]
    for name in ("u1", "big", "text", "one", "fortran"):
        np.testing.assert_array_equal(found[name], data[name])
        assert found[name].dtype == data[name].dtype.newbyteorder("=")  # type: ignore[attr-defined]


def test_pickled_objects_in_arrays_are_refused() -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    for data in (objects, [objects[:1]], np.zeros(2, dtype=[("a", "u1")])):
        with pytest.raises(DataError, match="expected"):
            load_pickle(pickle.dumps(data, protocol=4), "cache")
    whole = pickle.dumps(np.arange(100), protocol=2)
    for blob in (b"", whole[:-20], b"\x80\x04garbage", whole.replace(b"Kd\x85", b"K\x7f\x85")):
        with pytest.raises(DataError, match="cache is damaged .* fetch it again"):
            load_pickle(blob, "cache")


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
        with pytest.raises(DataError, match="data.zip .* damaged or truncated"):
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


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        path = tarred(tmp_path / "bad.tar", {"a": b""}, "w", type=kind, linkname="/etc/hostname")
        with pytest.raises(DataError, match="holds a, a link or device"):
            Archive(path).names()
    entry = zipfile.ZipInfo("a")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="holds a, a link or device"):
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
    monkeypatch.setattr(archives, "MEMBER_BYTES", 1_000_000)
    path = tarred(tmp_path / "bomb.tar.gz", {"a": b"\0" * 5_000_000}, type=tarfile.XHDTYPE)
    with pytest.raises(DataError, match="a header field of"):
        Archive(path).names()
