"""Stores survive interruption and show damage; hostile files do nothing."""

import ast
import contextlib
import json
import os
import subprocess
import sys

import pytest
import tyro

from lethax.cli.data_arguments import DataPrepare
from lethax.data import store as store_module
from lethax.data.known import KNOWN
from lethax.data.naming import own_name
from lethax.data.omniglot import STORES
from lethax.data.store import check_kind, list_stores, open_store, verify_store
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, RecipeError


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


KILLED = """
import os, sys, warnings
from pathlib import Path
from lethax.data.store import open_store, verify_store
from lethax.data.writer import StoreWriter

warnings.simplefilter("ignore")
left = [-1]
FILES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.posix_fallocate", "os.chmod", "fcntl.flock", "os.listdir")

def hook(event, _):
    if event in FILES and left[0] >= 0:
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)

sys.addaudithook(hook)

def write(root, value, classes):
    with StoreWriter(root, "toy", mean=(0.1 * value,), std=(0.5,), source={}) as writer:
        writer.split("train", (2, 2, 1), [(f"class{c}", "x", 1) for c in range(classes)])[:] = value
        writer.split("val", (2, 2, 1), [("z", "x", 1)])[:] = value
        writer.report("told.csv", b"%d" % value)

def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def found(root):
    try:
        store = verify_store("toy", root)
    except Exception as error:
        return str(error)
    value = int(store.splits["train"].images[0, 0, 0, 0])
    assert len(store.splits["train"].classes) == value and store.mean == (0.1 * value,), "a mixture"
    assert all((part.images == value).all() for part in store.splits.values()), "a mixture"
    told = root / "toy" / "told.csv"
    assert not told.exists() or told.read_text() == str(value), "a report of other data"
    return value

seen, stage = [], 0
root = Path(sys.argv[1])
if sys.argv[2] == "over":
    write(root, 2, 2)
while True:
    def killed():
        left[0] = stage
        write(root, 3, 3)
    code = child(killed)
    seen.append(found(root))
    if code == 0:
        break
    if seen[-1] == 3:  # the next one begins with the old store again
        write(root, 2, 2)
    stage += 1
tidy = sorted(path.name for path in root.iterdir())
print(repr((stage, sorted(set(map(str, seen))), tidy, len(list((root / "toy").iterdir())))))
"""


@pytest.mark.parametrize("earlier", ["over", "first"])
def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_store(earlier, tmp_path):
    """The n-th open, rename, mkdir, … of an import is its last, for every n; the import after it also tidies."""
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, earlier], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stages, seen, tidy, files = ast.literal_eval(done.stdout)
    assert stages > 15 and tidy == ["toy"] and files == 4
    if earlier == "over":
        assert seen == ["2", "3"]
    else:
        assert seen[0] == "3" and len(seen) == 2 and "no data set 'toy'" in seen[1]


def test_imports_of_one_name_at_once(tmp_path):
    """Neither sweeps the other; the last one to end is there, whole, and nothing of the other is left."""
    write(tmp_path, 1)
    with StoreWriter(tmp_path, "toy", mean=(0.5,), std=(0.5,), source={}) as other:
        with contextlib.suppress(RuntimeError):
            write(tmp_path, 2, fail=True)
        write(tmp_path, 4)
        earlier = open_store("toy", tmp_path).splits["train"].images
        other.split("train", (2, 2, 1), [("a", "x", 1)])[:] = 3
    store = verify_store("toy", tmp_path)
    assert store.splits["train"].images.shape == (1, 2, 2, 1) and (store.splits["train"].images == 3).all()
    assert (earlier == 4).all()  # who has read it goes on reading it
    assert [p.name for p in tmp_path.iterdir()] == ["toy"] and len(list(store.folder.iterdir())) == 2


def test_a_store_prepared_again_while_it_is_opened(tmp_path, monkeypatch):
    write(tmp_path, 1)
    real = store_module._open

    def late(*args):
        monkeypatch.setattr(store_module, "_open", real)
        write(tmp_path, 2)  # between the reading of the manifest and that of the parts it names
        return real(*args)

    monkeypatch.setattr(store_module, "_open", late)
    assert (open_store("toy", tmp_path).splits["train"].images == 2).all()
    hashed = store_module.sha256

    def later(path):
        monkeypatch.setattr(store_module, "sha256", hashed)
        write(tmp_path, 3)
        return hashed(path)

    monkeypatch.setattr(store_module, "sha256", later)
    assert (verify_store("toy", tmp_path).splits["train"].images == 3).all()


