"""Let it run: `python tests/fuzz.py --minutes 10 --seed 0 [--loader NAME]` gives every loader seeded odd inputs.

An input may be accepted, or refused by a LethaxError (a PictureError within). Anything else, a killed process, a hang, or more
memory than one import may take is reported, and the input is kept. Input n of a seed is always the same.
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import pickletools
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import fuzz_inputs as inputs  # noqa: E402
import metadataset_files as files  # noqa: E402
import numpy as np  # noqa: E402
import safetensors.numpy  # noqa: E402
import scipy.io  # noqa: E402
from opcodes import torch_file  # noqa: E402

from lethax import checkpoint, recipe  # noqa: E402
from lethax.data import cifar, embeddings, miniimagenet, omniglot, split_files, tieredimagenet  # noqa: E402
from lethax.data.archives import Archive  # noqa: E402
from lethax.data.decode import PictureError, decode  # noqa: E402
from lethax.data.metadataset.annotations import annotations  # noqa: E402
from lethax.data.metadataset.matlab import read_mat  # noqa: E402
from lethax.data.metadataset.readers import Chosen, RecordReader  # noqa: E402
from lethax.data.metadataset.spec import Specified, read_spec  # noqa: E402
from lethax.data.pickles import load_pickle  # noqa: E402
from lethax.data.store import open_store  # noqa: E402
from lethax.data.torch_files import read_tensors  # noqa: E402
from lethax.data.writer import StoreWriter  # noqa: E402
from lethax.errors import LethaxError  # noqa: E402
from lethax.recipe.resolve import resolve  # noqa: E402

BUDGET = 2 << 30  # bytes of memory that an import may take beside its store
SLOW = 60  # seconds that an input may take
LONG = 1500  # characters of a message: more would be the file's own content
FILES = {"top/a.png": b"1" * 900, "top/b/c": b"", "top/d": bytes(3000)}
FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@dataclass(frozen=True)
class Loader:
    """name: of the file below the folder that `load` is given; shaped: a change that knows the form."""

    name: str
    seeds: Callable[[], list[bytes]]
    load: Callable[[Path], object]
    shaped: Callable[[random.Random, bytes], bytes]


def quiet(*_: object) -> None:
    pass


def of_pickles(folder: Path) -> None:
    """Read, and given to those who read tables of labels and cached pictures from it."""
    for encoding in ("bytes", "latin1"):
        content = load_pickle(folder / "a.pkl", "a.pkl", encoding)
    for use in (miniimagenet._cache, tieredimagenet._labels):
        with contextlib.suppress(LethaxError):
            use(content, "a.pkl")


PYTHON_2 = (  # of a dict with one array
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x02\x86"
    b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04abcdtbu."
)


def pickle_seeds() -> list[bytes]:
    cached = {"image_data": np.zeros((3, 4, 4, 3), np.uint8), "class_dict": {"n01": [0, 1], "n02": [2]}}
    labels = {"label_specific": np.array([0, 1, 0]), "label_general": [0, 0, 0]}
    names = {"label_specific_str": ["a", "b"], "label_general_str": ["g"]}
    return [PYTHON_2, *inputs.pickles(cached, {**labels, **names}, [b"\0", (1.5, None, True, np.float32(2))])]


@cache
def cifar_parts() -> dict[str, Any]:
    above = cifar.published_split("cifar100_superclasses")
    names = sorted(name for held in above.values() for name in held)
    coarse = [next(i for i, held in enumerate(above.values()) if name in held) for name in names]
    part = {b"data": np.zeros((100, 3072), np.uint8), b"fine_labels": list(range(100)), b"coarse_labels": coarse}
    meta = {b"fine_label_names": [n.encode() for n in names], b"coarse_label_names": [n.encode() for n in above]}
    return {"train": part, "test": part, "meta": meta}


def of_cifar(folder: Path) -> None:
    for name, part in cifar_parts().items():
        if not (folder / name).exists():
            (folder / name).write_bytes(pickle.dumps(part, 2))
    cifar.prepare_cifar100(folder, folder / "root", quiet, per_class=(1, 1))


def of_features(folder: Path) -> None:
    found = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".npz")]
    for split in ("train",) if (folder / "train_features.npy").exists() else ():
        np.save(folder / f"{split}_labels.npy", np.repeat(["a", "b"], 3))
    embeddings.prepare_features(found[0] if found else folder, folder / "root", quiet)


def leo_seeds() -> list[bytes]:
    keys = [f"{i}-n{i % 2}-n{i % 2}_{i}" for i in range(6)]
    lists = {"embeddings": FEATURES.tolist(), "keys": [key.encode() for key in keys]}
    return inputs.pickles({"embeddings": FEATURES, "keys": keys}, lists)


def saved(save: Callable[..., None], *values: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    save(file, *values, **named)
    return file.getvalue()


def tensor_seeds() -> list[bytes]:
    train = {"train/features": FEATURES, "train/labels": np.arange(6) % 2}
    arrays = {**train, "val/features": FEATURES, "val/labels": np.arange(6) % 3}
    names = json.dumps({"train": ["a", "b"], "val": ["c", "d", "e"]})
    return [safetensors.numpy.save(arrays, metadata) for metadata in (None, {"classes": names})]


def npz_seeds() -> list[bytes]:
    arrays = {"features": FEATURES, "labels": np.arange(6), "split": np.repeat(["train", "val"], 3)}
    return [saved(save, **arrays) for save in (np.savez, np.savez_compressed)]


def npy_seeds() -> list[bytes]:
    return [saved(np.save, array) for array in (FEATURES, np.asfortranarray(FEATURES.astype(">f8")))]


def of_split(folder: Path) -> None:
    text = (folder / "split").read_bytes()
    ending = "json" if text[:1] in b"{[" else "csv"
    (folder / f"a.{ending}").write_bytes(text)
    split_files.read_split(folder / f"a.{ending}")


@cache
def recipe_seeds() -> list[bytes]:
    """With sections, of all kinds of values; and flat, as before there were sections."""
    given = (("sinusoid", "l2f"), ("navigation", "maml"), ("cifar_fs", "mumomaml+l2f"), ("mini_leo", "leo"))
    whole = [recipe.dump(resolve(recipe.Recipe(data, method))).encode() for data, method in given]
    return [
        *whole,
        b'data = "sinusoid"\nmethod = "l2f"\nshot = 5\ngate_fixed = [0.5, 1]\nrl_horizon = 7\nrotate = true\n',
    ]


def of_recipe(folder: Path) -> None:
    """Read, and resolved."""
    resolve(recipe.load(folder / "a.toml"))


TREE = {"weights": {"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 3), np.int32)}}


def checkpoint_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "a", TREE, {"step": 5, "best": [0.5, None], "name": "a"})
        return [(Path(folder) / "a").read_bytes()]


def of_checkpoint(rng: random.Random, blob: bytes) -> bytes:
    """The header changed, or its info alone, under a checksum that fits."""
    if rng.random() < 0.3:
        return inputs.of_header(rng, blob)
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    meta = header["__metadata__"]
    meta["info"] = inputs.of_json(rng, meta["info"].encode()).decode("utf-8", "replace")
    meta["sha256"] = checkpoint._digest(
        {"weights/a": TREE["weights"]["a"], "weights/b": TREE["weights"]["b"]}, meta["info"]
    )
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + blob[8 + size :]


@cache
def store_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(Path(folder), "tiny", mean=(0.5,), std=(0.25,), source={}) as writer:
            writer.split("train", (4, 5, 1), [("a", "x", 3), ("b", "", 2)])[:] = 7
        return {path.name: path.read_bytes() for path in (Path(folder) / "tiny").iterdir()}


def of_store(folder: Path) -> None:
    for name, content in store_files().items():
        if name != "manifest.json":
            (folder / "tiny" / name).write_bytes(content)
    open_store("tiny", folder)


def omniglot_seeds() -> list[bytes]:
    from PIL import Image

    drawing = saved(lambda file: Image.new("1", (105, 105), 1).save(file, "PNG"))
    return inputs.zips({f"images_background/Bow/character01/0001_0{n}.png": drawing for n in (1, 2)})


def of_records(folder: Path) -> None:
    list(RecordReader(folder, {"a": Specified(7, 2)}).jobs([Chosen(0, "a", np.arange(2))]))


def of_record(rng: random.Random, blob: bytes) -> bytes:
    """An example changed, under checksums that fit."""
    example = files.example(b"picture", 7)
    return blob[: len(blob) // 2] + files.record(inputs.blind(rng, example, [example]))


def annotation_seeds() -> list[bytes]:
    items = [{"id": i, "bbox": [0.5, 1e3, i, 2], "segmentation": [[1.5] * 9]} for i in range(4)]
    return [
        json.dumps({"info": {"year": 2017}, "x": items, "n": 1.5, "empty": []}, indent=indent).encode()
        for indent in (None, 1)
    ]


def spec_seeds() -> list[bytes]:
    flat = {
        "__class__": "DatasetSpecification",
        "class_names": {"0": "a", "1": "b"},
        "images_per_class": {"0": 5, "1": {"t": 3}},
    }
    nodes = {"TRAIN": {"n1": 5, "n2": 3}, "TEST": {"n3": 1}}
    graph = {"__class__": "HierarchicalDatasetSpecification", "class_names": {"0": "n1"}, "images_per_class": nodes}
    return [json.dumps(flat).encode(), json.dumps(graph).encode()]


def matlab_seeds() -> list[bytes]:
    given = {"text": "a", "labels": np.arange(12, dtype=np.uint8).reshape(3, 4)}
    return [saved(scipy.io.savemat, given, do_compression=packed) for packed in (False, True)]


def torch_seeds() -> list[bytes]:
    return [torch_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.array(3)})]


def of_torch(rng: random.Random, blob: bytes) -> bytes:
    """One of the pickles of a file of tensors changed, or any of its bytes."""
    ends = [0]
    file = io.BytesIO(blob)
    for _ in range(5):
        list(pickletools.genops(file))
        ends.append(file.tell())
    at = rng.randrange(6)
    if at == 5:
        return inputs.blind(rng, blob, [blob])
    return blob[: ends[at]] + inputs.of_pickle(rng, blob[ends[at] : ends[at + 1]]) + blob[ends[at + 1] :]


SPLITS = [b'{"train": ["a", "b"], "val": ["c"], "test": ["d"]}', b'class,split\na,train\nb,val\n"c,d",test\n']

LOADERS = {
    "pickle": Loader("a.pkl", pickle_seeds, of_pickles, inputs.of_pickle),
    "torch": Loader("a.pth", torch_seeds, lambda f: read_tensors(f / "a.pth", "a.pth"), of_torch),
    "leo": Loader("train_embeddings.pkl", leo_seeds, of_features, inputs.of_pickle),
    "cifar": Loader("train", lambda: inputs.pickles(cifar_parts()["train"])[2:], of_cifar, inputs.of_pickle),
    "omniglot": Loader(
        "a.zip", omniglot_seeds, lambda f: omniglot._read(f / "a.zip", "images_background", quiet, 0.0), inputs.of_zip
    ),
    "tar": Loader("a.tar", lambda: inputs.tars(FILES), lambda f: list(Archive(f / "a.tar").items()), inputs.of_tar),
    "zip": Loader("a.zip", lambda: inputs.zips(FILES), lambda f: list(Archive(f / "a.zip").items()), inputs.of_zip),
    "picture": Loader("a.png", inputs.pictures, lambda f: decode(f / "a.png", 16), inputs.of_png),
    "safetensors": Loader("a.safetensors", tensor_seeds, of_features, inputs.of_header),
    "npz": Loader("a.npz", npz_seeds, of_features, inputs.of_zip),
    "npy": Loader("train_features.npy", npy_seeds, of_features, inputs.of_npy),
    "split": Loader("split", lambda: SPLITS, of_split, inputs.of_json),
    "recipe": Loader("a.toml", recipe_seeds, of_recipe, inputs.of_text),
    "checkpoint": Loader(
        "a.safetensors", checkpoint_seeds, lambda f: checkpoint.load(f / "a.safetensors", TREE), of_checkpoint
    ),
    "records": Loader("7.tfrecords", lambda: [2 * files.record(files.example(b"picture", 7))], of_records, of_record),
    "annotations": Loader(
        "a.json", annotation_seeds, lambda f: list(annotations(f / "a.json", "a.json", ("x",))), inputs.of_json
    ),
    "spec": Loader("a.json", spec_seeds, lambda f: read_spec(f / "a.json"), inputs.of_json),
    "matlab": Loader(
        "a.mat",
        matlab_seeds,
        lambda f: read_mat((f / "a.mat").read_bytes(), "a.mat", "labels"),
        lambda rng, blob: inputs.blind(rng, blob, [blob]),
    ),
    "store": Loader("tiny/manifest.json", lambda: [store_files()["manifest.json"]], of_store, inputs.of_json),
}


def made(loader: Loader, seeds: list[bytes], name: str, seed: int, number: int) -> bytes:
    """Input `number` of a seed."""
    rng = random.Random(f"{name} {seed} {number}")
    blob = rng.choice(seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are twice in an archive
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            try:
                blob = loader.shaped(rng, blob) if rng.random() < 0.6 else inputs.blind(rng, blob, seeds)
            except Exception:  # a form that is broken already
                blob = inputs.blind(rng, blob, seeds)
    return blob


def tried(loader: Loader, blob: bytes, folder: Path) -> tuple[str, str]:
    """(outcome, kind): "accepted", "refused" or "other" of one input, in a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / loader.name
    path.parent.mkdir(parents=True)
    path.write_bytes(blob)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader.load(folder)
    except (LethaxError, PictureError) as error:
        if len(str(error)) > LONG:
            return "other", f"a message of {len(str(error))} characters: {str(error)[:200]}"
        text = re.sub(r"'[^']*'|\S*/\S*|\d+|\\\S+", "_", str(error))
        return "refused", f"{type(error).__name__}: {' '.join(text.split()[:6])}"
    except BaseException as error:  # what this is all about
        return "other", f"{type(error).__name__}: {str(error)[:200]}"
    return "accepted", ""


