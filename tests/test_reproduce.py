"""Cells, their published numbers, and a small table from nothing: run, resume, skip, render."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from run_folders import STEPS, evaluated, stated, trained

from lethax import cli, reproduce
from lethax.cli import groups
from lethax.data.embeddings import write_features
from lethax.data.feature_files import split_of
from lethax.data.writer import StoreWriter
from lethax.domains import supervised
from lethax.errors import CheckpointError, DivergedError, LethaxError, RecipeError, RunError
from lethax.methods import METHODS
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.report import cells, figures, table_rows, tables
from lethax.runs import jobs


def test_every_recipe_resolves_and_every_published_number_has_one():
    every = cells.every_cell()
    assert len(every) > 100 and set(cells.published()) <= {cell.name for cell in every}
    for cell in every:
        recipe = resolve(cell.recipe)
        assert recipe.method in METHODS and recipe.data in cell.name
        assert f"{recipe.episode.shot}shot" in cell.name or not recipe.episode.shot  # which every episode draws
    assert len([c for c in every if c.table == "table_d"]) == 48


def test_recipes_follow_the_protocols_of_what_they_reproduce():
    """LEO is judged on all other images of a class, MAML++ has two tasks for both shots, ALFA its own budget."""
    every = {cell.name: resolve(cell.recipe) for cell in cells.every_cell()}
    leo = [recipe for recipe in every.values() if recipe.method.startswith("leo")]
    assert (
        len(leo) == 20
        and {r.episode.shot + r.episode.eval_query for r in leo} == {600}
        and {r.episode.query for r in leo} == {15}
    )
    mini = {n.removeprefix("miniimagenet/"): r for n, r in every.items() if r.data == "miniimagenet"}
    assert {r.outer.batch for r in mini.values() if r.method == "maml_pp"} == {2}
    steps = {r.method: r.outer.steps for r in mini.values()}
    assert steps == {"maml": 50_000, "l2f": 30_000, "maml_pp": 50_000, "alfa": 50_000, "alfa+l2f": 50_000}


def test_published_intervals_of_own_runs_are_bernoulli_deviations():
    """What stands after ± in the paper's tables A and B is √(p(1 − p)) as a fraction, not an interval."""
    own = [c for c in cells.every_cell() if c.published and "supplement" in c.published.source]
    assert len(own) == 11
    for cell in own:
        share = cell.published.value / 100
        assert round(math.sqrt(share * (1 - share)), 2) == cell.published.interval


def test_a_setting_is_what_maml_would_have():
    """Methods with inner steps of their own are compared with MAML; what a recipe itself sets makes another setting."""
    of = lambda table: {cell.setting() for cell in cells.find(table)}  # noqa: E731
    assert [setting.inner_steps for setting in of("others_cifar_fs")] == [5]
    assert [setting.inner_steps for setting in of("others_sinusoid")] == [1]
    assert len(of("table_d")) == 12 and len(of("table_a")) == len(of("mixtures")) == 3
    assert {setting.base for setting in of("leo")} == {"leo"}


