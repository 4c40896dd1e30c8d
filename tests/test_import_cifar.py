"""Import of CIFAR-100 from small files in its published layout."""

import io
import os
import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethax import cli, signals
from lethax.data.cifar import MEAN, STD, prepare_cifar100, published_split
from lethax.data.store import Store, open_store
from lethax.errors import DataError

PER_CLASS = (5, 1)
NAMES = sorted(name for classes in published_split("cifar_fs").values() for name in classes)
ABOVE = published_split("cifar100_superclasses")
COARSE = [next(i for i, held in enumerate(ABOVE.values()) if name in held) for name in NAMES]


def quiet(label: str, part: float) -> None:
    assert label and 0 <= part <= 1


def part_of(count: int, seed: int) -> dict[bytes, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(100), count)).tolist()
    pixels = rng.integers(0, 256, (100 * count, 3072), np.uint8)
    pixels[:, 0] = labels  # the first red pixel tells the class
    return {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [COARSE[i] for i in labels]}


@pytest.fixture(scope="module")
def content() -> dict[str, dict[bytes, Any]]:
    meta = {b"fine_label_names": [n.encode() for n in NAMES], b"coarse_label_names": [n.encode() for n in ABOVE]}
    return {"train": part_of(5, 0), "test": part_of(1, 1), "meta": meta}


def layout(top: Path, content: dict[str, Any]) -> Path:
    folder = top / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, part in content.items():
        (folder / name).write_bytes(pickle.dumps(part, protocol=2))
    return folder


