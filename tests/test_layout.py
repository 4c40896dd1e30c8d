"""What the folders of pictures mean, and what in them is refused or listed instead of guessed. No picture is decoded here."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lethax.data.layout import Layout, alike, class_folders
from lethax.data.split_files import assign, label_files, read_split
from lethax.data.tree import Tree, split_of
from lethax.errors import DataError


def read(root: Path, *names: str, listed: bool = False) -> Layout:
    for name in names:
        path = root / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return class_folders(Tree(root / "pictures"), listed)


def classes(plan: Any) -> Any:
    return {split: sorted(named) for split, named in plan.items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("base", "val", "novel"),
        ("Training", "Validation", "Testing"),
        ("meta-train", "meta-val", "meta-test"),
        ("metatrain", "metaval", "metatest"),
        ("train_set", "valid_set", "test_set"),
        ("TrainSet", "DevSet", "TestSet"),
        ("images_background", "validation images", "images_evaluation"),
    ],
)
@pytest.mark.parametrize("wrapped", ["", "download/data/"])
def test_split_folders(tmp_path: Path, train: str, val: str, test: str, wrapped: str) -> None:
    names = [
        f"{wrapped}{train}/a/1.png",
        f"{wrapped}{train}/b/1.png",
        f"{wrapped}{val}/c/1.png",
        f"{wrapped}{test}/d/1.png",
    ]
    plan, flat, left_out = read(tmp_path, *names)
    assert plan is not None and classes(plan) == {"train": ["a", "b"], "val": ["c"], "test": ["d"]} and not left_out
    assert sorted(flat) == ["a", "b", "c", "d"]


def test_words_that_are_no_split() -> None:
    assert [split_of(name) for name in ("dataset", "trainer", "testudo", "meta", "", "basement", "set")] == [None] * 7


def test_pictures_beside_the_classes_of_splits_are_listed(tmp_path: Path) -> None:
    names = ["train/a/1.png", "train/b/1.png", "test/c/1.png", "train/loose.png", "extra/1.png", "top.png"]
    plan, _, left_out = read(tmp_path, *names)
    assert plan is not None and classes(plan) == {"train": ["a", "b"], "test": ["c"]}
    assert left_out == {
        "train/loose.png": "it is in no class folder", "top.png": "it is in no class folder",
        "extra/1.png": "it is beside the split folders",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train/a/1.png", "train/b/1.png"], "the folders train, which may be a split or classes"),
        (["val/a/1.png", "test/b/1.png"], "test, val, which may be a split or classes"),
        (["train/a/1.png", "extra/b/1.png"], "train, which may be a split or classes"),
        (["train/a/1.png", "val/b/1.png", "valid/c/1.png"], "train, val, valid, which name a split twice"),
        (["Train/a/1.png", "train/b/1.png", "test/c/1.png"], "Train, test, train, which name a split twice"),
        (["train/1.png", "val/1.png", "test/1.png"], "are splits, but test has no class folders"),
        (["train/a/1.png", "test/1.png"], "are splits, but test has no class folders"),
        (["a/1.png", "b/new/1.png"], "pictures in 'a' and, deeper, in 'b/new'"),
        (["a/1.png", "a/more/1.png", "b/1.png"], "pictures in 'a' and, deeper, in 'a/more'"),
        (["train/a/1.png", "test/b/c/1.png"], "pictures in 'a' and, deeper, in 'b/c'"),
        (["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/test/1.png"], "split folders in its classes"),
        (["\u00e9/1.png", "e\u0301/1.png"], "two folders called .*, written with different code points"),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, *names)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    plan, flat, _ = read(tmp_path, "train/1.png", "car/1.png", "bus/1.png")
    assert plan is None and sorted(flat) == ["bus", "car", "train"]


def test_folders_of_class_folders(tmp_path: Path) -> None:
    """Two levels are classes of superclasses; a last folder that all classes share is no class."""
    _, flat, _ = read(tmp_path / "a", "Greek/alpha/1.png", "Greek/beta/1.png", "Latin/alpha/1.png")
    assert {name: len(names) for name, names in flat.items()} == {"Greek/alpha": 1, "Greek/beta": 1, "Latin/alpha": 1}
    plan, _, _ = read(tmp_path / "b", "train/Greek/alpha/1.png", "test/Latin/a/1.png")
    assert plan is not None and classes(plan) == {"train": ["Greek/alpha"], "test": ["Latin/a"]}
    _, flat, _ = read(tmp_path / "c", "n01/images/1.png", "n02/images/1.png")
    assert flat == {"n01": ["n01/images/1.png"], "n02": ["n02/images/1.png"]}


def test_listed_classes_need_no_clear_layout(tmp_path: Path) -> None:
    plan, flat, _ = read(tmp_path, "train/a/1.png", "other/b/1.png", "c/1.png", listed=True)
    assert plan is None and sorted(flat) == ["c", "other/b", "train/a"]
    plan, flat, _ = read(tmp_path / "2", "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/c/1.png", listed=True)
    assert sorted(flat["a"]) == ["test/a/2.png", "train/a/1.png"]  # of both


def test_names_are_compared_in_one_form(tmp_path: Path) -> None:
    """As a Mac writes them and as a keyboard does."""
    apart, composed = unicodedata.normalize("NFD", "été"), unicodedata.normalize("NFC", "été")
    _, flat, _ = read(tmp_path, f"{apart}/1.png", "b/1.png", f"c/{apart}.png")
    assert sorted(flat) == ["b", "c", composed]
    (tmp_path / "split.csv").write_text(f"class,split\n{composed},train\nb,test\n")
    plan = assign(flat, read_split(tmp_path / "split.csv"), "here")
    assert plan["train"] == {composed: [f"{apart}/1.png"]}
    (tmp_path / "split.json").write_text(f'{{"train": ["{apart}"], "test": ["b"]}}')
    assert list(assign(flat, read_split(tmp_path / "split.json"), "here")["train"]) == [composed]
    tree = Tree(tmp_path / "pictures")
    assert label_files(tree, {"train": f"filename,label\nc/{composed}.png,x\n"})["train"] == {"x": [f"c/{apart}.png"]}


def test_what_is_not_read_is_listed(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    read(
        tmp_path,
        "a/1.jfif",
        "a/2.GIF",
        "a/3.tif",
        "a/4.heic",
        "a/5",
        "b/1.png",
        "b/.DS_Store",
        "notes.txt",
        "raw/1.nef",
    )
    (root / "empty").mkdir()
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "b" / "dead.png").symlink_to("nothing.png")
    (root / "b" / "itself.png").symlink_to("itself.png")
    (root / "b" / "gone.png").symlink_to("/nowhere/at/all.png")
    (root / "again").symlink_to("b")
    os.mkfifo(root / "b" / "pipe.png")
    tree = Tree(root)
    assert tree.pictures == ["a/1.jfif", "a/2.GIF", "a/3.tif", "b/1.png"]
    assert tree.left_out == {
        "a/4.heic": "the ending .heic is not read", "a/5": "it has no ending that says what it is",
        "notes.txt": "the ending .txt is not read", "raw/1.nef": "the ending .nef is not read",
        "raw/": "there are no pictures in it that are read", "empty/": "there are no pictures in it that are read",
        "deep/": "there are no pictures in it that are read", "b/dead.png": "it is a link to nothing",
        "b/gone.png": "it is a link to nothing",
        "b/itself.png": "it is a link to nothing", "again": "it is a link to another folder", "b/pipe.png": "it is not a file",
    }  # fmt: skip


def test_a_folder_that_cannot_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, "a/1.png", "b/1.png")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    tree = Tree(tmp_path / "pictures")
    assert tree.pictures == ["a/1.png"] and tree.left_out == {"b/": "it cannot be read: Permission denied"}


def test_names_that_differ_in_case_alone() -> None:
    assert alike(["tiger", "cat", "Tiger", "TIGER", "dog"]) == [["TIGER", "Tiger", "tiger"]]
