"""Stores: failures while one is written, hostile manifests and arrays."""

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethax.data.store import Store, open_store
from lethax.data.writer import StoreWriter
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
        ({"splits": {"train": {}}}, "manifest.json has not the entries that were expected"),
        (counted([5, 4, 5, 1], ["a", 5]), "are not a name, a superclass and a count each"),
        (counted([5, 4, 5, 1], ["a", "", 6], ["b", "", -1]), "counts of train"),
        (counted([5, 4, 5, 1], *([[name, "", 2**62] for name in "abcd"] + [["e", "", 5]])), "has 5 images"),  # 2^64 + 5
        (counted([5, 4, 5, 1], ["a", "", 4]), "has 5 images"),
        (counted([6, 4, 5, 1], ["a", "", 6]), "the manifest says"),
        (counted([1, 1, 1, 1], ["a", "", 1], split="val"), "no file val.npy"),
        ({"mean": [0.0, 0.0]}, "2 means"),
        ({"std": [0.0]}, "no usable number"),
        ({"std": [5e-324]}, "no usable number"),  # its inverse is Inf
        ({"std": "1"}, "no list of numbers"),
        ({"std": ["x"]}, "no list of numbers"),
        ({"source": [1]}, "where the data are from"),
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


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path)
    np.save(store.folder / "test.npy", np.zeros((0, 4, 5, 1), np.uint8))
    next(store.folder.glob("train-*.npy")).rename(store.folder / "train.npy")
    splits = {**store.manifest["splits"], **counted([0, 4, 5, 1], split="test")["splits"]}
    (store.folder / "manifest.json").write_text(json.dumps({**store.manifest, "format": 1, "splits": splits}))
    with pytest.raises(DataError, match="split test is empty"):
        open_store("tiny", tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_a_manifest_that_is_no_file_is_said_to_be_none(tmp_path: Path, kind: str) -> None:
    manifest = write(tmp_path).folder / "manifest.json"
    manifest.unlink()
    {"pipe": os.mkfifo, "endless": lambda at: at.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](manifest)
    with pytest.raises(DataError, match="manifest.json cannot be read"):
        open_store("tiny", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", pickle.dumps([1]), None, "longer"])
def test_a_damaged_array_is_refused(tmp_path: Path, content: Any) -> None:
    path = next(write(tmp_path).folder.glob("train-*.npy"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if content is None else whole + b"x" if content == "longer" else content)
    says = (
        f"has {len(whole) + 1} bytes, expected {len(whole)}" if content == "longer" else "is cut short or is no array"
    )
    with pytest.raises(DataError, match=rf"tiny is damaged \(train-\w+.npy {says}\): prepare tiny again"):
        open_store("tiny", tmp_path)


@pytest.mark.parametrize(
    ("content", "says"), [("", "is not JSON"), ("[" * 10**5, "is not JSON"), ("{}", "has not the entries that were")]
)
def test_a_torn_manifest_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (write(tmp_path).folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=rf"tiny is damaged \(manifest.json {says}.*\): prepare tiny again"):
        open_store("tiny", tmp_path)
