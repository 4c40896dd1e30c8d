"""The page of `lethax report`: what it reads from run folders, what it compares, and that nothing in a run is taken for HTML."""

import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image
from run_folders import STEPS, evaluated, probed, stated, trained, walked

from lethax import cli
from lethax.cli import report
from lethax.data.writer import StoreWriter
from lethax.files import append_line, read_json, write_atomic
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.report.page import curves, sections
from lethax.report.page.charts import Line, lines, thinned
from lethax.report.page.gather import gather
from lethax.report.page.published import beside, cells_of
from lethax.report.page.samples import samples
from lethax.runs import folder as folders
from lethax.runs import making
from lethax.runs.recorder import Recorder

HOSTILE = '</script><img src=x onerror="alert(1)">&amp;<b>%{y}'
pytest.importorskip("plotly", reason="the package plotly is not installed")


@pytest.fixture
def two(tmp_path):
    """MAML and L2F on sinusoids, judged on the same episodes."""
    runs = [trained(tmp_path / method, method, filters=4, depth=1) for method in ("maml", "l2f")]
    evaluated(runs[0], shift=0.25)
    evaluated(runs[1])
    return runs


def page_of(runs, tmp_path, *options):
    out = tmp_path / "page.html"
    assert cli.main(["report", *(str(run.folder) for run in runs), "--out", str(out), *options]) == 0
    return out.read_text(encoding="utf-8")


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="page">(.*?)</script>', page, re.DOTALL)[1])


def without_plotly(page):
    """The page without the script of plotly.js, which is not ours to judge."""
    from plotly.offline import get_plotlyjs

    return page.replace(get_plotlyjs(), "")


def test_what_is_read_of_a_run(two):
    maml, l2f = gather([run.folder for run in two])
    assert (maml.name, l2f.name, l2f.number, maml.score, maml.steps, maml.seconds) == (
        "maml",
        "l2f",
        1,
        "mse",
        STEPS,
        61.5,
    )
    assert maml.finished and not maml.gate_names and len(l2f.gate_names) == 4
    assert maml.values["method"] == "maml" and maml.values["net.filters"] == 4
    one = maml.evaluations[0]
    assert (one.inner_steps, one.n, one.own, len(one.curve)) == (1, 30, True, 4) and one.curve[1].mean == 0.5


def test_a_run_named_twice_is_there_once(two):
    assert len(gather([two[0].folder, two[0].folder / ".", two[1].folder])) == 2


def test_accuracies_are_in_per_cent(tmp_path):
    run = trained(tmp_path / "run", filters=4, depth=1)
    evaluated(run, "accuracy", nearest_prototype={"mean": 0.4, "ci95": 0.02, "per_episode": []}, caution="seen: <cat>")
    one = gather([run.folder])[0].evaluations[0]
    assert "<p>seen: &lt;cat&gt;</p>" in sections.scores(gather([run.folder]))
    assert one.curve[0].mean == 100 and one.baseline and one.baseline.mean == pytest.approx(40)


def test_differences_are_paired_over_the_same_episodes_alone(two, tmp_path):
    other = trained(tmp_path / "other", seed=2, filters=4, depth=1)
    evaluated(other, episodes_hash="of other episodes")
    ((group, gaps),) = curves.differences(gather([*(run.folder for run in two), other.folder]))
    (gap,) = gaps
    assert (gap.name, gap.base, gap.n) == ("l2f", "maml", 30)
    assert gap.mean == pytest.approx(-0.25) and gap.ci95 == pytest.approx(0, abs=1e-12)
    assert group.charts[0].data[0]["x"] == [gap.mean]


def test_learning_curves_have_their_intervals(two):
    (group,) = curves.learning(gather([run.folder for run in two]))
    chart = group.charts[0]
    assert chart.head == ["curve", "outer step", "mean squared error", "from", "to"] and len(chart.rows) == 4
    name, step, value, low, high = chart.rows[0]
    assert (name, step) == ("maml", 200) and high - low == pytest.approx(0.02) and low < value < high
    assert sum(trace.get("fill") == "toself" for trace in chart.data) == 2


def test_long_curves_are_thinned_and_keep_their_ends():
    chart = lines("t", "", [Line("a", 0, range(5000), [float(i) for i in range(5000)])], "x", "y")
    x = chart.data[0]["x"]
    assert len(x) <= 300 and x[0] == 0 and x[-1] == 4999 and x == sorted(set(x))
    assert thinned(3, 10) == [0, 1, 2]


