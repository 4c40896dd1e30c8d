"""Import of miniImageNet and tieredImageNet in the layouts they are published in, at a tiny scale."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lethax.data.miniimagenet import prepare_miniimagenet, published_split
from lethax.data.store import open_store
from lethax.data.tieredimagenet import prepare_tieredimagenet
from lethax.errors import DataError

COUNTS = {"train": 3, "val": 2, "test": 2}
WNIDS = {"train": ["n00000003", "n00000001", "n00000002"], "val": ["n00000004", "n00000005"], "test": ["n6", "n7"]}
GROUPS = {split: {f"g{split}": {"name": f"group of {split}", "classes": wnids}} for split, wnids in WNIDS.items()}
EACH = 4


def quiet(label: str, part: float) -> None:
    assert label and 0 <= part <= 1


def pixels(wnid: str, i: int, side: int = 84) -> np.ndarray:
    return np.full((side, side, 3), (int(wnid[1:]) * 20, 10 * i, 200), np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def class_folders(root: Path, nested: bool, side: int = 84) -> Path:
    for split, wnids in WNIDS.items():
        for wnid in wnids:
            folder = root / split / wnid if nested else root / wnid
            folder.mkdir(parents=True)
            for i in range(EACH):
                (folder / f"{wnid}{i:08}.png").write_bytes(png(pixels(wnid, i, side)))
    return root


def with_tables(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for split, wnids in WNIDS.items():
        lines = ["filename,label"]
        for wnid in wnids:
            for i in range(EACH):
                Image.fromarray(pixels(wnid, i)).save(root / "images" / f"{wnid}{i:08}.jpg", quality=95)
                lines.append(f"{wnid}{i:08}.jpg,{wnid}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def mini_pickles(root: Path) -> Path:
    root.mkdir(parents=True)
    for split, wnids in WNIDS.items():
        data = np.stack([pixels(wnid, i) for wnid in wnids for i in range(EACH)])
        rows = {wnid: list(range(k * EACH, (k + 1) * EACH)) for k, wnid in enumerate(wnids)}
        content = {"image_data": data, "class_dict": rows}
        (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content))
    return root


def tiered_pickles(root: Path) -> Path:
    root.mkdir(parents=True)
    for split, wnids in WNIDS.items():
        order = [(k, i) for i in range(EACH) for k in range(len(wnids))]  # classes interleaved
        images = [np.frombuffer(png(pixels(wnids[k], i)), np.uint8) for k, i in order]
        labels = {
            "label_specific": np.array([k for k, _ in order]),
            "label_general": np.zeros(len(order), np.int64),
            "label_specific_str": ["crane"] * 2 + ["other"] * (len(wnids) - 2),
            "label_general_str": [f"group of {split}"],
        }
        (root / f"{split}_images_png.pkl").write_bytes(pickle.dumps(images))
        (root / f"{split}_labels.pkl").write_bytes(pickle.dumps(labels))
    return root


def mini(source: Path, root: Path, **options: object) -> list[str]:
    given = {"classes": COUNTS, "per_class": EACH, "split": WNIDS, **options}
    return prepare_miniimagenet(source, root, quiet, **given)  # type: ignore


def tiered(source: Path, root: Path, **options: object) -> list[str]:
    return prepare_tieredimagenet(source, root, quiet, **{"classes": COUNTS, "split": GROUPS, **options})  # type: ignore


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_published_splits_have_the_published_counts() -> None:
    assert [len(published_split("miniimagenet")[s]) for s in COUNTS] == [64, 16, 20]
    groups = published_split("tieredimagenet")
    assert [sum(len(g["classes"]) for g in groups[s].values()) for s in COUNTS] == [351, 97, 160]


def test_all_layouts_of_miniimagenet_agree(tmp_path: Path) -> None:
    sources = {
        "csv": with_tables(tmp_path / "csv"),
        "pickles": mini_pickles(tmp_path / "pickles"),
        "nested": class_folders(tmp_path / "nested", True),
        "flat": class_folders(tmp_path / "flat", False),
    }
    for layout, source in sources.items():
        assert mini(source, tmp_path / "stores") == ["miniimagenet"]
        store = open_store("miniimagenet", tmp_path / "stores")
        assert store.std == (0.229, 0.224, 0.225), layout
        for split, wnids in WNIDS.items():
            part = store.splits[split]
            assert part.classes == tuple(sorted(wnids)) and part.images.shape == (len(wnids) * EACH, 84, 84, 3)
            expected = np.stack([pixels(wnid, i) for wnid in sorted(wnids) for i in range(EACH)])
            assert np.abs(part.images.astype(int) - expected).max() <= (3 if layout == "csv" else 0), layout


def test_pictures_of_another_size_are_resized(tmp_path: Path) -> None:
    mini(class_folders(tmp_path / "large", True, side=100), tmp_path / "stores")
    assert open_store("miniimagenet", tmp_path / "stores").splits["val"].images.shape[1:] == (84, 84, 3)
    mini(mini_pickles(tmp_path / "pickles"), tmp_path / "stores", image=32)
    assert open_store("miniimagenet", tmp_path / "stores").splits["val"].images.shape[1:] == (32, 32, 3)


def test_what_miniimagenet_lacks_is_named(tmp_path: Path) -> None:
    flat = class_folders(tmp_path / "flat", False)
    with pytest.raises(DataError, match=r"has 5 pictures \(n00000001 has 4"):
        mini(flat, tmp_path / "stores", per_class=5)
    for path in (flat / "n6").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="n6"):
        mini(flat, tmp_path / "stores")
    with pytest.raises(DataError, match="3 classes, expected 64"):
        prepare_miniimagenet(class_folders(tmp_path / "nested", True), tmp_path / "stores", quiet)
    table = with_tables(tmp_path / "csv")
    (table / "images" / "n0000000100000002.jpg").unlink()
    with pytest.raises(DataError, match="n0000000100000002.jpg"):
        mini(table, tmp_path / "stores")
    (table / "val.csv").unlink()
    with pytest.raises(DataError, match=r"no val\.csv"):
        mini(table, tmp_path / "stores")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="three layouts"):
        mini(tmp_path / "empty", tmp_path / "stores")


def test_truncated_picture_leaves_the_earlier_store(tmp_path: Path) -> None:
    source = with_tables(tmp_path / "csv")
    mini(source, tmp_path / "stores")
    before = open_store("miniimagenet", tmp_path / "stores").manifest
    victim = source / "images" / "n0000000200000001.jpg"
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(DataError, match="n0000000200000001.jpg is broken"):
        mini(source, tmp_path / "stores")
    assert open_store("miniimagenet", tmp_path / "stores").manifest == before
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["miniimagenet"]


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = pickle.dumps({"image_data": Evil(mark), "class_dict": {}})
    source = mini_pickles(tmp_path / "mini")
    (source / "mini-imagenet-cache-val.pkl").write_bytes(evil)
    with pytest.raises(DataError):
        mini(source, tmp_path / "stores")
    source = tiered_pickles(tmp_path / "tiered")
    (source / "train_images_png.pkl").write_bytes(pickle.dumps([Evil(mark)]))
    with pytest.raises(DataError):
        tiered(source, tmp_path / "stores")
    assert not mark.exists() and not list((tmp_path / "stores").iterdir())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "no image_data and class_dict"),
        ({"image_data": np.zeros((4, 84, 84, 3)), "class_dict": {}}, "not a uint8 array"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": {"n6": [0, 1]}}, "beyond its 1 picture,"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": {"n6": [-1]}}, "beyond its 1 picture,"),
        ({"image_data": np.zeros((4, 84, 84, 3), np.uint8), "class_dict": {"n6": [0, 0, 0, 0]}}, "or one twice"),
        (
            {"image_data": np.zeros((4, 84, 84, 3), np.uint8), "class_dict": {"n6": [[0]], 5: [1]}},
            "no list of whole numbers",
        ),
        ({"image_data": np.zeros((4, 84, 84, 3), np.uint8), "class_dict": {"n6": [0, 1, 2, 3]}}, "has 1 class,"),
    ],
)
def test_odd_pickles_are_refused(tmp_path: Path, content: object, says: str) -> None:
    source = mini_pickles(tmp_path / "mini")
    (source / "mini-imagenet-cache-test.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=says):
        mini(source, tmp_path / "stores")


def test_tieredimagenet_from_pickles_and_folders(tmp_path: Path) -> None:
    tiered(tiered_pickles(tmp_path / "pickles"), tmp_path / "stores")
    train = open_store("tieredimagenet", tmp_path / "stores").splits["train"]
    assert train.classes == ("crane #0", "crane #1", "other")
    assert set(train.superclasses) == {"group of train"}
    expected = np.stack([pixels(wnid, i) for wnid in WNIDS["train"] for i in range(EACH)])
    np.testing.assert_array_equal(train.images, expected)
    for nested in (True, False):
        tiered(class_folders(tmp_path / f"folders{nested}", nested), tmp_path / "stores")
        test = open_store("tieredimagenet", tmp_path / "stores").splits["test"]
        assert test.classes == ("n6", "n7") and test.superclasses == ("group of test",) * 2
        np.testing.assert_array_equal(test.images[EACH], pixels("n7", 0))


def test_what_tieredimagenet_lacks_is_named(tmp_path: Path) -> None:
    source = tiered_pickles(tmp_path / "pickles")
    with pytest.raises(DataError, match="3 classes, expected 351"):
        prepare_tieredimagenet(source, tmp_path / "stores", quiet)
    images = pickle.loads((source / "val_images_png.pkl").read_bytes())
    (source / "val_images_png.pkl").write_bytes(pickle.dumps(images[:-1]))
    with pytest.raises(DataError, match="does not hold the 8 pictures"):
        tiered(source, tmp_path / "stores")
    (source / "val_images_png.pkl").write_bytes(pickle.dumps([images[0][:50], *images[1:]]))
    with pytest.raises(DataError, match=r"0 of val_images_png\.pkl is broken"):
        tiered(source, tmp_path / "stores")
    (source / "test_labels.pkl").unlink()
    with pytest.raises(DataError, match=r"no test_labels\.pkl"):
        tiered(source, tmp_path / "stores")
    assert not list((tmp_path / "stores").iterdir())


def test_the_whole_picture_is_squashed(tmp_path: Path) -> None:
    """As the released code does: black bands left and right of a wide picture, which a crop at its centre would lose, stay."""
    wide = np.full((40, 120, 3), 255, np.uint8)
    wide[:, :20] = wide[:, -20:] = 0
    source = class_folders(tmp_path / "folders", nested=True)
    for path in source.rglob("*.png"):
        path.write_bytes(png(wide))
    pickles = tiered_pickles(tmp_path / "pickles")
    for split, wnids in WNIDS.items():
        images = [np.frombuffer(png(wide), np.uint8)] * (EACH * len(wnids))
        (pickles / f"{split}_images_png.pkl").write_bytes(pickle.dumps(images))
    assert mini(source, tmp_path / "stores", image=12) == ["miniimagenet"]
    stores = [open_store("miniimagenet", tmp_path / "stores")]
    for given in (source, pickles):
        tiered(given, tmp_path / "stores", image=12)
        stores.append(open_store("tieredimagenet", tmp_path / "stores"))
    for store in stores:
        row = store.splits["test"].images[0, 6, :, 0].astype(int)
        assert row[:1].max() < 30 and row[-1:].max() < 30 and row[4:8].min() > 225
