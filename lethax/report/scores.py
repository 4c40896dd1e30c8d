"""What `lethax evaluate` prints: a title, a table that fits the terminal, and a line about gates."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lethax.evaluation import paired
from lethax.text import counted, plural, showable, shown, sized

BASELINE = "nearest prototype, no learning"
_LONGEST = 32  # columns that names are given before the table is split in two
_NAMED = 5  # classes that a sentence names
_SHORTEST = 8  # columns that names are given in the narrowest terminal
_ENORMOUS = 1e3  # times the score after the steps of training
_GAP = 2  # columns between two columns of a table


def number(value: float, sign: str = "") -> str:
    """Write a number with four decimals, or with fewer if it is large, so that a column stays narrow."""
    size = abs(value)
    if size >= 1e6:
        return f"{value:{sign}.2e}"
    return f"{value:{sign},.{4 if size < 10 else 2 if size < 1e4 else 0}f}"


def interval(mean: float, ci95: float, n: int, sign: str = "") -> str:
    """ "0.5123 ± 0.0045"; of a single episode, which has no interval, "0.5123 (n = 1)"."""
    return f"{number(mean, sign)} (n = 1)" if n == 1 else f"{number(mean, sign)} ± {number(ci95)}"


def meaning(n: int) -> str:
    """What ± stands for, as the end of a title; "" for a single episode, which has no interval."""
    return "" if n == 1 else "; ± is 1.96 s/√n"


def title(results: Sequence[Any]) -> str:
    """A title that says what was evaluated: "accuracy on 600 test episodes of cifar_fs: 5-way 1-shot, 5 inner steps, seed 0"."""

    def all_of(name: str) -> str:
        found = (r.record[name] for r in results)
        return " or ".join(dict.fromkeys(f"{x:,}" if name == "n" else shown(x, 60) for x in found))

    first = results[0].record
    ways, shots = (" or ".join(dict.fromkeys(sized(r.record[of], of) for r in results)) for of in ("way", "shot"))
    classes = "" if first["way"] == 1 else f"{ways} "
    trained = list(
        dict.fromkeys(shown(r.record["elsewhere"]["trained_on"], 60) for r in results if "elsewhere" in r.record)
    )
    where = f"{all_of('data')}{', trained on ' + ' or '.join(trained) if trained else ''}"
    episodes = f"{all_of('n')} {first['split']} {plural(first['n'], 'episode')} of {where}"
    steps = f"{all_of('inner_steps')} inner {plural(max(r.record['inner_steps'] for r in results), 'step')}"
    changed = "".join(
        f", {name} {first['changed'][name]}" for name in ("head", "norm") if name in first.get("changed", {})
    )
    return f"{first['score']} on {episodes}: {classes}{shots}, {steps}{changed}, seed {all_of('seed')}{meaning(first['n'])}"


def tables(folders: Sequence[Path], results: Sequence[Any], width: int, encoding: str) -> list[Table]:
    """Make a table of scores, also after each number of inner steps; two tables if that does not fit the terminal.

    width: columns of the terminal. encoding: that of the terminal, whose signs alone the cells have.
    """
    names = short_names(folders)
    last = min(len(result.curve) for result in results) - 1
    steps = sorted({0, min(1, last), last})
    scores = [["run", "score", *(["less the first"] if len(_lines(names, results)) > 1 else [])]]
    scores += [[name, score, *([gap] if len(scores[0]) > 2 else [])] for name, score, gap in _lines(names, results)]
    curves = [["run", *(f"step {step}" for step in steps)]]
    curves += [[name, *(number(r.curve[j].mean) for j in steps)] for name, r in zip(names, results, strict=True)]
    empty = [[""] * len(steps)] * (len(scores) - len(curves))
    scores, curves = ([[showable(cell, encoding) for cell in row] for row in rows] for rows in (scores, curves))
    joined = [[*left, *right] for left, right in zip(scores, [*(row[1:] for row in curves), *empty], strict=True)]
    parts = [joined] if sum(_widths(joined)) <= width else [scores, curves]
    return [_table(rows, width) for rows in parts]


def unpaired(folders: Sequence[Path], results: Sequence[Any]) -> str:
    """A sentence that says why a run has no difference to the first one; "" if each has one."""
    first = results[0].record["episodes_hash"]
    others = [shown(f) for f, r in zip(folders, results, strict=True) if r.record["episodes_hash"] != first]
    if not others:
        return ""
    has = "has" if len(others) == 1 else "have"
    return f"{', '.join(others)} {has} no difference to the first run: episodes of another data set or shape cannot be paired."


def elsewhere(record: dict[str, Any]) -> list[str]:
    """Sentences on data that a run was not trained on: how they were seen, and which of their classes the run has seen."""
    found = record.get("elsewhere")
    if not found:
        return []
    data, own = shown(record["data"], 60), shown(found["trained_on"], 60)
    if own == data:
        own = f"the {data} that the run was trained on"
    said = []
    if len(found["example"]) == 3:
        done = [
            *_reshaped(found["resized_from"] or found["example"], found["example"]),
            f"normalised as those of {own}",
        ]
        said.append(f"The pictures of {data} were {', '.join(done[:-1])}{', and ' if done[:-1] else ''}{done[-1]}.")
    known = found["shared"]
    for how, names in (("pictures", known["by_picture"]), ("names", known["by_name"])):
        if names:
            some = ", ".join(shown(name, 40) for name in names[:_NAMED]) + (", …" if names[_NAMED:] else "")
            said.append(
                f"Of {counted(known['classes'], 'test class')} of {data}, {len(names)} "
                f"{'is' if len(names) == 1 else 'are'} by their {how} among those that the run was trained or chosen on ({some}): "
                "this is not accuracy on new classes alone."
            )
    if known["seen"]:
        said.append(
            f"{known['seen']:,} of its {counted(known['pictures'], 'test picture')} are, bit for bit, among those of {own}."
        )
    if known["by_picture"] is None:
        why = "their shapes differ" if found["resized_from"] else f"{own} is not there as it was"
        said.append(f"Whether pictures of {data} are among those of {own} was not looked at, because {why}.")
    return said


def _reshaped(was: Sequence[int], now: Sequence[int]) -> list[str]:
    """What was done with pictures of one shape to have another."""
    done = []
    if was[2] != now[2]:
        done.append("made gray" if now[2] == 1 else "given three equal channels")
    if was[:2] != now[:2]:
        before, after = (" x ".join(map(str, size[:2])) for size in (was, now))
        done.append(f"resized from {before} to {after} pixels")
    return done


def short_names(folders: Sequence[Path]) -> list[str]:
    """The names of the runs without the folder that holds them all. A single run has its path as it was given."""
    paths = [str(folder) for folder in folders]
    above = (
        os.path.commonpath([os.path.dirname(path) or "." for path in paths])
        if len(set(map(os.path.isabs, paths))) == 1
        else ""
    )
    short = [os.path.relpath(path, above) if above and len(paths) > 1 else path for path in paths]
    return [shown(name) for name in short]


def _lines(names: Sequence[str], results: Sequence[Any]) -> list[tuple[str, str, str]]:
    """A line (name, score, difference to the first) for every run, and for the baseline on each list of episodes."""
    first, lines = results[0].record, []
    for name, result in zip(names, results, strict=True):
        same = result is not results[0] and result.record["episodes_hash"] == first["episodes_hash"]
        lines.append(
            (
                name,
                interval(result.score.mean, result.score.ci95, result.score.n),
                _gap(result.score.per_task, first) if same else "",
            )
        )
    lists = {r.record["episodes_hash"]: r.record for r in results if "nearest_prototype" in r.record}
    for name, record in zip(_baseline_names(list(lists.values())), lists.values(), strict=True):
        found, same = record["nearest_prototype"], record["episodes_hash"] == first["episodes_hash"]
        gap = _gap(np.asarray(found["per_episode"]), first) if same else ""
        lines.append((name, interval(found["mean"], found["ci95"], record["n"]), gap))
    for run, result in zip(names, results, strict=True):
        record, same = result.record, result.record["episodes_hash"] == first["episodes_hash"]
        for found in record.get("baselines", {}).values():
            if found["per_episode"] == record.get("nearest_prototype", {}).get("per_episode"):
                continue  # it stands there already
            name = f"{title_of(found)}, {run}" if len(names) > 1 else title_of(found)
            gap = _gap(np.asarray(found["per_episode"]), first) if same else ""
            lines.append((name, interval(found["mean"], found["ci95"], record["n"]), gap))
    return lines


def title_of(baseline: dict[str, Any]) -> str:
    """ "linear probe on cifar_fs"."""
    return f"{baseline['title']} on {shown(baseline['on'], 60)}"


def setting_of(baseline: dict[str, Any]) -> str:
    """ "linear probe on cifar_fs: decay 0.01, chosen on 100 validation episodes"; "" for a baseline without settings."""
    setting = ", ".join(f"{key} {value:g}" for key, value in baseline["setting"].items())
    return f"{title_of(baseline)}: {setting}, chosen {baseline['chosen']}" if setting else ""


def verdicts(name: str, record: dict[str, Any]) -> list[str]:
    """Say of the baselines of a run what their settings are, which are better than the run, and what their weights have seen."""
    said = [how for found in record.get("baselines", {}).values() if (how := setting_of(found))]
    for found in record.get("baselines", {}).values():
        if found["wins"]:
            gap = found["difference"]
            by = interval(abs(gap["mean"]), gap["ci95"], record["n"])
            said.append(f"The baseline is better: {title_of(found)} beats {name} by {by} on the same episodes.")
    cautions = [record, *record.get("baselines", {}).values()]
    return said + list(dict.fromkeys(found["caution"] for found in cautions if "caution" in found))


def beyond(results: Sequence[Any]) -> str:
    """Say why a score after more inner steps than training had is enormous; the empty string where none is."""
    trained = {result.record["inner_steps"] for result in results}
    if not any(result.curve[-1].mean > _ENORMOUS * max(result.score.mean, 1.0) for result in results):
        return ""
    steps = " or ".join(map(str, sorted(trained)))
    return (
        f"Training had {steps} inner {plural(max(trained), 'step')}. After more of them the error has no bound on some tasks, and "
        "the mean is theirs alone: --steps shows fewer."
    )


def _baseline_names(records: Sequence[dict[str, Any]]) -> list[str]:
    """The name of the baseline on each list of episodes. If there are several, it says their data set and how they differ."""
    if len(records) < 2:
        return [BASELINE] * len(records)
    kinds = [
        (shown(r["data"], 60), f"{r['way']}-way", f"{r['shot']}-shot", counted(r["query"], "query")) for r in records
    ]
    told = [column for i, column in enumerate(zip(*kinds, strict=True)) if not i or len(set(column)) > 1]
    return [f"nearest prototype on {', '.join(words)}" for words in zip(*told, strict=True)]


def _gap(per_task: np.ndarray, first: dict[str, Any]) -> str:
    gap = paired(per_task, np.asarray(first["per_episode"]))
    return interval(gap.mean, gap.ci95, gap.n, "+")


def _widths(rows: list[list[str]]) -> list[int]:
    """The width of the column of names, which is bounded because long names fold, and of each column of numbers."""
    names, *numbers = (max(map(cell_len, column)) for column in zip(*rows, strict=True))
    return [min(names, _LONGEST), *(width + _GAP for width in numbers)]


def _table(rows: list[list[str]], width: int) -> Table:
    """Make a table whose first row is the header. Names fold where they are long; numbers never do."""
    room = max(width - sum(_widths(rows)[1:]), _SHORTEST)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(rows[0][0], overflow="fold")
    for header in rows[0][1:]:
        table.add_column(header, no_wrap=True)
    for name, *numbers in rows[1:]:
        table.add_row(Text(folded(name, room)), *map(Text, numbers))
    return table


def folded(name: str, room: int) -> str:
    """Break a name into lines of at most `room` columns, if possible after a space or one of - _ / +."""
    lines = [""]
    for piece in re.findall(r"[^-_/+ ]*[-_/+ ]|[^-_/+ ]+", name):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def gates(record: dict[str, Any]) -> str:
    """A line about the gates of a result; "" if there are none."""
    found = sorted(record.get("gates", []), key=lambda gate: gate["mean"])
    if not found:
        return ""
    low, high = found[0], found[-1]
    mean = sum(gate["mean"] for gate in found) / len(found)
    ends = f"lowest {low['mean']:.3f} ({low['name']}), highest {high['mean']:.3f} ({high['name']})"
    return f"{counted(len(found), 'gate')}: mean {mean:.3f}, {ends}"
