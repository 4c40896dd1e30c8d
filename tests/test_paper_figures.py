"""The figures of the paper: fits of curves, what probes found, and `lethax reproduce` from nothing to the files."""

import csv
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import MAML, MLP, SGD, EpisodeShape, SquaredError, cli
from lethax.analysis import regression
from lethax.data import curves
from lethax.domains import supervised
from lethax.errors import RunError
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.report import cells, figure_files, fit_figures, paper_figures, probe_figures
from lethax.report.paper_figures import PaperFigure
from lethax.runs import jobs
from lethax.runs.folder import Run


def test_every_figure_compares_maml_and_l2f_in_one_setting():
    for figure in paper_figures.FIGURES.values():
        assert figure.drawing in figure_files.DRAWINGS
        for data in figure.cells:
            found = [cell for name in figure.cells_on(data) for cell in cells.find(name)]
            assert {cell.recipe.method for cell in found} == {"maml", "l2f"} and {
                cell.recipe.data for cell in found
            } == {data}
            assert 2 * len({cell.setting() for cell in found}) == len(found)
    shots = [
        resolve(cells.find(name)[0].recipe).episode.shot for name in paper_figures.FIGURES["figure-a"].cells_on(None)
    ]
    assert shots == [5, 5] and paper_figures.named("Figure_A") is paper_figures.FIGURES["figure-a"]
    assert paper_figures.named("figure-f") is None and cells.find("figure-f")[0].table == "navigation"


