"""A short run on drawn pictures, and folders of others to adapt to and to predict: for tests of what one does with a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lethax import cli
from lethax.data import loose
from lethax.methods.fast import NormMode
from lethax.runs import adapted
from lethax.runs.folder import open_run

SIDE = 16


def draw(folder: Path, name: str, seed: int, count: int) -> None:
    """Pictures of one class: a stripe whose place is the class, with noise."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        picture = random.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
        picture[:, 3 * seed % SIDE : 3 * seed % SIDE + 3] = 250
        Image.fromarray(picture).save(place / f"{i}.png")


def make(home: Path) -> Path:
    """Make a short run on 15 classes of pictures, labelled pictures of three new ones, and others to predict."""
    for i in range(15):
        draw(home / "pictures", f"class{i}", i, 6)
    for i, (name, count) in enumerate([("é clair", 4), ("=owl", 2), ("plain", 3)]):
        draw(home / "support", name, i, count)
        draw(home / "query", name, i, 13)
    (home / "query" / "plain" / "broken.png").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHAX_DATA", str(home / "data"))
        words = ["data", "prepare", "folder", "--from", str(home / "pictures"), "--store", "own", "--image", str(SIDE)]
        assert cli.main(words) == 0
        tiny = "own --method l2f --way 3 --shot 2 --query 2 --filters 4 --inner-steps 2 --batch 1 --steps 1 --epoch 1"
        assert cli.main(["train", *tiny.split(), "--val-episodes", "2", "--out", str(home / "run")]) == 0
    return home  # from here on the data set is not known: nothing may ask for it


def adapted_to(picture_run: Path, norm: NormMode) -> tuple[adapted.Adapted, np.ndarray]:
    """The run adapted to the labelled pictures, and the pictures to predict."""
    run = open_run(picture_run / "run")
    assert run.inputs is not None
    examples = loose.labelled(picture_run / "support", run.inputs.example, lambda *_: None)
    return adapted.adapt_run(run, examples, norm=norm), loose.pictures(
        picture_run / "query", run.inputs.example, lambda *_: None
    ).images
