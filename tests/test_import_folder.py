"""Import of folders of pictures: layouts, splits, broken and hostile files."""

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lethax import cli
from lethax.data import decode, folder, pictures
from lethax.data.folder import left_out, prepare_folder, skipped
from lethax.data.store import Store, open_store
from lethax.data.tree import Tree
from lethax.errors import DataError, RecipeError


def quiet(label: str, part: float) -> None:
    assert label and 0 <= part <= 1


def picture(path: Path, shade: int = 100, size: tuple[int, int] = (12, 10), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 50, 200)).save(path, **options)
    return path


def class_folders(root: Path, classes: int = 10, each: int = 3) -> Path:
    for c in range(classes):
        for i in range(each):
            picture(root / f"class{c}" / f"{i}.{('png', 'jpg', 'webp', 'bmp', 'ppm')[c % 5]}", 20 * c)
    return root


def prepared(source: Path, root: Path, **options: object) -> Store:
    assert prepare_folder(source, root, quiet, **{"name": "own", "image": 8, **options}) == ["own"]  # type: ignore
    return open_store("own", root)


def test_seeded_split_covers_all_classes_once(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pictures")
    store = prepared(source, tmp_path / "stores")
    assert [len(store.splits[s].classes) for s in ("train", "val", "test")] == [4, 3, 3]
    assert sorted(c for s in store.splits.values() for c in s.classes) == [f"class{c}" for c in range(10)]
    assert store.mean == (0.485, 0.456, 0.406) and skipped(store) == []
    for split in store.splits.values():
        for c, begin in zip(split.classes, split.starts, strict=False):
            assert abs(int(split.images[begin].mean((0, 1))[0]) - 20 * int(c[5:])) < 5
    again = prepared(source, tmp_path / "again")
    other = prepared(source, tmp_path / "other", seed=1)
    assert again.splits["train"].classes == store.splits["train"].classes != other.splits["train"].classes


def test_nested_folders_in_an_archive(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    for split, names in {"train": "ab", "valid": "c", "test": "d"}.items():
        for name in names:
            picture(source / split / name / "1.png")
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for path in sorted(source.rglob("*.png")):
            archive.write(path, Path("wrapped") / path.relative_to(source))
    with pytest.raises(RecipeError, match="--seed is 0, but the split is that of the folders, not a random one: leave"):
        prepared(source, tmp_path / "stores", seed=0)
    for given in (source, tmp_path / "own.zip"):
        store = prepared(given, tmp_path / "stores", channels=1)
        assert {s: split.classes for s, split in store.splits.items()} == {
            "train": ("a", "b"), "val": ("c",), "test": ("d",)
        }  # fmt: skip
        assert store.splits["train"].images.shape == (2, 8, 8, 1) and store.std == (0.5,)


def test_split_files(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pictures", 4)
    as_json, as_csv = tmp_path / "split.json", tmp_path / "split.csv"
    as_json.write_text(json.dumps({"train": ["class2"], "val": ["class0"], "test": ["class1"]}))
    as_csv.write_text("class,split\nclass2,train\nclass0,val\nclass1,test\n")
    (tmp_path / "tables").mkdir()
    for split, c in {"train": 2, "val": 0, "test": 1}.items():
        suffix = ("png", "jpg", "webp")[c]
        (tmp_path / "tables" / f"{split}.csv").write_text(f"filename,label\nclass{c}/0.{suffix},class{c}\n")
    for split in (as_json, as_csv, tmp_path / "tables"):
        store = prepared(source, tmp_path / "stores", split=split)
        assert store.splits["train"].classes == ("class2",) and store.splits["test"].classes == ("class1",)
    assert ("class3/", "the split file does not list this class") in left_out(store_of_file(source, tmp_path, as_json))
    assert ("class3/0.bmp", "no label file lists it") in left_out(store)


def store_of_file(source: Path, tmp_path: Path, split: Path) -> Store:
    return prepared(source, tmp_path / "stores", split=split)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("a/0.png,a\n0.png,b\n", ""),  # found by its path, or below its label
        ("0.png,c\n", "the name of 2 pictures"),
        ("a/0.png,a\na/0.png,b\n", "listed before"),
        ("a/1.png,a\n", "cannot be found, the first being a/1.png"),
    ],
)
def test_pictures_of_label_files_are_found_once(tmp_path: Path, lines: str, says: str) -> None:
    for name in "ab":
        picture(tmp_path / "pictures" / name / "0.png")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "train.csv").write_text("filename,label\n" + lines)
    if not says:
        store = prepared(tmp_path / "pictures", tmp_path / "stores", split=tmp_path / "tables")
        assert store.splits["train"].classes == ("a", "b")
        return
    with pytest.raises(DataError, match=says):
        prepared(tmp_path / "pictures", tmp_path / "stores", split=tmp_path / "tables")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"train": ["class0"], "test": ["none"]}', "none"),
        ('{"train": ["class0"], "test": ["class0"]}', "class0 in more than one split"),
        ('{"training": ["class0"], "others": ["class1"]}', "must be train, val and test"),
        ('{"training": ["class0"], "train": ["class1"]}', "a split under two names"),
        ('{"train": "class0"}', "does not list classes"),
        ("{", "not JSON"),
    ],
)
def test_bad_split_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    source = class_folders(tmp_path / "pictures", 3)
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(DataError, match=says):
        prepared(source, tmp_path / "stores", split=tmp_path / "split.json")


