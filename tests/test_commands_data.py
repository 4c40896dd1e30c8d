"""What `lethax data` says: the report of an import, and the command with which to go on."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lethax import cli
from lethax.cli.program import parsed
from lethax.cli.train import asked
from lethax.data.store import open_store
from lethax.data.writer import StoreWriter
from lethax.recipe.resolve import fit
from lethax.runs.making import checked


def pictures(root: Path, counts: dict[str, int]) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (10 * number, 10 * i, 50)).save(root / name / f"{i}.png")
    return root


def prepare(capsys: pytest.CaptureFixture[str], source: Path, root: Path, *options: str) -> list[str]:
    args = ["data", "prepare", "folder", "--from", str(source), "--store", "own", "--image", "16", "--root", str(root)]
    assert cli.main([*args, *options]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("preparing")]


def test_a_plain_import_ends_with_a_command_that_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "pictures", {f"class {c:02}": 20 for c in range(20)})
    root = tmp_path / "my stores"
    lines = prepare(capsys, source, root)
    assert lines[0].startswith(
        "own: train 10 classes, 200 images; val 5 classes, 100 images; test 5 classes, 100 images"
    )
    assert lines[1:] == [
        "Episodes that fit all splits: at most 5-way, because val has 5 classes; shot and query together at most 20, because class "
        f"'{open_store('own', root).splits['test'].classes[0]}' of test has 20 examples.",
        f"Next: lethax train own --root '{root}'",
    ]
    passes(lines[-1], monkeypatch)


def passes(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the command that was printed is taken: its recipe fits the data, the episodes and a net."""
    args = parsed(shlex.split(line.removeprefix("Next: lethax ")))
    monkeypatch.setenv("LETHAX_DATA", str(args.root))
    checked(fit(asked(args))[0])


def test_small_classes_are_named_and_the_command_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "pictures", {f"c{c}": 4 + c for c in range(12)})
    lines = prepare(capsys, source, tmp_path / "stores")
    assert any(line.startswith("12 classes are too small for 5 shots and 15 queries: c0 (") for line in lines)
    assert lines[-1] == f"Next: lethax train own --root {tmp_path / 'stores'}"
    assert not any("--least" in line for line in lines)  # only four classes would be left
    passes(lines[-1], monkeypatch)


def test_small_classes_may_be_left_out_where_enough_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "pictures", {f"c{c}": 3 if c == 0 else 20 for c in range(7)})
    assert any("add --least 20." in line for line in prepare(capsys, source, tmp_path / "stores"))
    source = pictures(tmp_path / "few", {f"c{c}": 3 if c < 2 else 20 for c in range(7)})
    assert not any("--least" in line for line in prepare(capsys, source, tmp_path / "stores"))
    args = ["data", "prepare", "folder", "--from", str(source), "--store", "own", "--root", str(tmp_path / "stores")]
    assert cli.main([*args, "--least", "21"]) == 1
    assert (
        "is left for the split 'train'" in (said := capsys.readouterr().err)
        and "add pictures, or lower --least." in said
    )


def test_all_that_is_not_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "pictures", {name: 2 for name in ("tiger", "Tiger", "cat", "[red]dog", "broken")})
    pictures(source, {"single": 1})
    for picture in (source / "broken").iterdir():
        picture.write_text("no picture")
    (source / "cat" / "dead.png").symlink_to("nothing.png")
    (source / "cat" / "without").write_bytes((source / "cat" / "0.png").read_bytes())
    (source / "empty").mkdir()
    (source / "cat" / "odd\x1b[31m\nname.xcf").touch()
    for i in range(30):
        (source / "cat" / f"{i}.xml").touch()
    lines = prepare(capsys, source, tmp_path / "stores")
    told = lines[
        lines.index(f"These were not taken ({tmp_path / 'stores' / 'own' / 'manifest.json'} lists all of them):") + 1 :
    ]
    assert set(told[:8]) == {
        "  broken/: all pictures of this class are broken", "  single/: this class has 1 picture, and it takes 2 or more",
        "  cat/dead.png: it is a link to nothing", "  cat/without: it has no ending that says what it is",
        "  empty/: there are no pictures in it that are read", "  cat/odd\\x1b[31m\\nname.xcf: the ending .xcf is not read",
        "  broken/0.png: it is broken: not a JPEG, PNG, WebP, BMP, PPM, GIF or TIFF picture",
        "  broken/1.png: it is broken: not a JPEG, PNG, WebP, BMP, PPM, GIF or TIFF picture",
    }  # fmt: skip
    assert (
        all("xml is not read" in line for line in told[8:20])
        and told[20] == "  and 18 more: 18 (the ending .xml is not read)"
    )
    assert told[21] == "Class names that differ only in upper and lower case stay separate classes: Tiger, tiger."
    assert "[red]dog (" in "".join(told[22:])


def test_where_nothing_can_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(
        tmp_path / "pictures", {f"{split}/{c}{split}": 1 for split in ("train", "val", "test") for c in "ab"}
    )
    assert (
        "lethax train needs two classes in every split, with two examples each"
        in prepare(capsys, source, tmp_path / "stores")[-1]
    )
    source = pictures(tmp_path / "again", {f"{split}/{c}{split}": 2 for split in ("train", "test") for c in "ab"})
    assert (
        "lethax train needs a train and a val split; this has no val"
        in prepare(capsys, source, tmp_path / "stores")[-1]
    )


def test_features_are_trained_by_leo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val", "test"):
        np.save(tmp_path / f"{split}_features.npy", np.ones((40, 3), np.float32))
        np.save(tmp_path / f"{split}_labels.npy", np.array([f"{split}{i // 20}" for i in range(40)]))
    assert (
        cli.main(["data", "prepare", "features", "--from", str(tmp_path), "--store", "own", "--root", str(tmp_path)])
        == 0
    )
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Next: lethax train own --method leo+l2f --root {tmp_path}"
    passes(last, monkeypatch)


def test_verify_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoreWriter(tmp_path, "own", mean=(0.5,), std=(0.5,), source={}) as writer:
        writer.split("train", (2, 2, 1), [("a", "", 1)])[:] = 7
    assert cli.main(["data", "verify", "own", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "own: every part is as it was written\n"
    path = tmp_path / "own" / "manifest.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    assert cli.main(["data", "verify", "own", "--root", str(tmp_path)]) == 1
    assert "manifest.json was changed after it was written" in capsys.readouterr().err
    assert (
        cli.main(["data", "verify", "glyphs", "--root", str(tmp_path)]) == 1
    )  # what is to be typed goes to the same folder
    assert f"Make it with: lethax data prepare glyphs --root {tmp_path} (" in capsys.readouterr().err
    assert cli.main(["data", "list", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"own: {path.parent} is damaged")


def test_a_text_file_is_no_archive_and_a_bad_name_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("my pictures are elsewhere")
    assert cli.main(["data", "prepare", "folder", "--from", str(tmp_path / "notes.txt")]) == 1
    said = capsys.readouterr().err
    assert (
        "notes.txt is neither a folder nor a .zip or .tar" in said and "it begins with 'my pictures are else'" in said
    )
    monkeypatch.setattr("lethax.data.folder.Tree", None)  # nothing is looked at
    args = ["data", "prepare", "folder", "--from", str(tmp_path), "--store"]
    for name, says in {
        "Not a name": "no name for a data set",
        "": "'' is no name for a data set: use lower-case letters, digits, - and _; choose one with --store.",
        "sinusoid": "the name of tasks that lethax makes",
    }.items():
        assert cli.main([*args, name]) == 1
        assert says in capsys.readouterr().err
