"""Import of Meta-Dataset's sources, from records and from their own files: miniatures in the published forms."""

import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import metadataset_files as files
import numpy as np
import pytest

from lethax import cli, data
from lethax.data import metadataset
from lethax.data.decode import aligned
from lethax.data.known import FURTHER, METADATASET
from lethax.data.metadataset import annotations, layouts, matlab, tfrecord
from lethax.data.metadataset.example import read_example
from lethax.data.metadataset.facts import published
from lethax.data.metadataset.tfrecord import crc32c, records
from lethax.data.store import Store, open_store, verify_store
from lethax.errors import DataError, RecipeError

GOLDEN = bytes.fromhex(
    "2500000000000000eabc36f30a230a110a05696d61676512080a060a04ffd8ffd90a0e0a056c6162656c12051a030a010741d5f5fb"
)
UNPACKED = bytes.fromhex("0a220a110a05696d61676512080a060a04ffd8ffd90a0d0a056c6162656c12041a020807")
NAMES = lambda value: value if isinstance(value, str) else ""  # noqa: E731
IN_ARCHIVES = ("aircraft", "cu_birds", "dtd", "fungi", "vgg_flower", "traffic_sign", "mscoco")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadataset, "published", files.published)


def prepare(source: str, place: Path, root: Path, **options: int) -> Store:
    (name,) = data.prepare(f"metadataset-{source}", place, root, lambda *_: None, image=16, **options)
    return verify_store(name, root)


def check(source: str, store: Store, tolerance: int, gray: bool = False) -> None:
    """Classes are the published ones in their order, and every picture is where it belongs."""
    names = {split: tuple(part) for split, part in files.named(source).items() if part}
    assert {split: part.classes for split, part in store.splits.items()} == names
    assert store.mean == store.std == (0.5, 0.5, 0.5) and store.manifest["source"]["left_out"] == []
    number = 0
    for part in store.splits.values():
        assert part.images.shape == (files.EACH * len(part.classes), 16, 16, 3)
        for image, (label, place) in zip(part.images, np.ndindex(len(part.classes), files.EACH), strict=True):
            wanted = np.array(files.colour(number + label, place))[[1, 1, 1] if gray else [0, 1, 2]]
            assert np.abs(image.astype(int) - wanted).max() <= tolerance
        number += len(part.classes)


@pytest.mark.parametrize("source", METADATASET)
def test_records(source: str, tmp_path: Path, small: None) -> None:
    check(source, prepare(source, files.write_records(source, tmp_path / "records"), tmp_path), 0)


@pytest.mark.parametrize("source", [source for source in METADATASET if source != "omniglot"])
def test_files(source: str, tmp_path: Path, small: None) -> None:
    lossy = source in ("ilsvrc_2012", "cu_birds", "dtd", "fungi", "vgg_flower")
    check(
        source,
        prepare(source, files.write(source, tmp_path / "files"), tmp_path),
        3 if lossy else 0,
        source == "quickdraw",
    )


def test_files_of_omniglot_are_inverted_and_keep_their_alphabets(tmp_path: Path, small: None) -> None:
    folder = files.write("omniglot", tmp_path / "files")
    with zipfile.ZipFile(folder / "images_evaluation.zip", "w") as archive:  # one part packed, the other not
        for path in (folder / "images_evaluation").rglob("*.png"):
            archive.write(path, path.relative_to(folder).as_posix())
    shutil.rmtree(folder / "images_evaluation")
    store = prepare("omniglot", folder, tmp_path)
    train, test = store.splits["train"], store.splits["test"]
    assert train.superclasses == ("Angle", "Angle") and test.classes == ("Dot-character01",)
    for number, image in enumerate([train.images[0], train.images[3], None, test.images[2]]):
        if image is not None:  # ink, now white, in the columns up to 10 (number + 1) of 105
            columns = np.arange(16) * 104 / 15
            assert (image[:, columns <= 10 * (number + 1) - 1] == 255).all() and (
                image[:, columns >= 10 * (number + 1)] == 0
            ).all()
    assert store.manifest["splits"]["train"]["relations"] == {"within": "superclasses"}


@pytest.mark.parametrize("source", IN_ARCHIVES)
def test_files_in_an_archive(source: str, tmp_path: Path, small: None) -> None:
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(files.write(source, tmp_path / "files"), "top")
    assert (
        prepare(source, tmp_path / "all.tar.gz", tmp_path / "a").identity
        == prepare(source, tmp_path / "files", tmp_path).identity
    )