def test_broken_pictures_are_listed_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    source = class_folders(tmp_path / "pictures")
    whole = picture(source / "class0" / "cut.jpg", size=(30, 30)).read_bytes()
    (source / "class0" / "cut.jpg").write_bytes(whole[: len(whole) - 20])
    (source / "class1" / "text.png").write_text("no picture")
    (source / "class1" / "empty.png").touch()
    picture(source / "class2" / "huge.png", size=(40, 40))
    (source / "none").mkdir()
    for name in ("bad.jpg", "worse.jpg"):
        (source / "none" / name).write_text("bad")
    (source / "class3" / ".hidden.png").write_text("hidden")
    (source / "class3" / "notes.txt").write_text("notes")
    store = prepared(source, tmp_path / "stores")
    reasons = dict(skipped(store))
    broken = (
        "class0/cut.jpg",
        "class1/text.png",
        "class1/empty.png",
        "class2/huge.png",
        "none/bad.jpg",
        "none/worse.jpg",
    )
    assert set(reasons) == set(broken)
    assert "truncated" in reasons["class0/cut.jpg"] and "megapixels" in reasons["class2/huge.png"]
    assert not any(str(tmp_path) in reason or "0x" in reason for reason in reasons.values())
    assert left_out(store) == [
        ("class3/notes.txt", "the ending .txt is not read"), ("none/", "all pictures of this class are broken"),
    ]  # fmt: skip
    assert sum(len(split.images) for split in store.splits.values()) == 30


def test_decoding_of_sizes_modes_and_orientation(tmp_path: Path) -> None:
    wide = Image.new("RGB", (30, 10), "white")
    wide.paste((0, 0, 0), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    assert pictures.decode(tmp_path / "wide.png", 10).max() == 0
    assert pictures.decode(tmp_path / "wide.png", 10, resize="stretch").max() == 255
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by 90°
    half = Image.new("RGB", (16, 16), "white")
    half.paste((0, 0, 0), (0, 0, 8, 16))
    half.save(tmp_path / "half.jpg", exif=turned, quality=95)
    upright = pictures.decode(tmp_path / "half.jpg", 16, 1)
    assert upright[:6].max() < 20 and upright[10:].min() > 235
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert set(np.unique(pictures.decode(tmp_path / "deep.png", 4))) == {40000 >> 8}
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert pictures.decode(tmp_path / "clear.png", 4).min() == 255
    assert pictures.decode((tmp_path / "clear.png").read_bytes(), 4, 1).shape == (4, 4, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("damage", ["whole", "damaged", "garbage"])
def test_orientation_needs_no_whole_metadata(tmp_path: Path, orientation: int, damage: str) -> None:
    """As Pillow turns it; also where the resolution is text, at which Pillow's own function raises TypeError."""
    quarters = Image.fromarray(np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8))
    plain = quarters.resize((16, 16), Image.Resampling.NEAREST)
    tags = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    if damage == "damaged":
        tags += struct.pack(">HHI4s", 0x011A, 2, 2, b"\xe9\xf5f\0")
    exif = b"Exif\0\0" + (b"MM\0*\0\0\0\x08" + struct.pack(">H", len(tags) // 12) + tags + bytes(4))
    plain.save(tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0garbage" if damage == "garbage" else exif)
    found = pictures.decode(tmp_path / "a.jpg", 16).astype(int)
    whole = Image.Exif()
    whole[0x0112] = 1 if damage == "garbage" else orientation
    plain.save(tmp_path / "b.png", exif=whole)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "b.png"))).astype(int)
    assert np.abs(found - expected).mean() < 12  # of 250; another turn differs by 60 and more


def test_gif_tiff_and_jfif_are_read(tmp_path: Path) -> None:
    """Of several pictures in a file, the first."""
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for name in ("a.gif", "a.tif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
    first.save(tmp_path / "a.jfif", "JPEG", quality=95)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.tiff")
    for name in ("a.gif", "a.tif", "a.jfif"):
        assert np.abs(pictures.decode(tmp_path / name, 8).astype(int) - [255, 0, 0]).max() < 5, name
    assert set(np.unique(pictures.decode(tmp_path / "deep.tiff", 8, 1))) == {40000 >> 8}


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (3, [1, 1, 1]),
        (8, [4, 2, 2]),
        (14, [6, 4, 4]),
        (15, [5, 5, 5]),
        (20, [10, 5, 5]),
        (30, [19, 5, 6]),
        (100, [64, 16, 20]),
    ],
)
def test_splits_at_random_have_five_classes_where_they_can(count: int, sizes: list[int]) -> None:
    plan = folder._seeded({f"c{i}": ["1", "2"] for i in range(count)}, 0, (0.64, 0.16, 0.20), Path("here"))
    assert [len(plan[split]) for split in ("train", "val", "test")] == sizes
    assert sorted(name for classes in plan.values() for name in classes) == sorted(f"c{i}" for i in range(count))


