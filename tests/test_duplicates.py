"""Pictures that are there twice, or nearly so: found, counted, named, left out or refused. Classes that are too small."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lethax import cli
from lethax.data import copies, twins
from lethax.data.folder import left_out, prepare_folder
from lethax.data.store import open_store
from lethax.data.twins import Twins, find_twins
from lethax.errors import DataError


def scenes(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth pictures that differ from each other: uint8 [count, side, side, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse])


def changed(picture: np.ndarray, how: str, tmp_path: Path) -> np.ndarray:
    image = Image.fromarray(picture)
    if how == "jpeg":
        image.save(tmp_path / "again.jpg", quality=40)
        return np.asarray(Image.open(tmp_path / "again.jpg"))
    if how == "brighter":
        return np.asarray(ImageEnhance.Brightness(image).enhance(1.1))
    return np.asarray(image.resize((24, 24)).resize(image.size))


def test_equal_and_nearly_equal_pictures_are_found_through_all_parts(tmp_path: Path) -> None:
    images = scenes(300)
    images[7] = images[290] = images[3]  # three times one
    for row, how in {50: "jpeg", 51: "brighter", 299: "smaller"}.items():
        images[row] = changed(images[row - 40], how, tmp_path)
    images[100], images[101] = 255, 254  # flat: alike, and yet nothing is known of them
    found = find_twins([images[:120], images[120:]])
    assert found == Twins([[3, 7, 290]], [(10, 50), (11, 51), (259, 299)], True)
    assert find_twins([images[:120], images[120:]], bits=0).same == [[3, 7, 290]]


def test_drawings_of_few_strokes_are_no_twins_for_being_mostly_white() -> None:
    drawings = np.full((3, 28, 28, 1), 255, np.uint8)
    drawings[0, 8:20, 13:15] = drawings[1, 8:20, 13:15] = drawings[2, 4:6, 3:9] = 0
    drawings[1, 8, 13] = 255
    assert find_twins([drawings]).near == [(0, 1)]
    small = twins._small(drawings)
    assert int(np.bitwise_count(np.bitwise_xor(*twins.difference_hashes(small)[::2]))) <= 12 < 64


@pytest.mark.parametrize("bits", [0, 1, 4, 8])
def test_bands_find_the_pairs_that_comparing_all_finds(bits: int) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 64, 200, np.uint64)
    for row in range(100, 200):  # some differ from another in up to 9 bits
        flips = random.choice(64, int(random.integers(0, 10)), replace=False)
        hashes[row] = hashes[row - 100] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    distance = np.bitwise_count(hashes[:, None] ^ hashes)
    every = {(a, b) for a, b in itertools.combinations(range(200), 2) if distance[a, b] <= bits}
    candidates = list(twins._candidates(hashes, bits))
    found = {tuple(sorted(pair)) for a, b in candidates for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert len(every) > 5 and every <= found and (bits == 8 or len(found) < 200 * 199 / 2)


def test_a_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "MOST_PAIRS", 5)
    images = np.repeat(scenes(1), 40, 0)
    images[:, 0, 0, 0] = range(40)  # one pixel differs
    found = find_twins([images])
    assert len(found.near) == 5 and not found.whole and not found.same
    monkeypatch.setattr(twins, "_BAND", 3)
    assert sum(len(a) for a, _ in twins._candidates(np.zeros(10, np.uint64), 1)) == 2 * (9 + 8 + 7)
    monkeypatch.setattr(twins, "MOST_PAIRS", 1000)
    assert not find_twins([images]).whole  # some were not compared
    monkeypatch.setattr(twins, "_BAND", 40)
    assert find_twins([images]).whole and len(find_twins([images]).near) == 780


def test_pairs_of_one_class_do_not_hide_those_of_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A series of 30 in one class has 435 pairs; the only one that reaches a test class stands behind them all."""
    monkeypatch.setattr(twins, "MOST_PAIRS", 50)
    images = scenes(2)[[0] * 30 + [1, 1]]
    images[:, 0, 0, 0] = range(32)  # one pixel differs
    plan = {"train": {"a": [f"a{i}" for i in range(30)], "b": ["x"]}, "test": {"c": ["x again"]}}
    found = copies.find_copies(plan, {"train": images[:31], "test": images[31:]}, 6)
    assert found.pairs[0] == ("nearly the same", "in two splits", ("x", "b", "train"), ("x again", "c", "test"))
    assert len(found.pairs) == 51 and not found.whole
    assert str(copies.Copies(found)).startswith(
        "At least 51 pairs of pictures are duplicates; the first is x (b of train)"
    )


