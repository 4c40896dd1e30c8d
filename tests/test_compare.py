"""`lethax compare`: equal options and budgets, one list of episodes, both intervals, and what may be concluded from them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from run_folders import evaluated, trained

from lethax import cli, compare
from lethax.domains import supervised
from lethax.errors import CheckpointError, DivergedError
from lethax.evaluation import over_seeds
from lethax.recipe import Recipe
from lethax.report import comparison
from lethax.runs import jobs, rivals
from lethax.runs.evaluation import judged_before

OPTIONS = "sinusoid --methods maml,l2f --seeds 2 --steps 40 --epoch 20 --val-episodes 3 --filters 4".split()
COMMAND = ["compare", *OPTIONS, "--gate.scope", "layer", "--episodes", "6"]


def planned(asked, methods=("maml", "l2f"), seeds=range(2), **others):
    return compare.plan(
        asked, list(methods), reference="maml", seeds=seeds, **{"out": None, "episodes": None, **others}
    )


def test_the_interval_over_seeds_is_students():
    """Of three runs 4.3027 s/√3, of five 2.7764 s/√5, with the sample deviation; one run has none."""
    assert over_seeds([0.5]) is None
    np.testing.assert_allclose(over_seeds([1.0, 2.0, 3.0]), 4.302653 / 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(over_seeds([0.0, 0.0, 0.0, 0.0, 5.0]), 2.776445 * 5**0.5 / 5**0.5, rtol=1e-6)


SCORES = np.array([[0.2, 0.4], [0.4, 0.8]])


def rows_of(*entries, reference="maml"):
    return comparison.rows([comparison.Compared(*entry) for entry in entries], reference)


def test_rows_have_both_intervals_of_scores_and_of_differences():
    base, other = rows_of(
        ("maml", SCORES, {"norm": "batch"}), ("anil", SCORES + [[0.1, 0.2], [0.3, 0.4]], {"norm": "batch"})
    )
    np.testing.assert_allclose(base["by_seed"], [0.3, 0.6])
    np.testing.assert_allclose([base["mean"], base["over_episodes"]], [0.45, 1.96 * 0.15 / 2**0.5])
    np.testing.assert_allclose(base["over_seeds"], 12.706205 * (0.3 / 2**0.5) / 2**0.5, rtol=1e-6)
    gap = other["paired"]
    np.testing.assert_allclose(gap["by_seed"], [0.15, 0.35])
    np.testing.assert_allclose([gap["mean"], gap["over_episodes"]], [0.25, 1.96 * 0.05 / 2**0.5])
    np.testing.assert_allclose(gap["over_seeds"], 12.706205 * 0.1, rtol=1e-6)
    assert "paired" not in base


def test_the_title_says_where_episodes_draw_their_shape():
    record = {"score": "accuracy", "episodes": 4, "data": "metadataset", "seeds": [0], "episodes_hash": "7ad5"}
    assert "of metadataset: any-way any-shot, seed 0;" in comparison.title({**record, "way": 0, "shot": 0})
    assert ": 5-way 1-shot, seed 0;" in comparison.title({**record, "way": 5, "shot": 1})
    assert ": 10-shot, seed 0;" in comparison.title({**record, "way": None, "shot": 10})


def test_a_baseline_has_one_row_of_scores_and_the_seeds_of_the_reference():
    record = {"data": "birds", "nearest_prototype": {"per_episode": [0.5, None]}}
    (entry,) = comparison.baselines([record])
    assert not entry.trained and np.isnan(entry.scores[0, 1]) and not comparison.baselines([])
    probe, tuned = (
        {"title": title, "on": "birds", "setting": {}, "per_episode": [0.1, 0.2]}
        for title in ("linear probe", "fine-tuning")
    )
    more = [{**record, "baselines": {"probe": probe, "finetune": tuned}}, {**record, "baselines": {"finetune": tuned}}]
    found = {entry.name: entry.scores.shape for entry in comparison.baselines(more)}
    assert found == {"nearest prototype": (1, 2), "linear probe on birds": (1, 2), "fine-tuning on birds": (2, 2)}
    named = {
        "title": "nearest prototype",
        "on": "birds",
        "per_episode": [0.5, 0.5],
        "caution": "Seen before.",
        "setting": {"decay": 0.1},
        "chosen": "on 2 validation episodes",
    }
    more = [{**record, "baselines": {"prototype": named}}]
    assert [entry.name for entry in comparison.baselines(more)] == ["nearest prototype on birds"]
    said = "nearest prototype on birds: decay 0.1, chosen on 2 validation episodes."
    assert comparison.remarks(more) == [said, "Seen before."]
    _, row = rows_of(("maml", SCORES, {"norm": "batch"}), ("nearest prototype", np.array([[0.5, 0.5]]), {}))
    assert row["over_seeds"] is None and not row["trained"]
    np.testing.assert_allclose(row["paired"]["by_seed"], [0.2, -0.1])


def record_of(rows, seeds=(0, 1, 2), higher=True, full=100):
    about = {"trained": True, "inner_steps": 1, "outer_steps": 100, "full_outer_steps": full}
    made = [{**about, "name": "maml"}]
    for name, mean, seeds_, episodes in rows:
        made.append({**about, "name": name, "paired": {"mean": mean, "over_seeds": seeds_, "over_episodes": episodes}})
    return {"rows": made, "reference": "maml", "seeds": list(seeds), "higher_is_better": higher}


def test_claims_are_made_by_the_wider_interval():
    rows = [
        ("anil", 0.1, 0.05, 0.01),
        ("boil", 0.1, 0.2, 0.01),
        ("alfa", -0.1, 0.01, 0.05),
        ("leo", float("nan"), 0.1, 0.1),
    ]
    said = comparison.conclusions(record_of(rows))
    assert said[0] == (
        "The wider of the two intervals excludes 0: anil is better than maml (+0.1000 ± 0.0500 over seeds); "
        "alfa is worse than maml (-0.1000 ± 0.0500 over episodes)."
    )
    assert said[1] == "No difference to maml is shown for boil, leo."
    assert "Of 4 differences" in said[2] and len(said) == 3
    errors = comparison.conclusions(record_of(rows[:1], higher=False))
    assert "anil is worse than maml" in errors[0] and len(errors) == 1


def test_what_cannot_be_concluded_is_said():
    one = comparison.conclusions(record_of([("anil", 0.1, None, 0.01)], seeds=[3], full=400))
    assert one[0].startswith("Nothing can be concluded about the methods from one seed")
    assert one[1] == "The interval over episodes excludes 0: anil is better than maml (+0.1000 ± 0.0100 over episodes)."
    assert one[2].startswith("100 outer steps are 25 % of the published 400")
    record = record_of([("reptile", 0.1, 0.2, 0.01)])
    record["rows"][1] |= {"inner_steps": 5}
    record["rows"].append({**record["rows"][0], "name": "alfa", "failed": ["outer step 3 is not finite."]})
    said = comparison.conclusions(record)
    assert said[0] == "alfa has no score: outer step 3 is not finite."
    assert any("(maml 1, reptile 5 inner steps)" in sentence for sentence in said)


def test_options_hold_where_they_are_read_and_the_budget_is_the_references():
    asked = Recipe.of(data="sinusoid", shot=10, gate_scope="layer", order=1, steps=500)
    found = planned(asked, ("maml", "l2f", "fomaml", "maml_pp"), seeds=[4, 5], episodes=7)
    assert found.episodes == 7 and found.notes == [
        "gate.scope is not an option of maml, fomaml, maml_pp, and holds for the others.",
        "inner.order is not an option of fomaml, and holds for the others.",
    ]
    for method, mine in found.jobs.items():
        assert [job.recipe.seed for job in mine] == [4, 5] and mine[0].recipe.method == method
        assert str(mine[0].folder) == os.path.join("runs", "compare", "sinusoid", "10shot", f"{method}-seed4")
        assert (mine[0].recipe.outer.steps, mine[0].recipe.episode.shot) == (500, 10)
    assert found.jobs["l2f"][0].recipe.gate.scope == "layer"
    assert found.jobs["maml_pp"][0].recipe.inner.rule == "lslr"  # its own inner loop
    assert planned(Recipe.of(data="sinusoid")).episodes == 600


@pytest.mark.parametrize(
    "words,said",
    [
        ("", "compare needs DATA, as in: lethax compare sinusoid --methods maml,l2f"),
        ("sinusoid", "compare needs two methods at least"),
        ("sinusoid --methods maml,l2f,maml+l2f", "l2f and maml+l2f are one method: name it once."),
        ("sinusoid --methods maml l2f --reference anil", "--reference is 'anil', which is not one of the methods: maml, l2f."),
        ("sinusoid --methods maml,lf2", "no method is called 'lf2'. Did you mean 'l2f'?"),
        ("sinusoid --methods maml,leo", "method 'leo' does not fit data 'sinusoid'"),
        ("sinusoid --methods maml,anil --gate.scope layer", "gate.scope is layer, but method 'maml' on 'sinusoid' does not read"),
        ("sinusoid --methods maml,l2f --seeds 0", "--seeds is 0; it has to be from 1 to 1,000."),
        ("sinusoid --methods maml,l2f --episodes 1", "--episodes is 1; it has to be from 2 to 10,000,000."),
        ("sinusoid --methods maml,l2f --first-seed 4294967295", "seed is 4294967297; it has to be from 0 to 4294967295."),
        ("sinusoid --methods maml,l2f --baselines", "prototype compares classes, and sinusoid has none: leave it out"),
        ("sinusoid --methods maml,l2f --features x", "--features are read by baselines: name some"),
        ("sinusoid --methods maml,l2f --seed 1", "lethax compare has no option '--seed'. Did you mean '--seeds'?"),
    ],
)  # fmt: skip
def test_one_sentence(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"lethax: {said}") and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_help_says_what_is_for_finished_runs(capsys):
    assert cli.main(["compare", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Runs that are finished already are compared by `lethax evaluate RUN RUN`" in said
    assert (
        "--methods NAME ..." in said
        and "--steps INT" in said
        and "--seed INT" not in said
        and "--method NAME" not in said
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison that was killed once while it trained, and then finished by the same command."""
    folder = tmp_path_factory.mktemp("compare")
    env = {**os.environ, "LETHAX_CACHE": str(folder / "cache")}
    begun = subprocess.Popen([sys.executable, "-m", "lethax", *COMMAND], cwd=folder, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while begun.poll() is None and not list(folder.glob("runs/**/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    assert begun.wait() == -signal.SIGKILL
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(supervised, "CHUNK", 20)
        assert cli.main(COMMAND) == 0
    return folder


RUNS = {f"{method}-seed{seed}" for method in ("maml", "l2f") for seed in (0, 1)}


def test_a_killed_comparison_goes_on_to_one_table_of_equal_episodes(done):
    folder = done / "runs" / "compare" / "sinusoid" / "5shot"
    record = json.loads((folder / "comparison.json").read_text())
    assert {path.name for path in folder.iterdir() if path.is_dir()} == RUNS
    found = {}
    for name in RUNS:
        (evaluation,) = (folder / name / "evaluations").glob("*.json")
        found[name] = json.loads(evaluation.read_text())
        assert [json.loads(line)["step"] for line in (folder / name / "metrics.jsonl").read_text().splitlines()] == [
            20,
            40,
        ]
    assert {one["episodes_hash"] for one in found.values()} == {record["episodes_hash"]}
    scores = {m: np.array([found[f"{m}-seed{s}"]["per_episode"] for s in (0, 1)]) for m in ("maml", "l2f")}
    maml, l2f = record["rows"]
    assert maml["name"] == "maml" and l2f["paired"]["minus"] == "maml" and record["seeds"] == [0, 1]
    np.testing.assert_allclose(maml["by_seed"], scores["maml"].mean(axis=1))
    gap = scores["l2f"] - scores["maml"]
    np.testing.assert_allclose([l2f["paired"]["mean"], l2f["paired"]["over_seeds"]],
                               [gap.mean(), over_seeds(gap.mean(axis=1).tolist())])  # fmt: skip
    assert (maml["norm"], maml["order"], maml["outer_steps"], maml["batch"]) == (None, "2", 40, 4)
    assert maml["seconds_a_step"] > 0 and not record["higher_is_better"] and record["way"] is None
    text = (folder / "comparison.md").read_text()
    assert text.startswith("# mse on 6 test episodes of sinusoid: 5-shot, seeds 0, 1; hash of the episodes")
    assert "| maml | none | 2 | 1 | 40 | 4 |" in text and "- gate.scope is not an option of maml" in text
    sheet = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [row["name"] for row in sheet] == ["maml", "l2f"] and sheet[0]["less_maml_mean"] == ""
    assert {(row["failed"], row["episodes_hash"]) for row in sheet} == {("", record["episodes_hash"])}
    np.testing.assert_allclose(float(sheet[1]["less_maml_mean"]), gap.mean())


def test_runs_that_are_there_are_used_and_others_refused(done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    train = jobs.train

    def only_done(group, failed):
        assert all(job.trained for job in group)
        return train(group, failed)

    monkeypatch.setattr(jobs, "train", only_done)
    monkeypatch.setattr(compare, "evaluate_run", None)
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*-seed*/**/*") if path.is_file()}
    assert cli.main([*COMMAND, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["episodes"] == 6 and [row["name"] for row in record["rows"]] == ["maml", "l2f"]
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*-seed*/**/*") if path.is_file()}
    assert cli.main([*COMMAND, "--inner-rate", "0.5"]) == 1
    assert "maml-seed0 holds a run of another recipe (inner.rate: 0.01 there, 0.5 now)" in capsys.readouterr().err


def test_an_evaluation_of_earlier_checkpoints_is_no_score_of_the_run(done, monkeypatch, capsys):
    """A run may have been judged half-way, on the same episodes and in the same file."""
    monkeypatch.chdir(done)
    (path,) = (done / "runs").rglob("maml-seed1/evaluations/*.json")
    right = path.read_text()
    record = json.loads(right)
    path.write_text(json.dumps({**record, "checkpoints": [record["checkpoints"][0] - 20], "per_episode": [0.0] * 6}))
    (other,) = (done / "runs").rglob("l2f-seed1/evaluations/*.json")
    whole = other.read_text()
    other.write_text(
        json.dumps({**json.loads(whole), "per_episode": [1, 2], "n": 2})
    )  # of the same hash, and yet of others
    assert cli.main([*COMMAND, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert json.loads(path.read_text())["per_episode"] == record["per_episode"] and min(row["by_seed"]) > 0
    assert json.loads(other.read_text())["per_episode"] == json.loads(whole)["per_episode"]
    path.write_text(right)


PROBE = {"title": "probe", "on": "birds", "chosen": "", "setting": {"decay": 0.1}, "per_episode": [0.1] * 30}


@pytest.mark.parametrize("change", [
    {"per_episode": [1, 2]}, {"per_episode": [1]}, {"per_episode": {}}, {"per_episode": ["x"] * 30}, {"n": 29}, {"data": 5},
    {"by_inner_steps": 5}, {"weights_sha256": []}, {"score": None}, {"checkpoints": None}, {"episodes_hash": None},
    {"nearest_prototype": 5}, {"nearest_prototype": {"per_episode": [0.1]}}, {"baselines": []}, {"caution": []},
    {"baselines": {"probe": {**PROBE, "per_episode": []}}}, {"baselines": {"probe": {**PROBE, "setting": {"decay": "x"}}}},
    {"baselines": {"probe": {**PROBE, "title": 5}}},
])  # fmt: skip
def test_what_is_no_evaluation_is_judged_anew(change, tmp_path):
    run = trained(tmp_path / "run")
    evaluated(run, baselines={"probe": PROBE}, nearest_prototype={"per_episode": [None] * 30})
    (path,) = (run.folder / "evaluations").iterdir()
    assert judged_before(run, path, 1, 3) is not None and judged_before(run, path, 1, 4) is None
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert judged_before(run, path, 1, 3) is None
    for text in ("{", "[]", "null", "5"):
        path.write_text(text)
        assert judged_before(run, path, 1, 3) is None


@pytest.mark.parametrize("kind", [DivergedError, CheckpointError])
def test_a_method_that_diverged_or_is_damaged_has_no_score_and_the_others_have(kind, done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    judge = compare.judge

    def breaks(planned_, job, *others):
        if job.recipe.method == "l2f":
            raise kind("no validation has a finite score.")
        return judge(planned_, job, *others)

    monkeypatch.setattr(compare, "judge", breaks)
    assert cli.main([*COMMAND, "--json"]) == 1
    out, err = capsys.readouterr()
    rows = json.loads(out)["rows"]
    assert (
        "paired" not in rows[1] and rows[1]["failed"] == ["no validation has a finite score."] * 2 and "mean" in rows[0]
    )
    assert err == "lethax: no validation has a finite score.\n"
    sheet = csv.DictReader((done / "runs/compare/sinusoid/5shot/comparison.csv").read_text().splitlines())
    assert [row["failed"] for row in sheet] == ["", " ".join(rows[1]["failed"])]


def test_baselines_stand_in_the_table_where_they_are_asked_for_and_are_judged_once(done, monkeypatch, capsys):
    """From scratch there is one for each seed of the reference. Others may stand in the records of some runs."""
    monkeypatch.chdir(done)
    monkeypatch.setattr(rivals, "STEPS", 2)
    monkeypatch.setattr(rivals, "TRIED", dict.fromkeys(rivals.TRIED, 2))
    assert cli.main([*COMMAND, "--baselines", "scratch", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["maml", "l2f", "training from scratch on sinusoid"]
    assert not rows[2]["trained"] and len(rows[2]["by_seed"]) == 2 and rows[2]["paired"]["over_seeds"] > 0
    monkeypatch.setattr(compare, "evaluate_run", None)
    assert cli.main([*COMMAND, "--baselines", "scratch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows
    assert cli.main([*COMMAND, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows[:2]
