"""Import of Omniglot from small folders and zips in its published layout."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lethax.data import omniglot
from lethax.data.cifar import published_split
from lethax.data.omniglot import decode, prepare_omniglot
from lethax.data.store import Store, open_store
from lethax.errors import DataError

# alphabet: characters; four drawers each
BACKGROUND = {"Angle": 2, "Bow": 1, "Circle": 3}
EVALUATION = {"Dot": 2, "Edge": 1}
LISTS = {"train": {"Bow": [1], "Edge": [1]}, "val": {"Circle": [3, 1]}, "test": {"Dot": [2], "Angle": [2]}}


def quiet(label: str, part: float) -> None:
    assert label and 0 <= part <= 1


def drawing(seed: int, side: int = 105, mode: str = "1") -> bytes:
    """A picture whose upper left tells the seed: that many black columns of the small image."""
    pixels = np.full((side, side), 255, np.uint8)
    pixels[:, : seed * side // 28] = 0
    blob = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(blob, "PNG")
    return blob.getvalue()


def layout(top: Path, zipped: bool = True) -> Path:
    top.mkdir(exist_ok=True)
    number = 0
    for part, alphabets in (("images_background", BACKGROUND), ("images_evaluation", EVALUATION)):
        files = {}
        for alphabet, count in alphabets.items():
            for character in range(1, count + 1):
                number += 1
                for drawer in (3, 1, 4, 2):  # not in order
                    files[f"{part}/{alphabet}/character{character:02d}/{number:04d}_{drawer:02d}.png"] = drawing(number)
        save(top, part, files, zipped)
    return top


def save(top: Path, part: str, files: dict[str, bytes], zipped: bool) -> None:
    if zipped:
        with zipfile.ZipFile(top / f"{part}.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "COUNTS", {"images_background": (3, 6), "images_evaluation": (2, 3)})
    monkeypatch.setattr(omniglot, "DRAWERS", 4)
    monkeypatch.setattr(omniglot, "MAMLPP", {"train": 5, "val": 1, "test": 3})
    monkeypatch.setattr(omniglot, "LAKE_VAL", 1)
    monkeypatch.setattr(omniglot, "published_split", lambda _: LISTS)


def prepare(source: Path, root: Path, split: str = "vinyals") -> Store:
    (name,) = prepare_omniglot(source, root, quiet, split=split)
    return open_store(name, root)


@pytest.mark.parametrize("zipped", [True, False])
def test_published_lists(tmp_path: Path, zipped: bool) -> None:
    store = prepare(layout(tmp_path / "data", zipped), tmp_path / "root")
    assert store.name == "omniglot" and (store.mean, store.std) == ((0.0,), (1.0,))
    assert {name: split.classes for name, split in store.splits.items()} == {
        "train": ("Bow/character01", "Edge/character01"),
        "val": ("Circle/character03", "Circle/character01"),
        "test": ("Dot/character02", "Angle/character02"),
    }
    val = store.splits["val"]
    assert val.superclasses == ("Circle", "Circle") and val.starts.tolist() == [0, 4, 8]
    assert val.images.shape == (8, 28, 28, 1) and set(np.unique(val.images)) == {0, 255}
    # number of the character in the layout = black columns
    assert (val.images[::4, 0, :, 0] == 0).sum(1).tolist() == [6, 4]
    assert len(store.manifest["source"]["files"]) == 2


def test_the_other_splits(tmp_path: Path) -> None:
    source = layout(tmp_path / "data")
    lake = prepare(source, tmp_path / "root", "lake")
    assert lake.name == "omniglot_lake" and "Circle" in lake.manifest["source"]["description"]
    assert set(lake.splits["train"].superclasses) == {"Angle", "Bow"}
    assert set(lake.splits["val"].superclasses) == {"Circle"}
    assert set(lake.splits["test"].superclasses) == {"Dot", "Edge"}
    mixed = prepare(source, tmp_path / "root", "mamlpp")
    assert mixed.name == "omniglot_mamlpp" and [len(s.classes) for s in mixed.splits.values()] == [5, 1, 3]
    assert len({c for s in mixed.splits.values() for c in s.classes}) == 9
    again = prepare(source, tmp_path / "again", "mamlpp")
    assert again.manifest == mixed.manifest
    with pytest.raises(DataError, match="Did you mean 'vinyals'"):
        prepare(source, tmp_path / "root", "vinyal")


def test_pictures_become_small_as_pillow_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (105, 105)).astype(bool)
    blob = io.BytesIO()
    Image.fromarray(pixels).save(blob, "PNG")
    with Image.open(io.BytesIO(blob.getvalue())) as picture:
        expected = np.asarray(picture.resize((28, 28)), np.float32)  # Pillow's own choice for 1-bit pictures
    found = decode(blob.getvalue(), "a")
    assert found.shape == (28, 28, 1) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, :, 0] / 255, expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no picture", "is broken .no PNG picture"),
        (drawing(3)[:-30], "is broken"),
        (drawing(3, 104), "is 104 x 104 of mode 1, expected 105 x 105 of mode 1"),
        (drawing(3, mode="L"), "is 105 x 105 of mode L"),
        (drawing(3, 20_000), "20000|exceeds"),  # refused before it is decoded
    ],
)
def test_a_bad_picture_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    source = layout(tmp_path / "data", zipped=False)
    (source / "images_background" / "Bow" / "character01" / "0003_02.png").write_bytes(content)
    with pytest.raises(DataError, match=f"Bow/character01/0003_02.png.*({says})"):
        prepare(source, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    source = layout(tmp_path / "data", zipped=False)
    folder = source / "images_evaluation" / "Dot"
    (folder / "character02" / "0008_01.png").unlink()
    with pytest.raises(DataError, match="3 pictures of Dot/character02, expected 4"):
        prepare(source, tmp_path / "root")
    for path in folder.glob("character02/*"):
        path.unlink()
    with pytest.raises(DataError, match="2 alphabets with 2 characters, expected 2 alphabets with 3 characters"):
        prepare(source, tmp_path / "root")
    (source / "images_evaluation").rename(source / "other")
    with pytest.raises(DataError, match="lacks images_evaluation"):
        prepare(source, tmp_path / "root")
    with pytest.raises(DataError, match="nowhere does not exist: give the folder"):
        prepare(tmp_path / "nowhere", tmp_path / "root")


def test_a_character_of_the_lists_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "published_split", lambda _: {**LISTS, "val": {"Circle": [4]}})
    with pytest.raises(DataError, match="lacks 1 character .* Circle/character04"):
        prepare(layout(tmp_path / "data"), tmp_path / "root")


def test_zips_with_other_layouts_are_refused(tmp_path: Path) -> None:
    source = layout(tmp_path / "data")
    content = (source / "images_background.zip").read_bytes()
    (source / "images_background.zip").write_bytes(content[:-40])
    with pytest.raises(DataError, match="images_background.zip .* truncated"):
        prepare(source, tmp_path / "root")
    save(source, "images_background", {"images_background/loose.png": drawing(1)}, True)
    with pytest.raises(DataError, match="holds images_background/loose.png, expected Alphabet/characterNN"):
        prepare(source, tmp_path / "root")


def test_the_shipped_lists_have_the_published_counts() -> None:
    lists = published_split("omniglot_vinyals")
    assert [len(lists[split]) for split in ("train", "val", "test")] == [33, 5, 13]
    assert [sum(map(len, lists[split].values())) for split in ("train", "val", "test")] == [1028, 172, 423]
