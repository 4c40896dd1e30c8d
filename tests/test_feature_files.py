"""Features from files: every form is read; hostile, broken and overlapping ones are refused in one sentence."""

import json
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from lethax.data import embeddings
from lethax.data.feature_files import read_features
from lethax.data.store import open_store
from lethax.errors import DataError

SPLITS = ("train", "val", "test")
quiet = lambda what, share: None  # noqa: E731


def made(classes=("n02", "n01"), each=4, seed=0):
    """Features whose first entry numbers the row, and the class of each, mixed."""
    random = np.random.RandomState(seed)
    labels = np.array([classes[i % len(classes)] for i in range(each * len(classes))])
    features = random.randn(len(labels), 3).astype(np.float32)
    features[:, 0] = np.arange(len(labels))
    return features, labels


def pickles(folder, keys=None, protocol=2):
    for split in SPLITS:
        features, labels = made([f"{split}{c}" for c in (2, 1)])
        names = keys or [f"{i:03d}-{c}-{c}_{i}" for i, c in enumerate(labels)]
        content = {"embeddings": features, "keys": names, "labels": [1]}
        (folder / f"{split}_embeddings.pkl").write_bytes(pickle.dumps(content, protocol))
    return folder


def safetensor(folder):
    arrays, names = {}, {}
    for split in SPLITS:
        features, labels = made([f"{split}{c}" for c in (2, 1)])
        names[split], numbers = np.unique(labels, return_inverse=True)
        arrays |= {f"{split}/features": features, f"{split}/labels": numbers}
    path = folder / "made.safetensors"
    safetensors.numpy.save_file(arrays, path, {"classes": json.dumps({s: n.tolist() for s, n in names.items()})})
    return path


def npz(folder):
    parts = [made([f"{split}{c}" for c in (2, 1)]) for split in SPLITS]
    features, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    path = folder / "made.npz"
    np.savez(path, features=features, labels=labels, split=np.repeat(SPLITS, 8))
    return path


def npy(folder):
    for split in SPLITS:
        features, labels = made([f"{split}{c}" for c in (2, 1)])
        np.save(folder / f"{split}_features.npy", features)
        np.save(folder / f"{split}_labels.npy", labels)
    return folder


@pytest.mark.parametrize("form", [pickles, safetensor, npz, npy])
def test_every_form_gives_the_same_store(form, tmp_path):
    (tmp_path / "source").mkdir()
    source = form(tmp_path / "source")
    assert embeddings.prepare_features(source, tmp_path / "root", quiet, name="made") == ["made"]
    store = open_store("made", tmp_path / "root")
    assert store.features == 3 and set(store.splits) == set(SPLITS)
    split = store.splits["train"]
    assert split.classes == ("train2", "train1") and split.starts.tolist() == [0, 4, 8]
    assert split.images[:, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert split.images.dtype == np.float32


class Hostile:
    def __reduce__(self):
        return (print, ("never",))


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda folder: (folder / "train_embeddings.pkl").write_bytes(pickle.dumps(Hostile())), "was not read"),
        (lambda folder: (folder / "val_embeddings.pkl").write_bytes(b"\x80\x02}q\x00."), "no embeddings and keys"),
        (lambda folder: pickles(folder, [f"{i}-a-b_{i}" for i in range(8)]), "has the key '0-a-b_0'"),
        (lambda folder: pickles(folder, ["0-a-a_0"] * 8), "every image once"),
        (lambda folder: (folder / "test_embeddings.pkl").write_bytes(b"\x80\x02"), "is damaged"),
    ],
)
def test_broken_pickles(spoil, message, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    pickles(source)
    embeddings.prepare_features(source, tmp_path / "root", quiet, name="made")
    spoil(source)
    with pytest.raises(DataError, match=message):
        embeddings.prepare_features(source, tmp_path / "root", quiet, name="made")
    assert open_store("made", tmp_path / "root").features == 3  # the earlier store is as it was
    assert "never" not in capsys.readouterr().out


def test_other_broken_sources(tmp_path):
    read = lambda path: embeddings.prepare_features(path, tmp_path / "root", quiet)  # noqa: E731
    with pytest.raises(DataError, match="does not exist; expected"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no features that are known"):
        read(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="a.npz cannot be read"):
        read(tmp_path / "a.npz")
    (tmp_path / "a.safetensors").write_bytes(b"{}")
    with pytest.raises(DataError, match="a.safetensors cannot be read"):
        read(tmp_path / "a.safetensors")
    features, labels = made()
    features[5, 1] = np.nan
    np.savez(tmp_path / "b.npz", features=features, labels=labels, split=np.repeat("train", 8))
    with pytest.raises(DataError, match="vector 5 has an entry that is NaN"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", features=features[:, 0], labels=labels, split=np.repeat("train", 8))
    with pytest.raises(DataError, match=r"features float32\[8\] and labels"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "b.npz", features=made()[0], labels=labels, split=np.repeat("test", 8))
    with pytest.raises(DataError, match="expected train"):
        read(tmp_path / "b.npz")


BAD_NPY = [
    b"",
    b"\x93NUMPY",
    b"\x93NUMPY\1\0\xff\xff{",
    b"\x93NUMPY\1\0\x10\0" + b"(" * 16,
    b"\x93NUMPY\2\0\xff\xff\xff\xff" + b"(" * 50_000,
    *(
        b"\x93NUMPY\1\0" + struct.pack("<H", len(h)) + h + bytes(64)
        for h in (
            b"{'descr': '|O', 'fortran_order': False, 'shape': (8,), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (17,), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            b"{'descr': '<U0', 'fortran_order': False, 'shape': (10000000,), }",
            b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (16,), }",
            b"{'descr': '<f4', 'shape': (16,), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 0), }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",), }",
        )
    ),
]