def test_split_files_among_the_pictures_were_read(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pictures", 3)
    (source / "split.csv").write_text("class,split\nclass0,train\nclass1,val\nclass2,test\n")
    (source / "notes.csv").touch()
    (source / "itself").symlink_to("itself")
    for split in (source / "split.csv", None):
        assert [name for name, _ in left_out(prepared(source, tmp_path / "stores", split=split))] == [
            "itself", "notes.csv", *(["split.csv"] if split is None else [])
        ]  # fmt: skip


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pictures", 3)
    (source / "class0" / "link.png").symlink_to(picture(tmp_path / "secret.png"))
    with pytest.raises(DataError, match="link"):
        prepared(source, tmp_path / "stores")


def test_folders_too_deep_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "top" / "a").mkdir(parents=True)
    (tmp_path / "top" / "a" / "1.png").write_bytes(b"")
    here = Path.cwd()
    try:
        for top, name, count in (("long", "x" * 250, 20), ("deep", "d", 70)):  # the first is longer than a path may be
            os.chdir(tmp_path / "top")
            for part in (top, *[name] * count):
                os.mkdir(part)
                os.chdir(part)
    finally:
        os.chdir(here)
    tree = Tree(tmp_path / "top")
    assert tree.pictures == ["a/1.png"]
    reasons = {name[:4]: why for name, why in tree.left_out.items() if "pictures" not in why}
    assert reasons["deep"] == "it is in more than 64 folders within each other"
    assert reasons["long"].startswith("it cannot be read: File name too long") and len(reasons) == 2


def test_folders_without_pictures_are_left_out(tmp_path: Path) -> None:
    for name in ("a/b/1.png", "a/c/note.txt", "d/e/none", ".hidden/f/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    without = "there are no pictures in it that are read"
    found = Tree(tmp_path).left_out
    assert {name for name, why in found.items() if why == without} == {"a/c/", "d/"}
    assert set(found) == {"a/c/", "d/", "a/c/note.txt", "d/e/none"}


def test_failure_leaves_the_earlier_store(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "pictures", 3)
    before = prepared(source, tmp_path / "stores").manifest
    for path in source.rglob("*.*"):
        path.write_text("broken")
    with pytest.raises(DataError, match="no picture of .* can be decoded"):
        prepared(source, tmp_path / "stores")
    assert open_store("own", tmp_path / "stores").manifest == before
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["own"]


def test_empty_and_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        prepared(tmp_path / "nowhere", tmp_path / "stores")
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(DataError, match="one folder per class"):
        prepared(tmp_path / "flat", tmp_path / "stores")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder's own name, a split file, what was skipped; options that a layout does not take are refused."""
    source, root = class_folders(tmp_path / "Mes images été"), tmp_path / "stores"
    (source / "class3" / "broken é.png").write_bytes(b"no picture")

    def prepare(*args: object) -> int:
        return cli.main(["data", "prepare", *map(str, args), "--root", str(root)])

    assert prepare("folder", "--from", source, "--image", 8) == 0
    out = capsys.readouterr().out
    assert (
        "mes-images-ete: train 4 classes, 12 images" in out and "  class3/broken é.png: it is broken: not a JPEG" in out
    )
    (tmp_path / "split.csv").write_text("class,split\nclass1,train\nclass2,test\n")
    assert prepare("folder", "--from", source, "--store", "own", "--split", tmp_path / "split.csv", "--image", 8) == 0
    assert "  class9/: the split file does not list this class" in capsys.readouterr().out
    assert open_store("own", root).splits["test"].classes == ("class2",)
    assert prepare("folder", "--from", source, "--split", tmp_path / "none.csv") == 1
    assert "none.csv cannot be read: No such file" in capsys.readouterr().err
    assert prepare("folder", "--from", source, "--store", "Not a name") == 1
    assert prepare("cifar100", "--from", source, "--split", "fc100") == 2
    assert "takes no --split, only omniglot and folder do" in capsys.readouterr().err
    next((root / "mes-images-ete").glob("train-*.npy")).write_bytes(b"")
    assert cli.main(["data", "list", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "mes-images-ete is damaged" in out and "own: train 1 class," in out