def test_a_cut_list_is_not_called_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(twins, "MOST_PAIRS", 1)
    images = scenes(1)[[0] * 4]
    images[:, 0, 0, 0] = range(4)
    for number, name in enumerate(("train/a/1", "train/a/2", "val/b/1", "test/c/1")):
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(path)
    assert prepare(tmp_path / "pictures", tmp_path / "stores") == 0
    said = capsys.readouterr().out
    assert "as many as are kept, and there may be more" in said and "lists all of them. They" not in said


def test_pairs_are_listed_by_the_splits_that_were_drawn_in_the_end(tmp_path: Path, capsys) -> None:
    """`drop` takes class e04 below --least, so that the others are drawn anew."""
    images = scenes(40)
    for c in range(10):
        (tmp_path / "pictures" / f"e{c:02}").mkdir(parents=True)
        for i in range(4):
            shown_again = i == 1 and c in (4, 7, 8)  # the same as picture 0 of the class
            Image.fromarray(images[4 * c + (0 if shown_again else i)]).save(
                tmp_path / "pictures" / f"e{c:02}" / f"{i}.png"
            )
    (tmp_path / "pictures" / "e04" / "3.png").unlink()
    assert prepare(tmp_path / "pictures", tmp_path / "stores", "--duplicates", "drop", "--least", "3") == 0
    store = open_store("own", tmp_path / "stores")
    split_of = {name: split for split, part in store.splits.items() for name in part.classes}
    rows = list(csv.DictReader((store.folder / "duplicates.csv").read_text().splitlines()))
    assert {row["class"] for row in rows} == {"e04", "e07", "e08"} and "e04" not in split_of
    assert all(row["split"] == row["split_of_second"] == split_of.get(row["class"], "left out") for row in rows)
    assert (
        "  e04/0.png (e04, left out) and e04/1.png (e04, left out): same pixels, in one class"
        in capsys.readouterr().out
    )


PLANTED = {  # by file: the scene that it shows
    "train/fox/1.png": 0, "train/fox/2.png": 1, "train/fox/3.png": 1, "train/fox/4.png": 2, "train/fox/lone.png": 11,
    "train/owl/1.png": 3, "train/owl/2.png": 0, "train/owl/3.png": 4,
    "val/emu/1.png": 5, "val/emu/2.png": 6, "val/emu/3.png": 3,
    "test/yak/1.png": 7, "test/yak/2.png": 8, "test/yak/3.jpg": 2,
    "test/elk/1.png": 9, "test/elk/2.jpg": 9,
}  # fmt: skip


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    found = scenes(12)
    for name, scene in PLANTED.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found[scene]).save(path, **({"quality": 40} if path.suffix == ".jpg" else {}))
    return tmp_path / "pictures"


def prepare(source: Path, root: Path, *words: str) -> int:
    args = ["data", "prepare", "folder", "--from", str(source), "--store", "own", "--image", "32", "--root", str(root)]
    return cli.main([*args, *words])


def test_duplicates_are_counted_named_and_listed(planted, tmp_path, capsys) -> None:
    assert prepare(planted, tmp_path / "stores") == 0
    said = capsys.readouterr().out
    store = open_store("own", tmp_path / "stores")
    assert sum(len(split.images) for split in store.splits.values()) == len(PLANTED)
    told = store.manifest["source"]["duplicates"]
    assert told["pairs"] == {
        "same pixels": {"in two splits": 1, "in two classes": 1, "in one class": 1},
        "nearly the same": {"in two splits": 1, "in two classes": 0, "in one class": 1},
    }
    assert "  train/owl/1.png (owl of train) and val/emu/3.png (emu of val): same pixels, in two splits" in said
    assert "  train/fox/4.png (fox of train) and test/yak/3.jpg (yak of test): nearly the same, in two splits" in said
    assert "--duplicates drop leaves them out" in said and str(store.folder / "duplicates.csv") in said.replace(
        "\n", ""
    )
    rows = list(csv.DictReader((store.folder / "duplicates.csv").read_text().splitlines()))
    assert len(rows) == 5 and rows[0]["second"] == "val/emu/3.png" and rows[0]["class_of_second"] == "emu"
    sizes = [line.split() for line in said.splitlines() if line.split() and line.split()[0] in ("train", "val", "test")]
    assert sizes == [
        ["train", "2", "3", "(owl)", "4", "5", "(fox)"], ["val", "1", "3", "(emu)", "3", "3", "(emu)"],
        ["test", "2", "2", "(elk)", "2", "3", "(yak)"],
    ]  # fmt: skip