@pytest.mark.parametrize("content", BAD_NPY)
def test_odd_arrays_are_one_sentence(content, tmp_path):
    source = npy(tmp_path)
    (source / "val_features.npy").write_bytes(content)
    with pytest.raises(
        DataError, match=r"val_features.npy cannot be read \(.*\); expected an array of numbers or strings"
    ):
        read_features(source)


def tensors(header, content=bytes(96)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(begin=0, end=96, shape=(8, 3), dtype="F32"):
    return {"train/features": {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}}


LABELLED = {**entry(), "train/labels": entry(0, 64, (8,), "I64")["train/features"]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tensors(b"[" * 100_000), "cannot be read"),
        (tensors(b'{"a": ' + b"9" * 5000 + b"}"), "cannot be read"),
        (tensors(b"[]"), "its header is no object"),
        (struct.pack("<Q", 1 << 60) + b"{}", "its header claims"),
        (b"", "claims 0"),
        (tensors(entry(0, 97)), "places an array"),
        (tensors(entry(-4, 92)), "places an array"),
        (tensors(entry(0, 92)), "92 bytes for"),
        (tensors(entry(0, 96, (8, -3))), "none can have"),
        (tensors(entry(0, 96, (True, 24))), "none can have"),
        (tensors({"train/features": 1}), "places an array"),
        (tensors(entry()), "no train/labels"),
        (tensors({**LABELLED, "__metadata__": {"classes": '{"train": [null]}'}}), "no lists of names"),
        (tensors({**LABELLED, "__metadata__": {"classes": '{"train": []}'}}), "names for 0 classes"),
        (tensors({**LABELLED, "__metadata__": {"classes": "[" * 99_999}}), "no lists of names"),
    ],
)
def test_odd_tensors_are_one_sentence(content, says, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_features(tmp_path / "a.safetensors")


@pytest.mark.parametrize("form", [pickles, safetensor, npz, npy])
def test_classes_in_two_splits_are_refused(form, tmp_path, monkeypatch):
    given = made
    monkeypatch.setitem(form.__globals__, "made", lambda classes: given(("n02", "n01")))
    (tmp_path / "source").mkdir()
    with pytest.raises(
        DataError, match="has the class 'n01' in train and val and test, and 1 more: .* must not share classes"
    ):
        embeddings.prepare_features(form(tmp_path / "source"), tmp_path / "root", quiet)
    assert not (tmp_path / "root").exists()


def test_numbers_as_labels_are_of_their_split(tmp_path):
    for split in SPLITS:
        np.save(tmp_path / f"{split}_features.npy", made()[0])
        np.save(tmp_path / f"{split}_labels.npy", np.arange(8) % 2)
    embeddings.prepare_features(tmp_path, tmp_path / "root", quiet)
    assert open_store("features", tmp_path / "root").splits["val"].classes == ("0", "1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"features": np.where(np.arange(24).reshape(8, 3) == 16, 1e300, 1.0)},
            "vector 5 has an entry that is too large for float32",
        ),
        ({"features": np.full((8, 3), np.inf)}, "vector 0 has an entry that is NaN or Inf"),
        ({"features": np.ones((8, 3), int)}, "features int64"),
        ({"labels": np.linspace(0, 1, 8)}, "labels float64"),
        ({"labels": np.array(["a", ""] * 4)}, "the class name ''"),
        ({"labels": np.array(["a" * 5000] * 8)}, "the class name 'aaa"),
        ({"labels": np.array([b"caf\xe9"] * 8)}, r"the class name 'caf\\udce9'"),
        ({"split": np.arange(8)}, "expected train, val or test"),
        ({"labels": np.zeros(7, int)}, "expected one for each vector"),
        ({"features": np.float32(1)}, "expected train, val or test"),
    ],
)
def test_features_that_cannot_be_used_are_named(change, says, tmp_path):
    given = {"features": made()[0], "labels": made()[1], "split": np.repeat("train", 8), **change}
    np.savez_compressed(tmp_path / "a.npz", **given)
    with pytest.raises(DataError, match=says):
        embeddings.prepare_features(tmp_path / "a.npz", tmp_path / "root", quiet)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"embeddings": [[1.0, 2.0], [1.0]], "keys": ["a", "b"]}, "no table"),
        ({"embeddings": [], "keys": []}, "no table"),
        ({"embeddings": [["a", "b"]], "keys": ["a"]}, "vector 0 holds something else"),
        ({"embeddings": {"a": 1}, "keys": ["a"]}, "no table"),
        ({"embeddings": [[1.0]], "keys": 5}, "another number of keys"),
        ({"embeddings": [[1.0]], "keys": ["a", "b"]}, "another number of keys"),
        ({"embeddings": [[1.0]], "keys": [None]}, "has the key ''"),
        ([1], "no embeddings and keys"),
        ({1: 2, "a": 3}, "no embeddings and keys"),
    ],
)
def test_odd_contents_of_pickles_are_one_sentence(content, says, tmp_path):
    (tmp_path / "train_embeddings.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=says):
        read_features(tmp_path)


def test_lists_of_vectors_are_read(tmp_path):
    content = {"embeddings": [[1.0, 2], np.array([3.0, 4])], "keys": ["0-a-a_0", b"1-b-b_0"]}
    (tmp_path / "train_embeddings.pkl").write_bytes(pickle.dumps(content))
    found = read_features(tmp_path)["train"]
    assert (
        found.features.tolist() == [[1, 2], [3, 4]] and found.names == ["a", "b"] and found.numbers.tolist() == [0, 1]
    )