def test_a_band_ends_where_numbers_are_not_finite():
    chart = lines("t", "", [Line("a", 0, range(5), [1.0] * 5, [0.1, 0.1, float("nan"), 0.1, 0.1])], "x", "y")
    assert [trace["x"] for trace in chart.data if trace.get("fill")] == [[0, 1, 1, 0], [3, 4, 4, 3]]


def test_gates_are_drawn_by_tensor_and_over_training(two):
    (group,) = curves.gates(gather([run.folder for run in two]))
    assert [chart.title for chart in group.charts] == ["γ by tensor, in evaluation", "γ over training, l2f"]
    assert len(group.charts[1].data) == 4 and group.charts[1].runs == (1,)


def test_what_is_logged_in_another_form_is_left_out(two):
    for line in (
        {"gates": ["x"] * 4},
        {"gates": [[0.5]] * 4},
        {"gates": 0.5},
        {"loss": "x"},
        {"loss": 10**400},
        {"val_score": None},
    ):
        append_line(two[1].folder / folders.METRICS, json.dumps({"step": STEPS + 1, **line}))
    told = gather([two[1].folder])
    assert [len(trace["x"]) for trace in next(iter(curves.gates(told))).charts[1].data] == [4] * 4
    assert next(iter(curves.learning(told))).charts[1].data[0]["y"][-1] == float("inf")


def test_a_cell_of_the_paper_is_known_at_any_budget_and_seed(tmp_path):
    run = trained(
        tmp_path / "run",
        "l2f",
        seed=3,
        shot=10,
        deviation=0.0,
        inner_steps=1,
        clip_norm=10.0,
        non_finite="skip",
        epoch=2500,
    )
    evaluated(run)
    (told,) = gather([run.folder])
    (found,) = beside([told])
    assert found.cell.name == "table_d/l2f_sinusoid_10shot_1step" and found.share == pytest.approx(
        STEPS / told.run.recipe.outer.full_steps
    )
    (begun,) = beside([told._replace(steps=3)])  # not finished: what is trained so far counts
    assert begun.share == 3 / told.run.recipe.outer.full_steps
    (run.folder / folders.TIMING).unlink()
    write_atomic(run.folder / folders.ENVIRONMENT, '{"model": "one"}')  # a trained model has no logs
    assert beside(gather([run.folder]))[0].share == found.share
    assert not cells_of(trained(tmp_path / "else", "l2f", shot=7).recipe, [found.cell])


@pytest.mark.parametrize(
    "change",
    [
        {"mean": "0.5"},
        {"by_inner_steps": []},
        {"per_episode": [1.0]},
        {"gates": [3]},
        {"seed": None},
        {"seed": float("inf")},
    ],
)
def test_a_damaged_record_is_named(two, change):
    evaluated(two[0])
    record = {**evaluated(two[0], episodes=7), **change}
    (two[0].folder / "evaluations" / "test-seed0-n7-best1.json").write_text(
        json.dumps(record)
    )  # Infinity, which we never write
    (told,) = gather([two[0].folder])
    assert len(told.evaluations) == 1 and "n7-best1.json is no record of an evaluation" in "".join(told.damaged)


def test_a_record_with_an_infinite_integer_is_named(two):
    evaluated(two[0], episodes=7)
    path = two[0].folder / "evaluations" / "test-seed0-n7-best1.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": Infinity'))
    (told,) = gather([two[0].folder])
    assert "is no record of an evaluation" in " ".join(told.damaged)


def test_one_episode_has_no_interval(two):
    for run in two:
        evaluated(run, episodes=1)
    runs = gather([run.folder for run in two])
    (gap,) = [gap for _, gaps in curves.differences(runs) for gap in gaps if gap.n == 1]
    cells = sections.differences(runs, []).partition("<table")[2]
    assert f"{gap.mean:+.4g}</td>" in cells and f"{gap.mean:+.4g} ±" not in cells