def test_the_help_names_every_figure(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(name in said for name in (*paper_figures.FIGURES, "figure-f is the table navigation"))


def test_fits_are_paths_on_curves_that_shots_share(key):
    """The outputs are those of `path` at the sorted points, and 3 and 5 shots have the same curves with points of their own."""
    tasks, _, ranges = curves.family("sinusoid")
    learner = MAML(MLP(hidden=(6,)), SquaredError(), rule=SGD(rate=0.1), steps=1)
    meta = learner.init(jax.random.key(1))
    few, more = (
        regression.fits(learner, meta, tasks, ranges, EpisodeShape(1, shot, 20), key, curves=2, steps=2)
        for shot in (3, 5)
    )
    assert few.support.x.shape == (2, 3, 1) and few.outputs.shape == (2, 3, 20)
    assert np.all(np.diff(few.query.x[..., 0], axis=1) >= 0)
    episode = tasks.draw(ranges, EpisodeShape(1, 3, 20), jax.random.fold_in(key, 1))
    order = np.argsort(episode.query.x[:, 0])
    path = learner.path(meta, episode, 2)[0][:, order, 0]
    np.testing.assert_allclose(few.outputs[1], path, rtol=1e-5, atol=1e-6)
    wanted = np.mean(np.square(path - episode.query.y[order, 0]), axis=1)
    np.testing.assert_allclose(few.errors()[1], wanted, rtol=1e-5)
    for curve in range(2):  # A sin(ω x + φ) is known by its parameters, which the key of the curve gives
        parameters = jax.random.split(jax.random.fold_in(key, curve), 4)[1]
        a, omega, phase, _ = jax.random.uniform(parameters, (4,), minval=ranges.low[0], maxval=ranges.high[0])
        for fits in (few, more):
            np.testing.assert_allclose(
                fits.query.y[curve], a * jnp.sin(omega * fits.query.x[curve] + phase), rtol=1e-4, atol=1e-5
            )


def line(step, split="train", at=1.0):
    """A line of the probe "landscape" with two inner steps, whose means are 2 · `at` beside 5 at the initialisation."""
    return {
        "step": step, "probe": "landscape", "split": split, "tasks": 4,
        **{name: [at, 3 * at] for name in probe_figures.MEASURES}, "initialisation": dict.fromkeys(probe_figures.MEASURES, 5.0),
    }  # fmt: skip


def probed(folder, lines, method="maml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "probes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return Run(folder, resolve(Recipe.of(data="sinusoid", method=method, shot=5)), None)


def test_rows_are_what_the_probes_say(tmp_path):
    run = probed(tmp_path, [line(0), line(0, "val", 7.0), line(20, at=2.0), {**line(40), "smoothness": [None, 1.0]}])
    of = lambda name: figure_files.DRAWINGS[name].numbers([run]).rows  # noqa: E731
    training, validation, start = of("training tasks"), of("validation tasks"), of("initialisation")
    assert [(row["step"], row["loss_variation"], row["tasks"]) for row in training] == [
        (0, 2.0, 4),
        (20, 4.0, 4),
        (40, 2.0, 4),
    ]
    assert math.isnan(training[2]["smoothness"]) and [row["smoothness"] for row in training[:2]] == [2.0, 4.0]
    assert [(row["step"], row["difference_max"]) for row in validation] == [(0, 14.0)]
    assert [row["difference_mean"] for row in start] == [5.0, 5.0, 5.0]
    with pytest.raises(RunError, match="without the probe conflict.*another --out"):
        of("conflict")


def test_conflict_has_a_row_for_each_tensor(tmp_path):
    angles = {name: [float(i), i + 0.5] for i, name in enumerate(probe_figures.ANGLES)} | {"within": [None, 1.25]}
    run = probed(
        tmp_path,
        [{"step": 3, "probe": "conflict", "split": "train", "tasks": 16, "tensors": ["a/weight", "a/bias"], **angles}],
    )
    first, second = figure_files.DRAWINGS["conflict"].numbers([run]).rows
    assert (first["tensor"], first["between"], first["random"], second["within"]) == ("a/weight", 0.0, 4.0, 1.25)
    assert math.isnan(first["within"]) and {first["step"], first["tasks"], first["method"]} == {3, 16, "maml"}
    figure = probe_figures.draw_conflict([first, second], "title")
    assert [axes.get_title() for axes in figure.axes] == ["a/weight"]  # biases are in the CSV alone


def test_lines_are_smoothed_only_where_they_are_long_and_the_legend_says_so(tmp_path):
    """The thick line is the mean of five neighbours; what was measured stays in the picture."""
    values = [float(i % 3) for i in range(16)]
    run = probed(tmp_path, [line(i, at=value / 2) for i, value in enumerate(values)])
    rows = probe_figures.along_the_inner_steps([run], "train").rows
    figure = probe_figures.draw_landscape(rows, "title")
    raw, smooth = figure.axes[0].get_lines()
    np.testing.assert_allclose(raw.get_ydata(), values)
    wanted = [np.mean(values[max(i - 2, 0) : i + 3]) for i in range(16)]
    np.testing.assert_allclose(smooth.get_ydata(), wanted)
    assert "mean of 5 neighbouring" in figure.legends[0].get_title().get_text()
    short = probe_figures.draw_landscape(rows[:5], "title")
    assert len(short.axes[0].get_lines()) == 1 and "mean of" not in short.legends[0].get_title().get_text()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two figures of the same two runs: one of probes, one of fits."""
    folder = tmp_path / "recipes" / "table_x"
    folder.mkdir(parents=True)
    for method in ("maml", "l2f"):
        text = (
            f'data = "sinusoid"\nmethod = "{method}"\nshot = 3\nfilters = 4\nepoch = 4\nval_episodes = 2\nquery = 4\n'
        )
        (folder / f"{method}.toml").write_text(text)
    runs = {"sinusoid": ("table_x/maml", "table_x/l2f")}
    found = {
        "figure-a": PaperFigure("figure-a", "Probes", runs, "training tasks", ("landscape",)),
        "figure-d": PaperFigure("figure-d", "Fits", runs, "fits"),
    }
    monkeypatch.setattr(cells, "FOLDER", folder.parent)
    monkeypatch.setattr(paper_figures, "FIGURES", found)
    monkeypatch.setattr(supervised, "CHUNK", 4)
    monkeypatch.setattr(fit_figures, "JUDGED", 4)
    monkeypatch.setattr(fit_figures, "POINTS", 6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_figures_from_nothing(small, capsys, monkeypatch):
    assert cli.main(["reproduce", "figure-a", "figure-d", "--steps", "8", "--probe-every", "4"]) == 0
    results = small / "results"
    assert {path.name for path in results.iterdir()} == {
        f"figure-{letter}.{kind}" for letter in "ad" for kind in ("json", "csv", "png", "svg")
    }
    record = json.loads((results / "figure-a.json").read_text())
    assert [(run["method"], run["outer_steps"], run["seed"]) for run in record["runs"]] == [
        ("maml", 8, 0),
        ("maml+l2f", 8, 0),
    ]
    sheet = list(csv.DictReader((results / "figure-a.csv").read_text().splitlines()))
    assert [[row[name] for name in ("method", "step")] for row in sheet] == [
        [m, s] for m in ("maml", "maml+l2f") for s in "048"
    ]
    folder = small / "runs/reproduce/table_x/l2f/steps8-seed0"
    lines = [json.loads(text) for text in (folder / "probes.jsonl").read_text().splitlines()]
    of_l2f = [np.mean(one["smoothness"]) for one in lines if one["split"] == "train"]
    np.testing.assert_allclose([float(row["smoothness"]) for row in sheet[3:]], of_l2f, rtol=1e-5)
    assert [list(map(str, row)) for row in record["rows"]] == [list(row.values()) for row in sheet]
    assert "8 outer steps (0.016 % of the published budget)" in (results / "figure-a.svg").read_text()

    fits = list(csv.DictReader((results / "figure-d.csv").read_text().splitlines()))
    assert len(fits) == 2 * 3 * (3 + 6)
    mine, theirs = ([row for row in fits if row["method"] == method] for method in ("maml", "maml+l2f"))
    assert [(row["x"], row["y"]) for row in mine] == [(row["x"], row["y"]) for row in theirs]
    errors = json.loads((results / "figure-d.json").read_text())["squared_errors_after_inner_steps"]
    assert [len(one["mean"]) for one in errors] == [11, 11]

    before = {path: path.read_bytes() for path in results.glob("*.*g")}  # svg, png
    monkeypatch.setattr(jobs, "train", None)  # what is trained is left alone
    assert cli.main(["reproduce", "figure-d", "--steps", "8"]) == 0
    assert {path: path.read_bytes() for path in results.glob("*.*g")} == before
    (folder / "probes.jsonl").unlink()
    capsys.readouterr()
    assert cli.main(["reproduce", "figure-a", "--steps", "8"]) == 1
    assert "steps8-seed0 was trained without the probe landscape" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["figure-d", "table_d"], "'table_d' is not a figure"),
        (["figure-d", "--data", "cifar_fs"], "figure-d cannot be drawn for data 'cifar_fs'; it has sinusoid"),
        (["table_d", "--data", "sinusoid"], "--data is an option of figures"),
        (["table_d", "--probe-every", "3"], "--probe-every is an option of figures"),
        (["figure-d", "--probe-every", "3"], "figure-d has no probes"),
        (["figure-a", "--probe-every", "0"], "it has to be at least 1"),
        (["figure-a", "--only", "maml", "leo"], "--only is leo, but the targets have no such cell"),
        (["figure-z"], "Did you mean 'figure-"),
    ],
)
def test_wrong_use_is_one_sentence(words, said, capsys):
    assert cli.main(["reproduce", *words]) == 2
    assert said in capsys.readouterr().err
