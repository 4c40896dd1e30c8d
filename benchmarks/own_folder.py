"""The whole way of a folder of pictures with planted faults: python benchmarks/own_folder.py --data ROOT [--out FILE].

ROOT holds the store cifar_fs. Twenty of its classes become a folder of pictures in which everything is wrong that people meet:
unequal counts, classes that are too small, accents and spaces, five file formats, pictures that are there twice or nearly so, in
one class and in two, broken and foreign files. The folder is prepared, trained on and evaluated beside baselines by the commands
themselves. Then 5 pictures of each of four other classes are given, and 60 of each are predicted: by the run, by features of a
pretrained network, and by each head start.
"""

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lethax.data.store import Store, open_store
from lethax.files import to_json
from lethax.hardware import processor

KINDS = ("png", "jpg", "bmp", "webp", "gif")
COUNTS = (8, 12, 20, 30, 40, 60, 90, 120)  # pictures of the classes, in turn
NAMES = {3: "été fleuri", 7: "grand château", 11: "Straße 4"}
UNSEEN, SUPPORT, QUERY = 4, 5, 60


def draw(store: Store, folder: Path) -> None:
    """The folder with its faults, and beside it the pictures of the classes that it does not have."""
    classes = list(pictures_of(store))
    training, unseen = classes[:20], classes[20 : 20 + UNSEEN]
    for k, (name, pictures) in enumerate(training):
        here = folder / "pictures" / NAMES.get(k, name)
        here.mkdir(parents=True)
        for i, picture in enumerate(pictures[: COUNTS[k % len(COUNTS)]]):
            save(picture, here / f"photo {i:03d}.{KINDS[(i + k) % len(KINDS)]}")
    homes = sorted((folder / "pictures").iterdir())
    for k in range(
        5
    ):  # the same picture in its class and in another one; another picture, saved again, in another class
        first = min(homes[k].glob("*.png"))
        shutil.copy(first, homes[k] / "copy of it.png")
        shutil.copy(first, homes[k + 6] / "strayed.png")
        Image.open(min(homes[k + 10].glob("*.png"))).convert("RGB").save(homes[k + 12] / "again.jpg", quality=60)
    (homes[0] / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (homes[1] / "empty.png").touch()
    (homes[2] / "Thumbs.db").write_bytes(b"\x00" * 40)
    (homes[3] / "notes.txt").write_text("taken in May", encoding="utf-8")
    (folder / "pictures" / "nothing here").mkdir()
    for name, pictures in unseen:
        (folder / "labelled" / name).mkdir(parents=True)
        (folder / "new").mkdir(exist_ok=True)
        for i, picture in enumerate(pictures[: SUPPORT + QUERY]):
            home = folder / "labelled" / name if i < SUPPORT else folder / "new"
            save(picture, home / f"{name}-{i:03d}.png")


def pictures_of(store: Store) -> Iterator[tuple[str, np.ndarray]]:
    """The classes of the test and the validation split, and their pictures."""
    for split in ("test", "val"):
        part = store.splits[split]
        for name, start, end in zip(part.classes, part.starts[:-1], part.starts[1:], strict=True):
            yield name, np.asarray(part.images[start:end])


def save(picture: np.ndarray, path: Path) -> None:
    """One picture, as its ending says."""
    Image.fromarray(picture).save(path, **({"quality": 95} if path.suffix in (".jpg", ".webp") else {}))


def accuracy(table: Path) -> float:
    """The share of files that were given the class that their name begins with."""
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return sum(row["file"].rpartition("-")[0] == row["class"] for row in rows) / len(rows)


def without_episodes(record: Any) -> Any:
    """A record without the score of every single episode."""
    if not isinstance(record, dict):
        return record
    return {name: without_episodes(value) for name, value in record.items() if name != "per_episode"}


class Commands:
    """Runs commands in a folder, and keeps what was typed, what was said and how long it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: list[dict[str, object]] = []

    def __call__(self, line: str) -> str:
        begun = time.perf_counter()
        words = [sys.executable, "-m", *shlex.split(line)]
        result = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        took = time.perf_counter() - begun
        print(f"> {line}   ({took:.0f} s)\n{result.stdout}", flush=True)
        if result.returncode:
            raise SystemExit(result.stderr)
        said = [] if "--json" in line else result.stdout.splitlines()
        self.done.append({"command": line, "seconds": round(took), "said": said})
        return result.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/own-folder.json"))
    parser.add_argument(
        "--work", type=Path, default=Path("own-folder"), help="an empty folder for the pictures and runs"
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--episodes", type=int, default=200)
    args = parser.parse_args()
    draw(open_store("cifar_fs", args.data), args.work)
    run, stores = Commands(args.work), "--root stores"
    run(f"lethax data prepare folder --from pictures --store mine --image 32 --duplicates drop --least 10 {stores}")
    run(f"lethax train mine --method l2f --filters 32 --steps {args.steps} {stores}")
    (trained,) = (args.work / "runs").iterdir()
    name = f"runs/{trained.name}"
    run(f"lethax embed mine --backbone efficientnet-lite0 {stores}")
    judged = {}
    for of, extra in (("pixels", ""), ("efficientnet-lite0", "--features mine-efficientnet-lite0")):
        line = f"lethax evaluate {name} --episodes {args.episodes} --baselines prototype probe {extra} --json {stores}"
        judged[of] = without_episodes(json.loads(run(line))[0])
    found = {}
    heads = [f"{name} --head {head} --norm {norm}" for head in ("trained", "prototypes", "zero", "vector")
             for norm in ("support", "batch")]  # fmt: skip
    for way in [*heads, *(f"--backbone efficientnet-lite0 --classifier {kind}" for kind in ("prototype", "probe"))]:
        run(f"lethax predict {way} --support labelled --query new -o predictions.csv")
        found[way.removeprefix(name).strip()] = accuracy(args.work / "predictions.csv")
    result = {"command": shlex.join(["python", *sys.argv]), "processor": processor().model, "commands": run.done,
              "evaluations": judged, "accuracy_on_unseen_classes": found}  # fmt: skip
    args.out.write_text(to_json(result) + "\n", encoding="utf-8")
    for line, share in found.items():
        print(f"{share:6.1%}  {line}")


if __name__ == "__main__":
    main()