def test_find():
    assert len(cells.find("table-d")) == len(cells.find("D")) == 48
    assert [c.name for c in cells.find("table_b/l2f_cifar_fs_5way5shot_conv4")] == [
        "table_b/l2f_cifar_fs_5way5shot_conv4"
    ]
    with pytest.raises(RecipeError, match="'table_e'.*Did you mean"):
        cells.find("table_e")
    found = cells.find("table_d")
    assert len(cells.narrowed(found, ["l2f"])) == 12 and cells.narrowed(found, []) == found
    with pytest.raises(RecipeError, match=r"--only is l2ff, .* Did you mean 'l2f'\? Their methods: l2f, "):
        cells.narrowed(found, ["maml", "l2ff"])  # although one of them is a method


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Three cells of two shapes."""
    folder = tmp_path / "recipes"
    (folder / "table_x").mkdir(parents=True)
    for method in ("maml", "l2f"):
        for data in ("sinusoid", "sinusoid_shift") if method == "l2f" else ("sinusoid",):
            text = f'data = "{data}"\nmethod = "{method}"\nshot = 5\nfilters = 6\nepoch = 20\nval_episodes = 5\n'
            (folder / "table_x" / f"{method}_{data}.toml").write_text(text)
    monkeypatch.setattr(cells, "FOLDER", folder)
    monkeypatch.setattr(cells, "published", lambda: {"table_x/maml_sinusoid": cells.Published(1.5, 0.5, "a source")})
    monkeypatch.setattr(supervised, "CHUNK", 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ["reproduce", "x", "--steps", "40", "--seeds", "2", "--episodes", "100"]


def test_a_table_from_nothing(small, capsys, x64):
    assert cli.main(COMMAND) == 0
    said = capsys.readouterr().out
    assert "l2f_sinusoid and 3 alike: evaluating 400/400, in " in said and ": evaluating 200/200, in " in said
    read = lambda: json.loads((small / "results" / "table-x.json").read_text())  # noqa: E731
    rows = {row["cell"].removeprefix("table_x/"): row for row in read()["cells"]}
    assert set(rows) == {"maml_sinusoid", "l2f_sinusoid", "l2f_sinusoid_shift"}
    assert rows["maml_sinusoid"]["published"] == 1.5 and rows["l2f_sinusoid"]["published"] is None
    assert (rows["l2f_sinusoid"]["outer_steps"], rows["l2f_sinusoid"]["full_outer_steps"]) == (40, 50_000)

    def scores(cell):
        files = sorted((small / "runs/reproduce/table_x" / cell).glob("*/evaluations/*.json"))
        return np.array([json.loads(path.read_text())["per_episode"] for path in files])

    maml, l2f = scores("maml_sinusoid"), scores("l2f_sinusoid")
    assert maml.shape == (2, 100)
    np.testing.assert_allclose(rows["maml_sinusoid"]["ours"], maml.mean())
    np.testing.assert_allclose(rows["maml_sinusoid"]["by_seed"], maml.mean(axis=1))
    np.testing.assert_allclose(rows["maml_sinusoid"]["std_over_seeds"], abs(np.diff(maml.mean(axis=1))[0]) / 2**0.5)
    gap = (l2f - maml).mean(axis=0)
    np.testing.assert_allclose(rows["l2f_sinusoid"]["paired"]["mean"], gap.mean())
    np.testing.assert_allclose(rows["l2f_sinusoid"]["paired"]["ci95"], 1.96 * gap.std() / 10)
    assert "paired" not in rows["l2f_sinusoid_shift"]  # there is no MAML in its setting
    assert (small / "results" / "table-x-curves.png").read_bytes().startswith(b"\x89PNG")
    sheet = list(csv.DictReader((small / "results" / "table-x.csv").read_text().splitlines()))
    assert [line["budget"] for line in sheet] == ["40 steps (0.08 %), 2 seeds"] * 3
    assert "| sinusoid | 5 | 1 | maml | 1.5 ± 0.5 |" in (small / "results" / "table-x.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in (small / "runs").rglob("*") if path.is_file()}
    undone = small / "runs/reproduce/table_x/l2f_sinusoid/steps40-seed1"
    (undone / "checkpoints" / "step-00000040.safetensors").unlink()
    next(undone.glob("evaluations/*")).unlink()
    state = small / "runs/reproduce/table_x/maml_sinusoid/steps40-seed0/checkpoints/step-00000040.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:-1])  # damaged: trained again from the state before
    assert cli.main(COMMAND) == 0
    after = {path: path.stat().st_mtime_ns for path in (small / "runs").rglob("*") if path.is_file()}
    assert set(before) == set(after) and state.stat().st_size == len(whole)
    changed = [path for path in before if before[path] != after[path] and state.parent.parent not in path.parents]
    assert {path.relative_to(undone).parts[0] for path in changed} <= {
        ".lock", "metrics.jsonl", "timing.jsonl", "checkpoints", "evaluations",
    }  # fmt: skip
    again = {row["cell"].removeprefix("table_x/"): row["ours"] for row in read()["cells"]}
    np.testing.assert_allclose([again[name] for name in rows], [row["ours"] for row in rows.values()], rtol=1e-6)


def test_learning_curves_are_means_of_accuracy_and_medians_of_errors(tmp_path, monkeypatch):
    """A panel for each setting; a validation that is not finite counts as infinite, so that it does not hide the other seeds."""
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.append(figure))

    def row(method, score, *curves, **others):
        curves = [[{"step": 10 * (i + 1), "val_score": value} for i, value in enumerate(curve)] for curve in curves]
        return {
            "data": "some", "net": "conv4", "batch": 2, "shot": 5, "inner_steps": 1, "method": method, "score": score,
            "learning_curve": curves, **others,
        }  # fmt: skip

    rows = [
        row("maml", "accuracy", [0.2, 0.4], [0.4, 0.8]), row("l2f", "accuracy", [0.5, 0.5], variant="half"),
        row("maml", "mse", [3.0, 2.0], [None, 1.0], [5.0, 9.0], inner_steps=2),
    ]  # fmt: skip
    figures.learning_curves(rows, tmp_path / "x.png")
    left, right = [axes for axes in drawn[0].axes if axes.axison]
    assert [left.get_title(), right.get_title()] == ["some, 5-shot, 1 inner step", "some, 5-shot, 2 inner steps"]
    thick = lambda axes: {  # noqa: E731
        line.get_label(): line.get_xydata().T.tolist()
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }
    assert list(thick(left)) == ["maml", "l2f, half"]
    np.testing.assert_allclose(thick(left)["maml"], [[10, 20], [30, 60]])
    np.testing.assert_allclose(thick(left)["l2f, half"], [[10, 20], [50, 50]])
    np.testing.assert_allclose(thick(right)["maml"], [[10, 20], [5, 2]])
    assert len(left.get_lines()) == 4 and len(right.get_lines()) == 4


@pytest.mark.parametrize("kind", [DivergedError, CheckpointError])
def test_a_diverged_or_damaged_run_leaves_the_other_cells(kind, small, capsys, monkeypatch):
    train = jobs.train

    def fails(group, failed):
        if group[0].recipe.method == "maml":
            failed |= {job.folder: kind("outer step 3 is not finite") for job in group}
        yield from train(group, failed)

    monkeypatch.setattr(jobs, "train", fails)
    assert cli.main(["reproduce", "x", "--steps", "20", "--episodes", "5"]) == 1
    assert "outer step 3 is not finite" in capsys.readouterr().err
    rows = json.loads((small / "results" / "table-x.json").read_text())["cells"]
    assert [(row["method"], row["std_over_seeds"]) for row in rows] == [("maml+l2f", None)] * 2  # of one seed


def test_a_run_that_cannot_be_judged_is_left_out_and_the_others_are_judged(capsys, monkeypatch):
    """As one with fewer validated checkpoints than the ensemble has."""
    of = SimpleNamespace(episodes=3)
    group = [SimpleNamespace(trained=True, folder=Path(name), protocol=of) for name in ("a", "b")]

    def judge(job, watch):
        if job is group[0]:
            raise RunError("a keeps 2 validated checkpoints, not 3.")
        list(watch([(np.zeros(2),), (np.zeros(1),)]))

    monkeypatch.setattr(reproduce, "judge", judge)
    monkeypatch.setattr(reproduce, "unjudged", lambda job: [None])
    ((failed,), finished) = groups._done("1/1 x", group, judged=True)
    assert isinstance(failed, RunError) and finished == 1
    assert "1/1 x is left out: a keeps 2 validated checkpoints" in capsys.readouterr().out


def test_an_evaluation_of_fewer_updates_is_none_of_the_cell(tmp_path):
    """`lethax evaluate RUN --steps N` writes the file that a cell is judged in; of more updates the table has its own."""
    cell = cells.Cell("navigation/maml", Recipe.of(data="navigation_b", method="maml"), None)
    found = reproduce.jobs([cell], tmp_path, budget=1.0, steps=STEPS, seeds=2)
    for job, updates in zip(found, (6, 1), strict=True):
        run = trained(job.folder, data="navigation_b", seed=job.recipe.seed)
        stated(job.folder)
        whole = {"returns": [[-40.0 + j for j in range(updates + 1)]] * 40, "by_inner_steps": [{}] * (updates + 1)}
        evaluated(run, "return", episodes=40, **whole)
    assert [reproduce.unjudged(job) for job in found] == [[], [None]]
    assert not reproduce.table_of_returns(found, "")  # not all of its seeds are judged
    (row,) = reproduce.table_of_returns(found[:1], "")
    assert [at["mean"] for at in row["by_updates"]] == [-40, -39, -38, -37, -36]


def test_rows_of_control_count_all_steps_and_the_rollouts_of_evaluation(tmp_path):
    recipe = Recipe.of(data="navigation", method="maml", rl_eval_rollouts=40)
    (job,) = reproduce.jobs([cells.Cell("x/maml", recipe, None)], tmp_path, budget=1.0, steps=STEPS, seeds=1)
    run = trained(job.folder, data="navigation", rl_eval_rollouts=40)
    stated(job.folder)
    # A line every 100 steps begins a new window too; one whose steps were all skipped has no mean.
    lines = [
        {"step": 30, "env_steps": 1.0},
        {"step": 100, "env_steps": 2.0},
        {"step": 160, "skipped": 60},
        {"step": STEPS},
    ]
    (job.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluated(run, "return", episodes=40, returns=[[0.0] * 5] * 40, by_inner_steps=[{}] * 5)
    (row,) = reproduce.table_of_returns([job], "")
    assert row["env_steps"] == [(30 + 2 * 70) * job.recipe.outer.batch]
    assert row["rollouts"] == 40 and job.recipe.episode.shot == 20


def test_rows_are_of_runs_that_are_trained_and_judged_as_they_are_now(tmp_path):
    """As the same command would judge again an evaluation that is torn, half-way or of other checkpoints."""
    cell = cells.Cell("x/maml", Recipe.of(data="sinusoid", method="maml"), None)
    (job,) = found = reproduce.jobs([cell], tmp_path, budget=1.0, steps=STEPS, seeds=1, episodes=30)
    run = trained(job.folder)
    steps = job.judged_steps + 1
    evaluated(run, by_inner_steps=[{}] * steps)
    stated(job.folder, STEPS // 2)
    assert not reproduce.table(found, "")  # it is not finished
    stated(job.folder)
    assert len(reproduce.table(found, "")) == 1
    evaluated(run, by_inner_steps=[{}] * steps, checkpoints=[STEPS // 2])
    assert not reproduce.table(found, "")
    next((job.folder / "evaluations").iterdir()).write_text('{"data": "sin')
    assert not reproduce.table(found, "")


@pytest.mark.parametrize("table", ["table_a", "table_c", "navigation", "locomotion"])
def test_a_table_without_a_row_is_its_title(table, tmp_path):
    """Where runs train one after another, no cell has all of its seeds after the first of them."""
    text, paths = reproduce.write(reproduce.jobs(cells.find(table), tmp_path, budget=1, steps=1, seeds=2), "", tmp_path)
    assert text.startswith("# ") and {path.suffix for path in paths} <= {".json", ".md", ".csv"}


def test_plan_and_messages(small, capsys):
    twice = [COMMAND[0], "table-x", "table_x/maml_sinusoid", *COMMAND[1:]]  # each cell is planned once
    assert cli.main([*twice, "--dry-run"]) == 0
    shown = capsys.readouterr().out  # 80 columns wide
    assert "This does not include evaluation, and validation only where the" in shown
    assert "0/4" in shown and "timed" in shown and not (small / "runs").exists()
    one_of_two = ["reproduce", "table_x/maml_sinusoid", "table_x/l2f_sinusoid", "--only", "table_x/l2f_sinusoid"]
    assert cli.main([*one_of_two, "--seeds", "3", "--dry-run"]) == 0  # as the command of a job is
    shown = capsys.readouterr().out
    assert "0/3" in shown and "maml_sinusoid" not in shown
    assert cli.main(["reproduce", "y"]) == 2
    assert cli.main(["reproduce", "x", "--budget", "2"]) == 2
    assert "--budget is 2.0; it is a share" in capsys.readouterr().err
    assert cli.main([*COMMAND, "--budget", "1", "--dry-run"]) == 2
    assert "--budget and --steps both say how long to train: leave one out." in capsys.readouterr().err
    found = reproduce.jobs(cells.find("x"), small, budget=0.001, steps=None, seeds=1)
    assert {job.recipe.outer.steps for job in found} == {50}
    found[0].open()
    other = replace(found[0], recipe=resolve(Recipe.of(data="sinusoid", method="maml", steps=50)))
    (found[0].folder / "checkpoints").mkdir()
    (found[0].folder / "checkpoints" / "step-00000001.safetensors").touch()  # one that has begun
    with pytest.raises(LethaxError, match="of another recipe .*method: .* there, maml now.*: choose another --out"):
        other.open()


def test_numbers_without_bound_are_shown_as_such():
    row = {
        "data": "sinusoid", "shot": 5, "inner_steps": 5, "method": "maml", "score": "squared error", "published": None,
        "published_interval": None, "ours": float("inf"), "interval": float("nan"), "median_episode": 0.5, "outer_steps": 5,
        "full_outer_steps": 5, "seeds": 1, "hours": 0.25, "episodes": 10, "command": "lethax",
        "paired": {"minus": "maml", "mean": 2.5e9, "ci95": 1.0},
    }  # fmt: skip
    text = tables.markdown("table_x", [row])
    assert "| unbounded | 0.500 | +2.5e+09 ± 1.000 to maml | 5 steps, 1 seed |" in text and "before inner" not in text
    seeds = [[{"steps": 0, "mean": mean}, {"steps": 1, "mean": 0.1}] for mean in (3.0, 3.5)]
    before = tables.markdown("table_x", [{**row, "by_inner_steps": seeds}])
    assert "| maml |  | 3.250 | unbounded |" in before and "- **before inner steps** is" in before
    seeds[0][0]["mean"] = None  # what JSON has for a number that is not finite
    assert "| maml |  | unbounded | unbounded |" in tables.markdown("table_x", [{**row, "by_inner_steps": seeds}])
    assert "before inner" not in tables.markdown("table_x", [{**row, "score": "accuracy", "by_inner_steps": seeds}])
    alone = tables.markdown("table_x", [{**row, "ours": 2.0, "episodes": 1}])
    assert "| 2.000 | 0.500 | +2.5e+09 to maml |" in alone  # one episode has no interval


def test_the_legend_says_which_interval_stands_there():
    """Curves are judged in sets of 100, whose mean interval is ten times as wide as one over all curves."""
    row = {
        "data": "sinusoid", "shot": 5, "inner_steps": 5, "method": "maml", "score": "mse", "published": None,
        "published_interval": None, "ours": 1.0, "interval": 0.1, "median_episode": 0.5, "outer_steps": 5,
        "full_outer_steps": 5, "seeds": 1, "hours": 0.25, "episodes": 10_000, "command": "lethax",
    }  # fmt: skip
    legend = lambda **values: " ".join(tables.markdown("x", [{**row, **values}]).split())  # noqa: E731
    assert "in sets of 100" in legend() and "interval over the episodes" not in legend()
    for other in ({"score": "accuracy"}, {"episodes": 50}):
        assert "in sets of 100" not in legend(**other) and "interval over the episodes" in legend(**other)
    assert "cannot tell methods apart" in legend() and "by_seed" not in legend()
    assert "cannot tell methods apart" not in legend(seeds=5) and "`by_seed`" in legend(seeds=5)


def test_columns_are_those_that_the_rows_need():
    row = {
        "data": "miniimagenet", "shot": 5, "inner_steps": 5, "method": "maml", "score": "accuracy", "published": None,
        "published_interval": None, "ours": 50.0, "interval": 1.0, "median_episode": 50.0, "outer_steps": 5, "seeds": 1,
        "full_outer_steps": 5, "hours": None, "episodes": 600, "command": "lethax", "net": "conv4", "batch": 2,
    }  # fmt: skip
    assert "| net |" not in tables.markdown("table_x", [row])
    assert "nearest prototype" not in tables.markdown("table_x", [row])
    beside = tables.markdown("table_x", [{**row, "nearest_prototype": {"mean": 40.0, "ci95": 0.5}}, row])
    assert "| 40.00 ± 0.50 | 5 steps" in beside and "| 50.00 |  |  | 5 steps" in beside
    text = tables.markdown("table_x", [row, {**row, "net": "resnet12"}, {**row, "method": "leo", "episodes": 10_000}])
    assert "| miniimagenet | conv4, batch 2 | 5 |" in text and "| miniimagenet | resnet12, batch 2 | 5 |" in text
    assert "over 600 or 10000 test episodes" in text


def test_variants_of_a_method_are_told_apart_by_what_their_recipes_give():
    row = {"method": "maml+l2f", "data": "modes5", "shot": 5}
    plain, tenth = {"gate.layers": 2, "episode.shot": 5}, {"gate.embedding_scale": 0.1, "episode.shot": 5}
    rows = [{**row, "given": {"episode.shot": 5}}, {**row, "given": plain}, {**row, "given": tenth},
            {**row, "method": "maml", "given": plain}, {**row, "data": "modes2", "given": tenth}]  # fmt: skip
    names = [table_rows.name_of(one) for one in table_rows.tell_apart(rows, ("data", "shot"))]
    assert names == ["maml+l2f", "maml+l2f, gate.layers 2", "maml+l2f, gate.embedding_scale 0.1", "maml", "maml+l2f"]


def test_variants_stand_behind_the_method_in_the_table():
    """Each L2F of navigation_maml has a name of its own, and the plain one comes first."""
    found = cells.find("navigation_maml")
    rows = [{"method": c.recipe.method, "data": c.recipe.data, "given": dict(c.recipe.given)} for c in found]
    assert [table_rows.name_of(row) for row in table_rows.tell_apart(rows, ("data",))] == [
        "l2f", "l2f, gate.bias_init 0.0", "l2f, control.resample True", "l2f, gate.embedding_scale 10.0",
        "l2f, gate.embedding_scale 0.1", "maml",
    ]  # fmt: skip


def test_a_small_budget_is_judged_by_the_checkpoints_that_it_has():
    """One validation cannot give three best checkpoints."""
    found = cells.find("table_b/maml_cifar_fs_5way5shot_conv4")
    how = {
        steps: reproduce.jobs(found, Path(), budget=1, steps=steps, seeds=1)[0].protocol
        for steps in (1, 500, 501, 5000)
    }
    assert [how[steps].ensemble for steps in how] == [1, 1, 2, 3]
    assert how[1].episodes == 600
    assert reproduce.jobs(found, Path(), budget=1, steps=1, seeds=1, episodes=7)[0].protocol.episodes == 7


def test_hours_of_a_setting_are_of_one_timed_cell_or_of_the_logs(tmp_path, monkeypatch):
    """To time a program is to compile it; what one cell takes says what another of its setting takes."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    with StoreWriter(tmp_path, "pictures", mean=(0.5,), std=(0.25,), source={}) as writer:
        for split in ("train", "val", "test"):
            writer.split(split, (16, 16, 1), [(f"{split}{c}", "", 20) for c in range(5)])[:] = 0
    base = Recipe.of(data="pictures", shot=1, query=1, filters=4, inner_steps=1)
    found = [cells.Cell(f"x/{m}{k}", base.with_values(method=m, shot=k), None) for k in (1, 5) for m in ("maml", "l2f")]
    timed = []
    monkeypatch.setattr(reproduce, "_seconds_a_step", lambda group, _: timed.append(group[0].cell.name) or 2.0)
    groups = jobs.groups(reproduce.jobs(found, tmp_path, budget=1.0, steps=100, seeds=2))
    left = list(reproduce.estimates(groups))
    assert timed == ["x/maml1", "x/maml5"]
    assert [e.source for e in left] == ["timed", *["scaled from maml1"] * 3, "timed", *["scaled from maml5"] * 3]
    assert left[0].seconds == left[1].seconds == 200 and 200 < left[2].seconds < 400
    begun = groups[1][0].folder
    begun.mkdir(parents=True)
    (begun / "timing.jsonl").write_text('{"step": 10, "seconds": 3.0}\n{"step": 20, "seconds": 5.0}\n')
    assert list(reproduce.estimates(groups[1:2])) == [(32.0, "its log")]


def test_plan_of_features(tmp_path, monkeypatch):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    monkeypatch.setattr(supervised, "CHUNK", 2)
    labels = np.repeat(np.arange(6), 4)
    made = np.random.RandomState(0).randn(24, 6).astype(np.float32)
    write_features("made", {split: split_of("", made, labels) for split in ("train", "val", "test")}, None, {})
    recipe = Recipe.of(data="made", method="leo", shot=1, query=1, batch=2, inner_steps=1)
    (group,) = jobs.groups(reproduce.jobs([cells.Cell("x/leo", recipe, None)], tmp_path, budget=1.0, steps=4, seeds=1))
    (left,) = reproduce.estimates([group])
    assert left.source == "timed" and left.seconds > 0


def test_the_first_seed_can_be_chosen(tmp_path):
    found = reproduce.jobs(
        cells.find("table_d/maml_sinusoid_5shot_1step"), tmp_path, budget=1.0, steps=9, seeds=2, first_seed=3
    )
    assert [(job.recipe.seed, job.folder.name) for job in found] == [(3, "steps9-seed3"), (4, "steps9-seed4")]