def test_pictures_beside_those_of_a_source_are_not_taken(tmp_path: Path, small: None) -> None:
    folder = files.write("cu_birds", tmp_path / "files")
    files.save(folder / "CUB_200_2011" / "segmentations" / "001.Some_Bird" / "a.png", files.picture(0, 0))
    assert len(prepare("cu_birds", folder, tmp_path / "a").splits["train"].images) == 6
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            archive.add(folder / "CUB_200_2011", "CUB_200_2011")
    assert len(prepare("cu_birds", tmp_path / "twice.tar", tmp_path / "b").splits["train"].images) == 6


@pytest.mark.parametrize("source, last", [
    ("aircraft", "Next: lethax train metadataset --root ROOT"),
    ("traffic_sign", "It has no training classes. Runs on other sources are judged on it: lethax evaluate RUN"),
])  # fmt: skip
def test_what_an_import_says(
    source: str,
    last: str,
    tmp_path: Path,
    small: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What to do next, and how many pictures are missing, by the name of the folder even where it is given as a dot."""
    facts = files.published(source)
    monkeypatch.setattr(metadataset, "published", lambda name: facts._replace(images=facts.images + 5))
    monkeypatch.chdir(files.write_records(source, tmp_path / "records") / source)
    words = ["data", "prepare", f"metadataset-{source}", "--from", ".", "--image", "16", "--root", str(tmp_path)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"  {source}: it lacks 5 of the {facts.images + 5} pictures that were published\n" in said
    assert said.splitlines()[-1] == last.replace("ROOT", str(tmp_path)) and "Episodes that fit" not in said


def test_duplicates_of_ilsvrc_are_left_out_and_its_graph_is_kept(tmp_path: Path, small: None) -> None:
    folder = files.write("ilsvrc_2012", tmp_path / "files")
    shutil.copy(folder / "n02" / "n02_0.JPEG", folder / "n02" / "n02_9.JPEG")
    files.save(folder / "n77" / "n77_1.JPEG", files.picture(0, 0, "JPEG"))
    store = prepare("ilsvrc_2012", folder, tmp_path)
    assert [entry["name"] for entry in store.manifest["source"]["left_out"]] == ["n02/n02_9.JPEG", "n77/"]
    assert store.manifest["splits"]["train"]["relations"] == {"groups": {"n10": [0, 1, 2], "n11": [0, 1]}}
    del store.manifest["splits"]["train"]["relations"]
    assert store.identity != open_store(store.name, tmp_path).identity, "episodes depend on the graph"


def test_of_large_classes_some_pictures_are_kept(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadataset, "LEAST", 2)
    whole = prepare("dtd", files.write("dtd", tmp_path / "files"), tmp_path / "a").splits["train"]
    store = prepare("dtd", tmp_path / "files", tmp_path, per_class=2)
    train = store.splits["train"]
    assert train.starts.tolist() == [0, 2, 4]
    assert store.manifest["splits"]["train"]["relations"] == {"counts": [3, 3]}
    assert all(any(np.array_equal(image, one) for one in whole.images[:3]) for image in train.images[:2])
    records = prepare("dtd", files.write_records("dtd", tmp_path / "records"), tmp_path, per_class=2)
    assert records.splits["train"].images[0, 0, 0].tolist()[0] == 20 and len(records.splits["test"].images) == 2
    monkeypatch.undo()
    monkeypatch.setattr(metadataset, "published", files.published)
    with pytest.raises(RecipeError, match="--per-class is 2; episodes take up to 510"):
        prepare("dtd", tmp_path / "files", tmp_path, per_class=2)


def test_cifar100_is_for_tests_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = published("cifar100").classes["test"]
    shade = {name: 2 * label for label, name in enumerate(names)}
    for part, each in (("train", 1), ("test", 2)):
        pixels = np.repeat([[shade[name] + each] for name in names] * each, 3072, axis=1).astype(np.uint8)
        content = {b"data": pixels, b"fine_labels": [*range(100)] * each, b"coarse_labels": [0] * 100 * each}
        files.save(tmp_path / part, pickle.dumps(content, 2))
    above = [f"group {i}".encode() for i in range(20)]
    files.save(
        tmp_path / "meta",
        pickle.dumps({b"fine_label_names": [str(n).encode() for n in names], b"coarse_label_names": above}, 2),
    )
    monkeypatch.setattr(layouts, "COUNTS", (1, 2))
    store = prepare("cifar100", tmp_path, tmp_path / "root")
    assert list(store.splits) == ["test"] and list(store.splits["test"].classes) == names == sorted(map(str, names))
    assert store.splits["test"].images[::2, 5, 5, 2].tolist() == [value + 2 for value in shade.values()]


def test_what_is_published() -> None:
    """The counts of the benchmark, classes of all sources together and nodes of its graph."""
    assert set(layouts.LAYOUTS) == {*METADATASET, *FURTHER}
    known = {source: published(source) for source in METADATASET}
    sizes = {split: sum(len(one.classes[split]) for one in known.values()) for split in files.SPLITS}
    assert sizes == {"train": 3144, "val": 598, "test": 1192}
    for one in known.values():
        every = [name for names in one.classes.values() for name in names]
        assert len(set(every)) == len(every)
    assert len(set(known["omniglot"].alphabets.values())) == 50
    assert sum(map(len, known["ilsvrc_2012"].duplicates.values())) == 1_281_167 - known["ilsvrc_2012"].images
    assert {split: len(nodes) for split, nodes in known["ilsvrc_2012"].children.items()} == {
        "train": 299,
        "val": 42,
        "test": 50,
    }


def test_the_golden_record(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(GOLDEN * 2)
    found = list(records(tmp_path / "a"))
    assert found == [GOLDEN[12:-4]] * 2 and files.record(bytes(found[0])) == GOLDEN
    assert list(records(tmp_path / "a", {1})) == [None, found[0]]
    for payload in (found[0], UNPACKED):
        assert read_example(payload) == (b"\xff\xd8\xff\xd9", 7)
    assert read_example(files.piece(9, b"new") + files.example(b"x", -3)) == (b"x", -3), (
        "unknown fields, negative numbers"
    )


def test_checksums() -> None:
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0
    content = np.random.default_rng(0).bytes(1000)
    for size in (*range(1, 20), 63, 64, 65, 999, 1000):
        crc = (crc32c(content[:size]) >> 15 | crc32c(content[:size]) << 17) + 0xA282EAD8
        assert struct.pack("<I", crc & 0xFFFFFFFF) == files.checksum(content[:size])


def spoilt(at: int, value: int) -> bytes:
    return GOLDEN[:at] + bytes([GOLDEN[at] ^ value]) + GOLDEN[at + 1 :]


def endless(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + files.checksum(head) + b"x" * 50


@pytest.mark.parametrize("content, says", [
    (spoilt(20, 1), "has a wrong checksum"), (spoilt(50, 1), "has a wrong checksum"),
    (spoilt(0, 1), "has a length whose checksum is wrong"), (GOLDEN[:30], "claims 37 bytes, where 14 are left"),
    (GOLDEN[:5], "ends within its first 12 bytes"), (GOLDEN[:-1], "claims 37 bytes, where 36 are left"),
    (endless(1 << 60), "claims 1152921504606846976 bytes, more than"), (endless(1 << 20), "claims 1048576 bytes, where 46"),
], ids=NAMES)  # fmt: skip
def test_damaged_records(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "0.tfrecords").write_bytes(GOLDEN + content)
    with pytest.raises(DataError, match=f"record 1 of .*0.tfrecords {says}.*copy or download"):
        list(records(tmp_path / "0.tfrecords"))


@pytest.mark.parametrize("payload, says", [
    (b"", "no entry 'image'"), (b"\x0b\x0c", "wire type 3"),
    (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "claims 9223372036854775807 bytes"),
    (b"\x0a" + b"\xff" * 11, "has no end"), (b"\x08\x01" * 10**6, "more than 100 fields"), (b"\x00", "a field 0"),
    (files.piece(1, files.piece(1, files.piece(1, b"image") + files.piece(2, b"")) * 50), "no entry 'label'"),
    (files.example(b"x", 1)[:-1], "claims"), (b"\xff" * 30, "has no end"),
], ids=NAMES)  # fmt: skip
def test_odd_examples(payload: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_example(payload)


def replace(path: Path, before: bytes, after: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(before, after))


@pytest.mark.parametrize("change, says", [
    (lambda f: (f / "1.tfrecords").unlink(), "1.tfrecords is missing, which has the pictures of .*: copy"),
    (lambda f: replace(f / "dataset_spec.json", b'"0": 3', b'"0": 549755813888'),
     "0.tfrecords has .* bytes, too few for the 549,755,813,888 records"),
    (lambda f: (f / "1.tfrecords").write_bytes((f / "0.tfrecords").read_bytes()), "is labelled 0, expected 1"),
    (lambda f: (f / "0.tfrecords").write_bytes(files.record(files.example(b"\xff\xd8\xff\xd9", 0)) * 3),
     "picture 0.tfrecords, record 0 is broken .*and 2 more"),
    (lambda f: (f / "0.tfrecords").write_bytes(b""), "has 0 bytes, too few for the 3 records that dataset_spec.json"),
    (lambda f: (f / "0.tfrecords").write_bytes((f / "0.tfrecords").read_bytes()[: len((f / "0.tfrecords").read_bytes()) // 3]),
     "has 1 record, but dataset_spec.json says 3|ends within"),
    (lambda f: (f / "0.tfrecords").write_bytes((f / "0.tfrecords").read_bytes() * 2), "has 6 records"),
    (lambda f: replace(f / "dataset_spec.json", b'"woven"', b'"weaved"'),
     "lacks 1 class of the published split, the first being woven"),
    (lambda f: replace(f / "dataset_spec.json", b'"0": 3', b'"0": 99999999999999999999'), "is no specification"),
    (lambda f: replace(f / "dataset_spec.json", b'"0": 3', b'"0": 1'), "has 1 picture of woven; an episode needs two"),
    (lambda f: replace(f / "dataset_spec.json", b"DatasetSpecification", b"Evil"), "its __class__ is Evil, expected one of"),
    (lambda f: (f / "dataset_spec.json").write_text("[" * 100_000), "is no specification"),
    (lambda f: (f / "dataset_spec.json").rename(f / "dataset_spec.pkl"),
     "a pickle may run anything: put the published dataset_spec.json"),
], ids=NAMES)  # fmt: skip
def test_what_is_wrong_with_records(change: object, says: str, tmp_path: Path, small: None) -> None:
    folder = files.write_records("dtd", tmp_path / "records") / "dtd"
    change(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=says) as caught:
        prepare("dtd", folder, tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "metadataset-dtd").exists()


@pytest.mark.parametrize("source, change, says", [
    ("dtd", lambda f: shutil.rmtree(f / "dtd" / "images" / "woven"), "lacks 1 class"),
    ("dtd", lambda f: (f / "dtd" / "images" / "woven" / "woven_0001.jpg").write_text("x"), "woven_0001.jpg is broken"),
    ("omniglot", lambda f: shutil.rmtree(f / "images_evaluation"), "lacks images_evaluation: expected"),
    ("aircraft", lambda f: next(f.rglob("images_box.txt")).unlink(), "has no images_box.txt"),
    ("aircraft", lambda f: next(f.rglob("images_box.txt")).write_text("0000 1 2 8\n"), "the box 1 2 8, expected 4 numbers"),
    ("aircraft", lambda f: next(f.rglob("images_box.txt")).write_text("0000 1 2 8 9\n"), "has no box of 0001"),
    ("aircraft", lambda f: replace(next(f.rglob("images_box.txt")), b"1 2 8 9", b"50 2 80 9"),
     "the box .* has no pixel of its 10 x 12"),
    ("quickdraw", lambda f: np.save(f / "swan.npy", np.zeros((4, 783), np.uint8)),
     r"holds uint8\[4, 783\], expected uint8\[n, 784\]"),
    ("fungi", lambda f: replace(f / "val.json", b'"image_id": 0', b'"image_id": 77'), "gives image 77 the class 7"),
    ("fungi", lambda f: replace(f / "val.json", b'"id": 0, "file_name"', b'"id": "0", "file_name"'),
     "val.json has .* among its images"),
    ("fungi", lambda f: replace(f / "val.json", b"/2.JPG", b"/5.JPG"), "there is no picture .*5.JPG, which val.json names"),
    ("vgg_flower", lambda f: (f / "jpg" / "image_00003.jpg").unlink(), "has no image_00003.jpg, expected 12 pictures of 4 classes"),
    ("vgg_flower", lambda f: (f / "imagelabels.mat").unlink(), "has no imagelabels.mat"),
    ("vgg_flower", lambda f: os.truncate(f / "imagelabels.mat", (1 << 26) + 1), "imagelabels.mat has .*: it was not read"),
    ("mscoco", lambda f: next(f.rglob("*.json")).write_text('{"images": [{"id": 1'),
     "instances_train2017.json is no list of annotations"),
    ("mscoco", lambda f: replace(next(f.rglob("*.json")), b"[5.0, 7.0, 10.0", b"[1e999, 7.0, 10.0"),
     "has the box .*expected 4 numbers"),
], ids=NAMES)  # fmt: skip
def test_what_is_wrong_with_files(source: str, change: object, says: str, tmp_path: Path, small: None) -> None:
    folder = files.write(source, tmp_path / "files")
    change(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=says) as caught:
        prepare(source, folder, tmp_path)
    assert "\n" not in str(caught.value)


def test_aligned_corners() -> None:
    """Corners stay, and what lies between two pixels is on the line between them."""
    ramp = np.arange(5, dtype=np.uint8)[:, None, None] * 40 + np.arange(3, dtype=np.uint8)[None, :, None] * 20
    found = aligned(np.repeat(ramp, 3, axis=2), 9)
    np.testing.assert_array_equal(found[..., 1], np.arange(9)[:, None] * 20 + np.arange(9)[None] * 5)
    assert aligned(np.full((2, 1, 1, 3), 7, np.uint8), 4).shape == (2, 4, 4, 3), "one pixel, and several pictures"
    column = np.array([0, 255, 0, 255, 0], np.uint8).reshape(5, 1, 1)
    assert aligned(column, 3)[:, 0, 0].tolist() == [0, 0, 0], "nothing is averaged"


def test_boxes_of_coco() -> None:
    assert layouts.enlarged([10.0, 20.0, 30.0, 40.0]) == (6, 16, 43, 65), (
        "6.5, 15.5, 42.5 + 1, 63.5 + 1, to even numbers"
    )
    assert layouts.enlarged([0.0, 0.0, 10.0, 10.0]) == (0, 0, 11, 11)


@pytest.mark.parametrize("packed", [True, False])
def test_matlab_files_as_scipy_writes_them(packed: bool, tmp_path: Path) -> None:
    import scipy.io

    given = {"a": "text", "labels": np.arange(12.0).reshape(3, 4), "b": np.ones((2, 2, 2), np.int16)}
    scipy.io.savemat(tmp_path / "a.mat", given, do_compression=packed)
    content = (tmp_path / "a.mat").read_bytes()
    np.testing.assert_array_equal(matlab.read_mat(content, "a.mat", "labels"), given["labels"])
    np.testing.assert_array_equal(matlab.read_mat(content, "a.mat", "b"), given["b"])
    for wrong, name, says in (
        (content, "a", "no real numbers"), (content, "c", "has no array 'c'"), (content[:200], "labels", "expected a MATLAB file"),
        (b"x" * 300, "labels", "does not begin as"), (b"", "labels", "does not begin as"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=says):
            matlab.read_mat(wrong, "a.mat", name)


def test_a_matlab_file_that_claims_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import scipy.io

    scipy.io.savemat(tmp_path / "a.mat", {"labels": np.zeros((1, 100_000))}, do_compression=True)
    monkeypatch.setattr(matlab, "MAT_BYTES", 10_000)
    with pytest.raises(DataError, match="is cut off, or has more than 10000 bytes"):
        matlab.read_mat((tmp_path / "a.mat").read_bytes(), "a.mat", "labels")


def test_annotations_are_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "a": 1.25e2,
        "x": [{"n": i, "text": 'é\\"]}' * i} for i in range(5)],
        "b": {"x": [{"n": 9}]},
        "y": [],
        "z": "[",
    }
    monkeypatch.setattr(annotations, "_PIECE", 3)
    found = list(
        annotations.annotations(json.dumps(content, ensure_ascii=False, indent=1).encode(), "a.json", ("x", "y"))
    )
    assert found == [("x", item) for item in content["x"]]  # type: ignore[attr-defined]
    monkeypatch.setattr(annotations, "ITEM_LETTERS", 20)
    for wrong, says in (
        ('{"x": [{"a": "' + "b" * 100, "an item has more than 20 letters"), ('{"x": [1]}', "is no object"), ("[]", "stands where"),
        ('{"x": [{}', "it ends too early"), ("", "it ends too early"), ('{"x": nope}', "Expecting value"), ("\xff", "codec"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"a.json is no list of annotations.*{says}"):
            list(annotations.annotations(wrong.encode("latin1"), "a.json", ("x",)))


def test_a_record_is_not_believed_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "RECORD_BYTES", 36)
    (tmp_path / "a").write_bytes(GOLDEN)
    with pytest.raises(DataError, match="record 0 of .* claims 37 bytes, more than 36"):
        list(records(tmp_path / "a"))
