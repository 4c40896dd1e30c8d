"""Stores survive interruption and show damage; hostile files do nothing."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile

import pytest

from lethax.data.safe import Archive, load_pickle
from lethax.data.store import StoreWriter, list_stores, open_store, verify_store
from lethax.errors import DataError


def write(root, value, fail=False):
    with StoreWriter(root, "toy", mean=(0.5,), std=(0.5,), source={}) as writer:
        array = writer.split("train", (2, 2, 1), [("a", "x", 2), ("b", "x", 1)])
        array[:] = value
        if fail:
            raise RuntimeError("interrupted")


def test_round_trip(tmp_path):
    write(tmp_path, 7)
    store = open_store("toy", tmp_path)
    train = store.splits["train"]
    assert train.images.shape == (3, 2, 2, 1) and (train.images == 7).all()
    assert train.starts.tolist() == [0, 2, 3] and train.classes == ("a", "b") and train.superclasses == ("x", "x")
    verify_store("toy", tmp_path)
    assert list_stores(tmp_path) == ["toy"]


def test_identity_is_of_the_content(tmp_path):
    """The same for the same content prepared elsewhere, under another name and from another source; any change shows."""

    def identity(root, name="toy", source=(), value=1, mean=0.5, classes=(("a", "x", 2), ("b", "x", 1)), split="train"):
        with StoreWriter(tmp_path / root, name, mean=(mean,), std=(0.5,), source=dict(source)) as writer:
            writer.split(split, (2, 2, 1), classes)[:] = value
        return open_store(name, tmp_path / root).identity

    first = identity("a")
    assert first == identity("b", name="other", source={"kind": "folder"}) and len(first) == 64
    changed = [
        identity("c", value=2), identity("d", mean=0.4), identity("e", classes=(("a", "x", 1), ("b", "x", 2))),
        identity("f", classes=(("a", "x", 2), ("c", "x", 1))), identity("g", split="test"),
    ]  # fmt: skip
    assert len({first, *changed}) == 6


@pytest.mark.parametrize("count", [2**62, 2**63, 2**64 + 3])
def test_counts_beyond_the_array_are_damage(count, tmp_path):
    write(tmp_path, 1)
    path = tmp_path / "toy" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["classes"] = [
        ["a", "x", count],
        ["b", "x", count],
        ["c", "x", count],
        ["d", "x", count],
    ]
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="toy is damaged.*prepare toy again"):
        open_store("toy", tmp_path)


KILLED = """
import os, sys
from pathlib import Path
from lethax.data import store
renames = iter([os.replace] * int(sys.argv[2]))
store.os.replace = lambda a, b: next(renames, lambda *_: os._exit(9))(a, b)
with store.StoreWriter(Path(sys.argv[1]), "toy", mean=(0.5,), std=(0.5,), source={}) as writer:
    writer.split("train", (2, 2, 1), [("a", "x", 1)])[:] = 9
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_what_a_killed_import_leaves_is_swept(renames, tmp_path):
    """Killed before the first or between the two renames; the next import begins with the earlier store, and tidies."""
    write(tmp_path, 1)
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(renames)]).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    with StoreWriter(tmp_path, "toy", mean=(0.5,), std=(0.5,), source={}) as other:
        assert (open_store("toy", tmp_path).splits["train"].images == 1).all()
        with contextlib.suppress(RuntimeError):  # it sweeps too, but not the folder of an import that is under way
            write(tmp_path, 2, fail=True)
        other.split("train", (2, 2, 1), [("a", "x", 1)])[:] = 3
    assert [p.name for p in tmp_path.iterdir()] == ["toy"] and len(
        open_store("toy", tmp_path).splits["train"].images
    ) == 1


def test_interrupted_writer_leaves_the_earlier_store(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(RuntimeError):
        write(tmp_path, 2, fail=True)
    assert (open_store("toy", tmp_path).splits["train"].images == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]
    write(tmp_path, 3)
    assert (open_store("toy", tmp_path).splits["train"].images == 3).all()
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_damage_is_named(tmp_path):
    write(tmp_path, 1)
    path = tmp_path / "toy" / "train.npy"
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(DataError, match="train.npy is damaged"):
        verify_store("toy", tmp_path)
    path.write_bytes(blob[:-5])
    with pytest.raises(DataError, match="prepare toy again"):
        open_store("toy", tmp_path)


@pytest.mark.parametrize("name", ["../toy", "/toy", "Toy", ""])
def test_store_names_do_not_escape(name, tmp_path):
    with pytest.raises(DataError, match="no name for a data set"):
        open_store(name, tmp_path)


def test_missing_store_suggests(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(DataError, match="Did you mean 'toy'"):
        open_store("toys", tmp_path)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_hostile_pickle_does_nothing(tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(DataError, match="system"):
        load_pickle(pickle.dumps(Hostile(mark)), "evil")
    assert not mark.exists()


def test_hostile_archives(tmp_path):
    def tar_with(entry, blob=b""):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as tar:
            entry.size = len(blob)
            tar.addfile(entry, io.BytesIO(blob))
        return path

    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for entry in (tarfile.TarInfo("../out"), tarfile.TarInfo("/abs"), link):
        with pytest.raises(DataError, match="was not read"):
            list(Archive(tar_with(entry)).items())
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../out", b"x")
    with pytest.raises(DataError, match="points outside"):
        list(Archive(tmp_path / "b.zip").items())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="links outside"):
        list(Archive(tmp_path / "folder").items())


def test_bomb_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("lethax.data.safe.MEMBER_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000))
    with pytest.raises(DataError, match="more than 1000"):
        list(Archive(tmp_path / "b.zip").items())


def test_names_of_made_tasks_are_taken(tmp_path):
    for name in ("sinusoid", "navigation"):
        with pytest.raises(DataError, match=f"'{name}' is the name of tasks that lethax makes itself"):
            StoreWriter(tmp_path, name, mean=(0.0,), std=(1.0,), source={})