def test_drop_keeps_the_first_of_a_class_and_nothing_that_is_in_two(planted, tmp_path, capsys) -> None:
    assert prepare(planted, tmp_path / "stores", "--duplicates", "drop", "--least", "2") == 0
    store = open_store("own", tmp_path / "stores")
    reasons = dict(left_out(store))
    assert reasons == {
        "train/fox/1.png": "it is also in another class, as train/owl/2.png",
        "train/owl/2.png": "it is also in another class, as train/fox/1.png",
        "train/fox/3.png": "it has the same pixels as train/fox/2.png",
        "train/owl/1.png": "it is also in another class, as val/emu/3.png",
        "val/emu/3.png": "it is also in another class, as train/owl/1.png",
        "train/fox/4.png": "it is also in another class, as test/yak/3.jpg",
        "test/yak/3.jpg": "it is also in another class, as train/fox/4.png",
        "test/elk/2.jpg": "it is nearly the same as test/elk/1.png",
        "owl/": "this class has 1 picture that are no duplicates, and it takes 2 or more",
        "elk/": "this class has 1 picture that are no duplicates, and it takes 2 or more",
    }
    assert {name: split.classes for name, split in store.splits.items()} == {
        "train": ("fox",), "val": ("emu",), "test": ("yak",)
    }  # fmt: skip
    assert len(list(csv.DictReader((store.folder / "duplicates.csv").read_text().splitlines()))) == 5
    assert "They are left out." in capsys.readouterr().out
    assert not find_twins([split.images for split in store.splits.values()]).same


def test_error_stops_and_leaves_what_was_there(planted, tmp_path, capsys) -> None:
    assert prepare(planted, tmp_path / "stores", "--duplicates", "error") == 1
    said = capsys.readouterr().err
    assert "5 pairs of pictures are duplicates; the first is train/owl/1.png" in said and "--duplicates drop" in said
    assert not list((tmp_path / "stores").glob("*"))
    for name, value in (("--least", "1"), ("--near", "9"), ("--duplicates", "maybe")):
        assert prepare(planted, tmp_path / "stores", name, value) == 2
    assert cli.main(["data", "prepare", "glyphs", "--near", "1", "--root", str(tmp_path / "stores")]) == 2
    assert "only folder does" in capsys.readouterr().err


def test_a_chain_of_near_pictures_keeps_those_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 ~ 2 ~ 3 in one class: 2 goes, and 3 stays, because it is not nearly 1."""
    monkeypatch.setattr(copies, "find_twins", lambda arrays, bits, of: Twins([[2, 3]], [(0, 1), (1, 2)], True))
    plan = {"train": {"a": ["1", "2", "3", "3 again"]}}
    pairs, whole, gone = copies.find_copies(plan, {"train": np.empty(0)}, 4)
    assert gone == {"3 again": "it has the same pixels as 3", "2": "it is nearly the same as 1"} and len(pairs) == 3
    assert whole


def test_least_leaves_small_classes_out_before_the_split(tmp_path: Path) -> None:
    for name, count in {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6}.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (10 * i, 9 * count, 0)).save(tmp_path / "pictures" / name / f"{i}.png")
    prepare_folder(tmp_path / "pictures", tmp_path, lambda *_: None, name="own", image=8, least=4)
    store = open_store("own", tmp_path)
    assert sorted(name for split in store.splits.values() for name in split.classes) == ["c", "d", "e"]
    assert left_out(store) == [
        ("a/", "this class has 2 pictures, and it takes 4 or more"),
        ("b/", "this class has 3 pictures, and it takes 4 or more"),
    ]
    with pytest.raises(DataError, match="has 1 class folder with at least 6 pictures; each of train, val, test"):
        prepare_folder(tmp_path / "pictures", tmp_path, lambda *_: None, name="own", image=8, least=6)