def tarred(folder: Path) -> Path:
    with tarfile.open(folder.parent / "cifar-100-python.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(folder, folder.name)
    return folder.parent / "cifar-100-python.tar.gz"


def prepare(source: Path, root: Path) -> dict[str, Store]:
    names = prepare_cifar100(source, root, quiet, per_class=PER_CLASS)
    assert names == ["cifar_fs", "fc100"]
    return {name: open_store(name, root) for name in names}


def test_both_data_sets_from_every_layout(tmp_path: Path, content: dict[str, Any]) -> None:
    folder = layout(tmp_path / "data", content)
    archive = tarred(folder)
    stores = prepare(folder, tmp_path / "root")
    for name, counts in {"cifar_fs": [64, 16, 20], "fc100": [60, 20, 20]}.items():
        store = stores[name]
        assert [len(split.classes) for split in store.splits.values()] == counts
        assert (store.mean, store.std) == (MEAN, STD) and sorted(store.manifest["source"]["files"]) == [
            "meta", "test", "train",
        ]  # fmt: skip
        for split, classes in published_split(name).items():
            found = store.splits[split]
            assert list(found.classes) == classes and set(np.diff(found.starts)) == {6}
            assert found.images.shape[1:] == (32, 32, 3)
            expected = np.repeat([NAMES.index(c) for c in classes], 6)
            np.testing.assert_array_equal(found.images[:, 0, 0, 0], expected)
            assert all(c in ABOVE[above] for c, above in zip(found.classes, found.superclasses, strict=True))
    for source in (archive, tmp_path / "data"):
        again = prepare(source, tmp_path / "again")
        assert again["fc100"].manifest == stores["fc100"].manifest  # with the checksums
    shutil.rmtree(folder)
    assert prepare(tmp_path / "data", tmp_path / "again")["cifar_fs"].manifest == stores["cifar_fs"].manifest


def test_pixels_are_where_they_were(tmp_path: Path, content: dict[str, Any]) -> None:
    store = prepare(layout(tmp_path, content), tmp_path / "root")["cifar_fs"]
    name = store.splits["test"].classes[3]
    images = store.splits["test"].images[18:24]
    train, test = content["train"], content["test"]
    rows = np.flatnonzero(np.array(train[b"fine_labels"]) == NAMES.index(name))
    planes = [*train[b"data"][rows], test[b"data"][test[b"fine_labels"].index(NAMES.index(name))]]
    for image, plane in zip(images, planes, strict=True):
        assert image[2, 7].tolist() == [plane[c * 1024 + 2 * 32 + 7] for c in range(3)]


def less(key: bytes, change: Callable[[Any], Any], part: str = "train") -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content[part][key] = change(content[part][key])

    return apply


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: c.pop("meta"), "lacks meta"),
        (lambda c: (c.pop("train"), c.pop("test")), "lacks train, test"),
        (lambda c: c["train"].pop(b"data"), "train has data nothing"),
        (lambda c: c["test"].pop(b"fine_labels"), "test has nothing as fine_labels"),
        (lambda c: c["train"].pop(b"coarse_labels"), "train has nothing as coarse_labels"),
        (lambda c: c["meta"].pop(b"fine_label_names"), "meta lacks fine_label_names"),
        (less(b"data", lambda d: d[:-1]), r"train has data uint8\[499, 3072\], expected uint8\[500, 3072\]"),
        (less(b"data", lambda d: d[:, 1:], "test"), r"test has data uint8\[100, 3071\]"),
        (less(b"data", lambda d: d.astype(np.int16)), "train has data int16"),
        (less(b"fine_labels", lambda d: d[1:]), "train has 499 fine_labels, expected a list of 500"),
        (less(b"fine_labels", lambda d: [0] * 500), "train has 500 images of class 0, expected 5"),
        (less(b"fine_labels", lambda d: [-1, *d[1:]]), "not numbers below 100"),
        (less(b"fine_labels", lambda d: ["a", *d[1:]]), "not numbers below 100"),
        (less(b"coarse_labels", lambda d: [20, *d[1:]]), "not numbers below 20"),
        (less(b"coarse_labels", lambda d: d[::-1]), "in several superclasses"),
        (less(b"fine_label_names", lambda d: [b"cat", *d[1:]], "meta"), "expected CIFAR-100's 100 and 20"),
        (less(b"coarse_label_names", lambda d: d[1:], "meta"), "19 superclasses"),
        (lambda c: c.update(train=[1]), "train holds a list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: dict[str, Any], damage: Any, says: str) -> None:
    broken = {name: dict(part) for name, part in content.items()}
    damage(broken)
    with pytest.raises(DataError, match=says):
        prepare(layout(tmp_path, broken), tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_truncated_files_are_named(tmp_path: Path, content: dict[str, Any]) -> None:
    folder = layout(tmp_path, content)
    archive = tarred(folder)
    archive.write_bytes(archive.read_bytes()[:-100_000])
    with pytest.raises(DataError, match=r"cifar-100-python.tar.gz .* truncated"):
        prepare(archive, tmp_path / "root")
    (folder / "train").write_bytes((folder / "train").read_bytes()[:100_000])
    with pytest.raises(DataError, match="train is damaged .* fetch it again"):
        prepare(folder, tmp_path / "root")
    (folder / "train").write_bytes(b"")
    with pytest.raises(DataError, match="train is damaged"):
        prepare(folder, tmp_path / "root")


def test_a_hostile_part_is_refused_and_does_not_run(tmp_path: Path, content: dict[str, Any]) -> None:
    class Acts:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/mark",)

    with pytest.raises(DataError, match=r"meta asks for \w+.system"):
        prepare(layout(tmp_path, {**content, "meta": Acts()}), tmp_path / "root")
    assert not (tmp_path / "mark").exists()


def test_an_archive_with_a_path_outside_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../train"), io.BytesIO())
    with pytest.raises(DataError, match="points outside"):
        prepare(tmp_path / "cifar.tar.gz", tmp_path / "root")


def test_an_interruption_says_which_of_the_data_sets_is_written(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(label: str, part: float) -> None:
        if label == "writing cifar_fs":
            raise signals.Interrupted(signal.SIGINT)

    def prepared(name: str, source: Path, root: Path, progress: Any, **options: Any) -> list[str]:
        return prepare_cifar100(source, root, interrupted, per_class=PER_CLASS)

    monkeypatch.setattr("lethax.data.prepare", prepared)
    source = layout(tmp_path, content)
    assert cli.main(["data", "prepare", "cifar100", "--from", str(source), "--root", str(tmp_path)]) == 130
    assert "interrupted; data set cifar_fs is written, what was to follow is unchanged" in capsys.readouterr().err


def test_the_published_counts_have_the_published_checksums(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"(meta|test|train) is damaged: its MD5 is \w+, expected \w+: fetch it again"):
        prepare_cifar100(layout(tmp_path, content), tmp_path / "root", quiet)
