"""The table of `lethax evaluate`: names whole, numbers unbroken, at any width; what it says of the episodes and of gates."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lethax.evaluation import score
from lethax.report import columns, scores
from lethax.runs.evaluation import Result


def result(per_task, inner=2, last=10, hash_="a", method="maml", gates=(), baseline=True, data="cifar_fs", shot=1):
    final = score(np.asarray(per_task))
    record = {
        "data": data, "split": "test", "way": 5, "shot": shot, "query": 15, "inner_steps": inner, "seed": 0, "score": "accuracy",
        "n": final.n, "episodes_hash": hash_, "per_episode": final.per_task.tolist(),
        "gates": [{"name": name, "mean": mean, "std": 0.1} for name, mean in gates],
    }  # fmt: skip
    if baseline:
        record["nearest_prototype"] = {"mean": 0.45, "ci95": 0.02, "per_episode": [0.45] * final.n}
    return Result(final, [final] * (last + 1), record, Path("x"), {}, None)


RUNS = [Path("runs/cifar_fs-maml-5shot-seed0"), Path("runs/cifar_fs-maml+l2f-5shot-seed0")]
TWO = [result([0.4, 0.6]), result([0.5, 0.8])]


def drawn(folders, results, width, encoding="utf-8"):
    console = Console(width=width, record=True, file=io.StringIO())
    for table in scores.tables(folders, results, width, encoding):
        console.print(table)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    return lines


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_are_whole_and_numbers_unbroken(width):
    lines = drawn(RUNS, TWO, width)
    names = {line.split()[0] for line in lines if line.startswith("cifar")}
    text = "\n".join(lines)
    assert {"cifar_fs-maml-5shot-seed0", "cifar_fs-maml+l2f-5shot-seed0"} <= names and "…" not in text
    for number in ("0.5000 ± 0.1386", "0.6500 ± 0.2079", "+0.1500 ± 0.0693", "0.4500 ± 0.0200", "-0.0500 ± 0.1386"):
        assert number in text, number
    assert text.count("step 10") == 1 and "nearest prototype" in text


def test_one_step_is_not_shown_twice_and_one_episode_has_no_interval():
    single = [result([0.4], inner=1, last=1)]
    text = "\n".join(drawn(RUNS[:1], single, 80))
    assert text.count("step 1") == 1 and "±" not in text and "0.4000 (n = 1)" in text
    assert scores.title(single) == "accuracy on 1 test episode of cifar_fs: 5-way 1-shot, 1 inner step, seed 0"
    single[0].record["norm"] = "support"
    assert columns.title(single).endswith("1 inner step, norm support, seed 0")


def test_title_names_data_way_shot_and_inner_steps():
    said = scores.title(TWO)
    assert said == "accuracy on 2 test episodes of cifar_fs: 5-way 1-shot, 2 inner steps, seed 0; ± is 1.96 s/√n"
    other = result([0.4, 0.6])
    other.record["way"] = 2
    assert ": 5-way or 2-way 1-shot, " in scores.title([TWO[0], other])
    assert ", 1 or 2 inner steps, " in scores.title([result([0.4, 0.6], inner=1), TWO[0]])


def test_other_episodes_have_no_difference_and_a_baseline_of_their_own():
    lines = drawn(RUNS, [TWO[0], result([0.5, 0.8], hash_="b", data="fc100")], 120)
    baselines = [line.partition("  ")[0].strip() for line in lines if line.startswith("nearest prototype")]
    assert baselines == ["nearest prototype on cifar_fs", "nearest prototype on fc100"]
    assert not any("+0.1500" in line for line in lines)


def test_the_baseline_says_what_differs_between_its_episodes():
    text = "\n".join(drawn(RUNS, [TWO[0], result([0.5, 0.8], hash_="b", shot=5)], 120))
    assert "nearest prototype on cifar_fs, 1-shot " in text and "nearest prototype on cifar_fs, 5-shot " in text
    assert scores.BASELINE in "\n".join(drawn(RUNS, TWO, 120))


def test_long_names_fold_between_their_words():
    name = "cifar_fs-maml_pp+l2f-5shot-without_first_order-seed0"
    lines = drawn([Path(name), Path("maml")], TWO, 66)
    names = [line[:30].strip() for line in lines[2:5]]
    assert names == ["cifar_fs-maml_pp+l2f-5shot-", "without_first_order-seed0", "maml"]
    assert scores.folded("runs/a-bc_d", 6) == "runs/\na-bc_d" and scores.folded("a b", 2) == "a\nb"
    assert scores.folded("x" * 9, 4) == "x" * 9  # a word that is too long is left to the table


def test_columns_stay_aligned_where_a_terminal_lacks_the_signs():
    lines = drawn(RUNS, TWO, 120, "ascii")
    numbers = [line for line in lines if "+/-" in line]
    assert len(numbers) == 3 and "±" not in "\n".join(lines)
    second = lines[0].index("less the first")
    assert all(line[second] in "+- " and line[second - 1] == " " for line in numbers)


def test_brackets_in_a_path_are_no_markup():
    lines = drawn([Path("x[/y]"), Path("x[bold]")], TWO, 100)
    assert any(line.startswith("x[/y]") for line in lines) and any(line.startswith("x[bold]") for line in lines)


def test_names_without_the_folder_that_all_lie_in():
    assert scores.short_names(RUNS) == ["cifar_fs-maml-5shot-seed0", "cifar_fs-maml+l2f-5shot-seed0"]
    assert scores.short_names([Path("a/b/x"), Path("a/c/x")]) == ["b/x", "c/x"]
    assert scores.short_names([Path("x"), Path("a/x")]) == ["x", "a/x"]
    assert scores.short_names([Path("runs/x")]) == ["runs/x"]
    assert scores.short_names([Path("/a/x"), Path("b/x")]) == ["/a/x", "b/x"]
    assert scores.short_names([Path("x\x1b[2J")]) == ["x\\x1b[2J"]


def test_gates_are_one_line():
    of = result([0.4, 0.6], gates=[("conv0", 0.2), ("conv1", 0.6), ("head", 0.7)])
    assert scores.gates(of.record) == "3 gates: mean 0.500, lowest 0.200 (conv0), highest 0.700 (head)"
    assert scores.gates(TWO[0].record) == ""


@pytest.mark.parametrize(
    "value,text",
    [(0.51234, "0.5123"), (-123.456, "-123.46"), (54321.0, "54,321"), (1.5e9, "1.50e+09"), (np.nan, "nan")],
)
def test_numbers_stay_narrow(value, text):
    assert scores.number(value) == text


def test_an_error_without_bound_is_explained():
    """Only a squared error can be enormous; scores of as many steps as in training never are."""
    fine, wild = result([0.4, 0.6], inner=1), score(np.array([0.5, 1e9]))
    assert (
        scores.beyond(TWO) == "" and scores.beyond([fine._replace(curve=[*fine.curve, score(np.array([9.0]))])]) == ""
    )
    said = scores.beyond([fine, fine._replace(curve=[*fine.curve, wild])])
    assert said.startswith("Training had 1 inner step. After more of them the error has no bound on some tasks")