def test_a_damaged_record_does_not_stop_the_page(two, tmp_path, capsys):
    evaluated(two[0], shift=5.0)
    (two[0].folder / "evaluations" / "<b>.json").write_text("{")
    words = ["report", *(str(run.folder) for run in two), "--out", str(tmp_path / "p.html")]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    page = without_plotly((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert said.count("An evaluation is left out:") == 1 and "<b>.json is not JSON" in said
    assert "An evaluation is left out:" in page and "&lt;b&gt;.json is not JSON" in page and "5.4" in page


def test_damaged_probes_are_named(two, tmp_path, capsys):
    (two[0].folder / folders.PROBES).write_text(
        '{"step": 1, "probe": "landscape", "split": "val", "smoothness": ["x"]}\n{"step": 2}\n'
    )
    assert cli.main(["report", str(two[0].folder), "--out", str(tmp_path / "p.html")]) == 1
    assert "probes.jsonl holds no measurements" in capsys.readouterr().err


def test_a_recipe_that_was_changed_is_refused(two, tmp_path, capsys):
    stated(two[0].folder)
    recipe = two[0].folder / folders.RECIPE
    recipe.write_text(recipe.read_text().replace("\nseed = 0", "\nseed = 7"))
    assert cli.main(["report", *(str(run.folder) for run in two), "--out", str(tmp_path / "p.html")]) == 1
    assert "(seed was 0 and is 7)" in capsys.readouterr().err and not (tmp_path / "p.html").exists()


def test_the_page_has_all_that_the_runs_have(two, tmp_path):
    for run in two:
        probed(run)
    point = trained(tmp_path / "point", data="navigation")
    evaluated(point, "return")
    walked(point)
    page = without_plotly(page_of([*two, point], tmp_path))
    for title in (
        "Overview",
        "What was run",
        "Learning curves",
        "Scores after adaptation",
        "Paired differences",
        "Gates γ",
        "Probes",
        "Paths",
    ):
        assert f">{title}</h2>" in page
    charts = data_of(page)["charts"]
    assert len(charts) == page.count('class="chart"') == page.count('<details class="numbers"') and all(
        c["rows"] for c in charts
    )
    assert "<mark>navigation</mark>" in page and '<th scope="col">method</th>' in page


def test_nothing_in_a_run_is_taken_for_html(tmp_path):
    run = trained(tmp_path / HOSTILE.replace("/", "∕"), "l2f", filters=4, depth=1)
    gates = [{"name": HOSTILE, "mean": 0.5, "std": 0.1}]
    evaluated(run, data=HOSTILE, split=HOSTILE, score=HOSTILE)
    probed(run)
    evaluated(run, episodes=31, gates=gates)
    known = read_json(run.folder / folders.ENVIRONMENT) | {"command": HOSTILE, "device": HOSTILE, "started": HOSTILE}
    write_atomic(run.folder / folders.ENVIRONMENT, json.dumps(known))
    page = without_plotly(page_of([run], tmp_path))
    assert "<img" not in page and "<b>" not in page and page.count("</script>") == 3
    drawn = [trace for chart in data_of(page)["charts"] for trace in chart["data"]]
    texts = [
        text for t in drawn for text in (t.get("name", ""), *(v for v in (*t["x"], *t["y"]) if isinstance(v, str)))
    ]
    assert any("&lt;b&gt;" in text for text in texts) and not any(
        "<b" in text for text in texts
    )  # plotly.js reads a little HTML
    assert len({t.get("hovertemplate") for t in drawn}) <= 3  # names are no part of them


def test_the_page_asks_for_nothing_from_a_network(two, tmp_path):
    page = without_plotly(page_of(two, tmp_path))
    assert not re.findall(r"https?:|//[a-z]+\.|<link|@import|url\(", page)
    assert "default-src 'none'" in page and "connect-src" not in page


def test_only_a_watched_page_reloads_itself(two, tmp_path, monkeypatch, capsys):
    assert data_of(page_of(two, tmp_path))["refresh"] is None
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            (two[0].folder / folders.RECIPE).rename(tmp_path / "recipe")  # a run that cannot be read just now
        elif len(slept) == 2:
            (tmp_path / "recipe").rename(two[0].folder / folders.RECIPE)
            evaluated(two[0], shift=5.0)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", sleep)
    out = tmp_path / "watched.html"
    assert cli.main(["report", str(two[0].folder), "--out", str(out), "--watch", "3"]) == 130
    page = out.read_text(encoding="utf-8")
    assert slept == [3, 3, 3] and data_of(page)["refresh"] == 3 and "5.4" in without_plotly(page)
    assert "not written this time" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "said", "code"), [
    (["report"], "report needs at least one run folder", 2),
    (["report", "nowhere"], "nowhere is not a run", 1),
    (["report", "maml", "--samples", "-1"], "--samples is -1", 2),
    (["report", "maml", "--watch", "0.1"], "--watch is 0.1", 2),
    (["report", "maml", "--watch", "nan"], "--watch is nan", 2),
    (["report", "maml", "--watch", "inf"], "--watch is inf; it has to be from 1 to 86,400.", 2),
    (["report", "maml", "-o", "f.html/p.html"], "f.html is a file, not a folder", 2),
    (["report", "maml", "-o", "maml/recipe.toml"], "its name has to end in .html", 2),
    (["report", "maml", "maml/"], "a run is named twice", 2),
])  # fmt: skip
def test_one_sentence(words, said, code, two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.html").touch()
    assert cli.main(words) == code
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_folders_that_are_no_runs_are_left_out(two, tmp_path, capsys):
    """`runs/*` names the folder of `reproduce` too."""
    (tmp_path / "reproduce").mkdir()
    words = ["report", str(two[0].folder), str(tmp_path / "reproduce"), "--out", str(tmp_path / "p.html")]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "reproduce is left out: it is not a run" in said and "1 run; open it" in said


def test_what_is_missing_is_said(two, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert cli.main(["report", str(two[0].folder), "--out", str(tmp_path / "p.html")]) == 1
    assert 'pip install "lethax[report]"' in capsys.readouterr().err and not (tmp_path / "p.html").exists()


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    run = making.create(resolve(Recipe.of(data="sinusoid", method="l2f", filters=4, depth=1)), tmp_path / "new")
    page = without_plotly(page_of([run], tmp_path))
    assert "0 of 50,000 (not finished)" in page and "lethax evaluate RUN" in page and not data_of(page)["charts"]


@pytest.fixture
def pictured(tmp_path, monkeypatch):
    """A data set of two bright and two dark classes with hostile names, and a run with a checkpoint."""
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    with StoreWriter(None, "shades", mean=(0.5,), std=(0.25,), source={}) as writer:
        for split in ("train", "val", "test"):
            images = writer.split(split, (16, 16, 1), [(f"<b>bright {split}", "", 6), (f"dark {split}", "", 6)])
            images[:] = np.random.default_rng(0).integers(0, 60, images.shape)
            images[:6] += 190
    run = trained(tmp_path / "run", data="shades", way=2, shot=2, query=2, filters=4, inner_steps=1, inner_rate=0.5)
    recorder = Recorder(run, run.learner(), run.plan())
    recorder._keep_best(recorder.fresh.meta, 0.5, 0)
    recorder.save(recorder.fresh)
    return run


def test_sample_episodes_show_the_pictures_of_the_data_set_with_their_classes(pictured, tmp_path):
    (one, two), why = samples(gather([pictured.folder]), 4)
    assert why == "" and one.title == "shades, test episode 0: 2-way 2-shot" and two.title != one.title
    assert [p.label for p in one.support] == [one.support[0].label] * 2 + [one.support[-1].label] * 2
    for picture in (*one.support, *one.queries):
        kind, _, content = picture.source.partition(",")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        assert kind == "data:image/png;base64" and pixels.shape == (16, 16)
        assert (pixels.mean() > 128) == (picture.label == "<b>bright test")
    assert (
        set(one.predictions[0]) <= {"<b>bright test", "dark test"} and len(one.predictions[0]) == len(one.queries) == 4
    )
    page = without_plotly(page_of([pictured], tmp_path))
    assert "&lt;b&gt;bright test" in page and "<b>" not in page and page.count("data:image/png") == 16


def test_what_has_no_sample_episodes_is_said(pictured, tmp_path, monkeypatch):
    new = making.create(pictured.recipe, tmp_path / "new")
    found, why = samples(gather([new.folder, pictured.folder]), 4)
    assert len(found) == 2 and list(found[0].predictions) == [1] and "has no checkpoint yet" in why
    assert samples(gather([pictured.folder]), 0) == (
        [],
        "No sample episodes of images were asked for: --samples N shows those of N runs.",
    )
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "elsewhere"))
    found, why = samples(gather([pictured.folder]), 4)
    assert not found and "no data set 'shades'" in why
