"""`lethax analyse --what landscape | conflict`: the numbers of the library in a table, a CSV, and a figure."""

import csv
import math
from pathlib import Path

import jax
import numpy as np
import pytest

import lethax
from lethax import cli, streams, trees
from lethax.analysis import landscape
from lethax.evaluation import draw
from lethax.runs.folder import open_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("runs")
    tiny = "--shot 3 --query 4 --steps 2 --epoch 2 --val-episodes 4 --batch 2 --inner-steps 2"
    for method in ("maml", "l2f"):
        assert cli.main(["train", "sinusoid", "--method", method, *tiny.split(), "--out", str(home / method)]) == 0
    return [home / "maml", home / "l2f"]


def analyse(runs: list[Path], what: str, out: Path, *more: str) -> list[dict[str, str]]:
    assert cli.main(["analyse", *map(str, runs), "--what", what, "--tasks", "3", "-o", str(out), *more]) == 0
    assert (out / f"{what}.png").stat().st_size > 5000 and (out / f"{what}.svg").is_file()
    with (out / f"{what}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_landscape(runs: list[Path], tmp_path: Path) -> None:
    rows = analyse(runs, "landscape", tmp_path)
    assert [(row["run"], row["at"]) for row in rows] == [
        (run, at) for run in ("maml", "l2f") for at in ("inner step 0", "inner step 1", "initialisation, 3 tasks")
    ]
    run = open_run(runs[0])
    tasks, source = run.domain.family(run.recipe, "test")
    shape = lethax.EpisodeShape(1, 3, run.recipe.episode.eval_query)
    meta = lethax.best_metas(run, 1)[0][0]
    steps = [run.recipe.inner.rate * multiple for multiple in landscape.MULTIPLES]
    found = []
    for number in range(3):
        episode = jax.tree.map(
            lambda leaf: leaf[0], draw(tasks, shape, 1, source, streams.test_key(0), jax.numpy.asarray(number))
        )
        found.append(landscape.of_inner_steps(run.learner(), meta, episode.support, steps))
    by_hand = trees.mean(found)
    for step in range(2):
        for name in ("loss", "smoothness", "difference_max", "loss_variation"):
            np.testing.assert_allclose(float(rows[step][name]), getattr(by_hand, name)[step], rtol=1e-5)


def test_conflict(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = analyse(runs, "conflict", tmp_path)
    assert len(rows) == 12 and {row["tasks"] for row in rows} == {"3"}
    for row in rows:
        assert 0 <= float(row["between"]) <= math.pi and 0 <= float(row["within"]) <= math.pi
        assert float(row["random"]) == pytest.approx(math.pi / 2)
    assert cli.main(["analyse", str(runs[0]), "--what", "conflict", "--tasks", "1"]) == 1
    assert "give --tasks 2 or more" in " ".join(capsys.readouterr().err.split())