def test_an_import_that_ends_while_another_sweeps(tmp_path, monkeypatch):
    write(tmp_path, 1)
    killed = tmp_path / ".toy.killed"
    killed.mkdir()
    real = os.open

    def gone(path, *args, **options):  # newer Pythons give options
        if str(path) == str(killed) and killed.exists():
            killed.rmdir()
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", gone)
    write(tmp_path, 2)
    assert (open_store("toy", tmp_path).splits["train"].images == 2).all()


def as_format_1(root):
    """The store as earlier versions wrote it."""
    folder = root / "toy"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["format"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    next(folder.glob("train-*.npy")).rename(folder / "train.npy")


def test_stores_of_format_1_are_read_and_replaced(tmp_path):
    write(tmp_path, 1)
    identity = open_store("toy", tmp_path).identity
    as_format_1(tmp_path)
    assert verify_store("toy", tmp_path).identity == identity
    write(tmp_path, 2)
    assert (verify_store("toy", tmp_path).splits["train"].images == 2).all()
    assert not (tmp_path / "toy" / "train.npy").exists()


@pytest.mark.parametrize("text", ['"mean": [\n  0.5', '"name": "toy"', '"a"', '"x"', '"format": 2'])
def test_a_changed_manifest_is_damage(text, tmp_path):
    write(tmp_path, 1)
    path = tmp_path / "toy" / "manifest.json"
    whole = path.read_text()
    assert text in whole
    path.write_text(
        whole.replace(text, text.replace("5", "4").replace("a", "b").replace("x", "y").replace("2", "1"), 1)
    )
    with pytest.raises(DataError, match="prepare toy again"):
        verify_store("toy", tmp_path)


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
    path = next((tmp_path / "toy").glob("train-*.npy"))
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(DataError, match="train-.*npy is damaged"):
        verify_store("toy", tmp_path)
    path.write_bytes(blob[:-5])
    with pytest.raises(DataError, match="prepare toy again"):
        open_store("toy", tmp_path)


@pytest.mark.parametrize("name", ["../toy", "/toy", "Toy", ""])
def test_store_names_do_not_escape(name, tmp_path):
    with pytest.raises(DataError, match="no name for a data set"):
        open_store(name, tmp_path)


def test_a_missing_store_names_the_command_and_the_source(tmp_path):
    write(tmp_path, 1)
    for name, says in {
        "toys": r"Did you mean 'toy'\?.*Prepared: toy\. Your own pictures .*: lethax data prepare folder --from FOLDER --store",
        "cifar_sf": r"Did you mean 'cifar_fs'\?",
        "sinusiod": r"Did you mean 'sinusoid'\?",
        "fc100": r"Make it with: lethax data prepare cifar100 --from cifar-100-python.tar.gz \(needs .*www.cs.toronto.edu",
        "omniglot_lake": r"--split lake .*github.com/brendenlake/omniglot",
        "glyphs": r"lethax data prepare glyphs",
    }.items():
        with pytest.raises(DataError, match=says):
            open_store(name, tmp_path)


def test_names_of_made_tasks_are_taken(tmp_path):
    for name in ("sinusoid", "navigation"):
        with pytest.raises(DataError, match=f"'{name}' is the name of tasks that lethax makes itself"):
            StoreWriter(tmp_path, name, mean=(0.0,), std=(1.0,), source={})


def test_one_kind_of_data_does_not_replace_the_other(tmp_path):
    write(tmp_path, 1)
    check_kind("toy", tmp_path, features=False)
    check_kind("other", tmp_path, features=True)
    with pytest.raises(RecipeError, match="data set 'toy' holds pictures, which features would replace"):
        check_kind("toy", tmp_path, features=True)


def test_every_known_data_set_has_a_command_that_makes_it():
    for name, known in KNOWN.items():
        words = known.words.split()
        args = tyro.cli(DataPrepare, args=words[2:], prog="prepare")
        assert words[:2] == ["data", "prepare"]
        made = {"cifar100": {"cifar_fs", "fc100"}, "omniglot": {STORES[args.split or "vinyals"]}}.get(
            args.name, {args.store or args.name}
        )
        assert name in made and (args.source is None) == (name == "glyphs")
        if args.store:
            assert own_name(args.store, args.name) == name  # else the command is refused
            for other in ("folder", ""):
                with pytest.raises(DataError, match="lethax prepares by itself"):
                    own_name(args.store, other)