def peak() -> int:
    """Bytes of memory that are not of a file, at most since the last call."""
    text = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", text)[0])


def work(name: str, seed: int, pipe: Connection) -> None:
    """Try the inputs whose numbers come through the pipe."""
    loader, folder = LOADERS[name], Path(tempfile.mkdtemp(prefix="lethax-fuzz-"))
    seeds = loader.seeds()
    tried(loader, seeds[0], folder)
    peak()
    base = peak()
    try:
        while (number := pipe.recv()) is not None:
            blob = made(loader, seeds, name, seed, number)
            begin = time.monotonic()
            outcome, kind = tried(loader, blob, folder)
            pipe.send((outcome, kind, peak() - base, time.monotonic() - begin))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    memory: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    found: list[str] = field(default_factory=list)


def fuzz(name: str, seed: int, seconds: float, keep: Path, count: int | None = None) -> Report:
    """Give one loader inputs for some seconds, or `count` of them."""
    report, begin, number = Report(), time.monotonic(), 0
    forked = multiprocessing.get_context("fork")  # all is imported already
    process: Any = None
    while (time.monotonic() - begin < seconds) if count is None else number < count:
        if process is None:
            pipe, other = forked.Pipe()
            process = forked.Process(target=work, args=(name, seed, other), daemon=True)
            process.start()
            other.close()
        problem = ""
        try:
            pipe.send(number)
            if pipe.poll(SLOW if number else 10 * SLOW):
                outcome, kind, memory, took = pipe.recv()
                report.memory, report.slowest = max(report.memory, memory), max(report.slowest, took)
                problem = f"{memory >> 20} MiB of memory" if memory > BUDGET else kind if outcome == "other" else ""
            else:
                outcome, kind, problem = "other", "hang", f"no end after {SLOW} s"
        except (EOFError, OSError):
            process.join(5)
            outcome, kind, problem = "other", "killed", f"the process ended with {process.exitcode}"
        report.outcomes[outcome] += 1
        if outcome == "refused":
            report.kinds[kind] += 1
        if problem:
            keep.mkdir(parents=True, exist_ok=True)
            blob = made(LOADERS[name], LOADERS[name].seeds(), name, seed, number)
            path = keep / f"{name}-{hashlib.sha256(blob).hexdigest()[:10]}"
            path.write_bytes(blob)
            report.found.append(f"{name} {number}: {problem} ({path})")
        if kind in ("hang", "killed"):
            process.kill()
            process = None
        number += 1
    if process:
        pipe.send(None)
        process.join(10)
    report.seconds = time.monotonic() - begin
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all loaders together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader", choices=LOADERS, help="this one alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for inputs that found something")
    args = parser.parse_args()
    names = [args.loader] if args.loader else list(LOADERS)
    columns = f"{'accepted':>8} {'refused':>8} {'kinds':>5} {'other':>5} {'MiB':>5} {'slowest s':>9} {'seconds':>7}"
    print(f"{'loader':12} {'inputs':>8} {columns}")
    reports = []
    for name in names:
        report = fuzz(name, args.seed, 60 * args.minutes / len(names), args.keep)
        reports.append(report)
        counts = [report.outcomes[outcome] for outcome in ("accepted", "refused")]
        print(
            f"{name:12} {report.outcomes.total():8} {counts[0]:8} {counts[1]:8} {len(report.kinds):5} {report.outcomes['other']:5} "
            f"{report.memory >> 20:5} {report.slowest:9.2f} {report.seconds:7.0f}",
            flush=True,
        )
        for kind, times in report.kinds.most_common(5):
            print(f"    {times:7} {kind}")
        for line in report.found[:20]:
            print(f"  ! {line}", flush=True)
    print(
        f"{sum(report.outcomes.total() for report in reports)} inputs, {sum(len(report.found) for report in reports)} findings"
    )
    return 1 if any(report.found for report in reports) else 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
