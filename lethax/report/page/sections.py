"""The sections of the page that are tables and pictures."""

import json
from collections.abc import Sequence
from typing import Any

from lethax.progress import duration
from lethax.report.page import curves
from lethax.report.page.charts import Chart
from lethax.report.page.gather import Told, unit_of
from lethax.report.page.pieces import figure, groups, named, swatch, table, text
from lethax.report.page.published import beside
from lethax.report.page.samples import Sampled
from lethax.text import counted

_SEEN = 2000  # characters of the sentence about what weights have seen, which names classes


def overview(runs: Sequence[Told]) -> str:
    """A line for every run."""
    rows = [
        [
            named(told), text(told.run.recipe.data), text(told.run.recipe.method),
            f"{told.steps:,} of {told.run.recipe.outer.steps:,}" + ("" if told.finished else " (not finished)"),
            duration(told.seconds) if told.seconds else "–", _best(told), text(told.environment.get("device", "–"), 60),
        ]
        for told in runs
    ]  # fmt: skip
    head = ["run", "data", "method", "outer steps", "time", "best validation", "device"]
    return table(head, rows, runs=[told.number for told in runs])


def _best(told: Told) -> str:
    values = [line["val_score"] for line in told.metrics if isinstance(line.get("val_score"), int | float)]
    if not values:
        return "–"
    best = (max if told.run.learner().objective.higher_is_better else min)(values)
    return f"{figure(told.factor * best)} {'%' if told.factor == 100 else text(told.score)}"


def recipes(runs: Sequence[Told]) -> str:
    """The values that differ between the runs; those that all share are folded."""
    keys = dict.fromkeys(key for told in runs for key in told.values)
    cells = {key: [_value(told.values, key) for told in runs] for key in keys}
    differ = [key for key in keys if len({cell for cell in cells[key] if cell != _UNREAD}) > 1]
    content = ""
    if differ:
        marked = {key: [_marked(cells[key], cell) for cell in cells[key]] for key in differ}
        names, numbers = [named(told) for told in runs], [told.number for told in runs]
        content = "<p>These values differ between the runs. Those that fewer runs have than another value are highlighted.</p>"
        if len(runs) <= len(differ):  # whichever way is narrower
            content += table(["value", *names], [[text(key), *marked[key]] for key in differ], columns=numbers)
        else:
            rows = [[name, *(marked[key][i] for key in differ)] for i, name in enumerate(names)]
            content += table(["run", *map(text, differ)], rows, runs=numbers)
    elif len(runs) > 1:
        content = "<p>All runs have the same recipe.</p>"
    same = [
        [text(key), next((cell for cell in cells[key] if cell != _UNREAD), _UNREAD)]
        for key in keys
        if key not in differ
    ]
    about = [
        [named(told), text(told.environment.get("lethax", "–"), 40), text(told.environment.get("jax", "–"), 40),
         text(told.environment.get("started", "–"), 40), f"<code>{text(told.environment.get('command', '–'), 600)}</code>"]
        for told in runs
    ]  # fmt: skip
    return (
        content
        + f"<details><summary>{counted(len(same), 'value')} in which all runs agree that read them</summary>"
        + f"{table(['value', 'is'], same)}</details>"
        + "<details><summary>Commands and versions</summary>"
        + table(["run", "lethax", "jax", "started", "command"], about, runs=[told.number for told in runs]) + "</details>"
    )  # fmt: skip


_UNREAD = "–"  # a value that a run does not read


def _value(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return _UNREAD
    value = values[key]
    if isinstance(value, tuple | list):
        return text(", ".join(map(str, value))) or "none"
    return text(json.dumps(value) if isinstance(value, bool) else value)


def _marked(column: Sequence[str], cell: str) -> str:
    """A cell, highlighted if more runs have another value, or all have different ones."""
    read = [one for one in column if one != _UNREAD]
    most = max(map(read.count, read))
    few = read.count(cell) < most or most == 1
    return f"<mark>{cell}</mark>" if few and cell != _UNREAD else cell


def _damaged(runs: Sequence[Told]) -> str:
    return "".join(f"<p>An evaluation is left out: {text(one, 600)}</p>" for told in runs for one in told.damaged)


def scores(runs: Sequence[Told]) -> str:
    """All evaluations as a table, and what is wrong with those that are left out."""
    rows, numbers = [], []
    for told in runs:
        for row in curves.evaluation_rows([told]):
            _, data, split, unit, n, mean, half, median, *others = row
            interval = _around(figure(mean), half, n)
            rows.append(
                [
                    named(told),
                    text(data),
                    text(split),
                    text(unit),
                    f"{n:,}",
                    interval,
                    figure(median),
                    *map(text, others),
                ]
            )
            numbers.append(told.number)
    if not rows:
        return f"<p>None of the runs is evaluated yet: <code>lethax evaluate RUN</code> does it.</p>{_damaged(runs)}"
    head = [
        "run",
        "data",
        "split",
        "score",
        "episodes",
        "mean ± 1.96 s/√n",
        "median",
        "inner steps",
        "checkpoints",
        "seed",
    ]
    seen = dict.fromkeys(one.caution for told in runs for one in told.evaluations if one.caution)
    return (
        f"<h3>All evaluations</h3>{_damaged(runs)}"
        + table(head, rows, runs=numbers)
        + "".join(f"<p>{text(said, _SEEN)}</p>" for said in seen)
    )


def _around(mean: str, half: float, n: int) -> str:
    """A mean with its interval, which a single episode does not have."""
    return f"{mean} ± {figure(half, 3)}" if n > 1 else mean


def differences(runs: Sequence[Told], charts: list[Chart]) -> str:
    """Paired differences, as charts and as a table."""
    found = list(curves.differences(runs))
    if not found:
        return ""
    rows = [
        [text(g.name), text(g.base), _around(f"{g.mean:+.4g}", g.ci95, g.n), f"{g.n:,}"]
        for _, gaps in found
        for g in gaps
    ]
    note = (
        "<p>Runs that were judged on the same episodes are compared episode by episode. An interval that does not contain 0 tells "
        "these two runs apart; it says nothing about other seeds.</p>"
    )
    return note + groups([group for group, _ in found], charts) + table(["run", "less", "difference", "episodes"], rows)


def paper(runs: Sequence[Told]) -> str:
    """The table of runs that are cells of the paper; "" if there are none."""
    found = beside(runs)
    if not found:
        return ""
    rows = [
        [
            named(b.told), text(b.cell.name), "–" if b.published is None else figure(b.published)
            + ("" if b.published_interval is None else f" ± {figure(b.published_interval, 3)}"),
            _around(figure(b.ours.mean), b.ours.ci95, b.evaluation.n), text(unit_of(b.evaluation.score)), f"{b.evaluation.n:,}",
            str(b.evaluation.checkpoints), f"{100 * b.share:.3g} %", text(b.source) or "–",
        ]
        for b in found
    ]  # fmt: skip
    note = (
        "<p>These runs have the recipe of a cell of the paper's tables, but for the number of outer steps and the seed. The "
        "interval of a run is over its test episodes. What is printed after ± in the paper may be √(p(1 − p)), which is no "
        "interval.</p>"
    )
    head = [
        "run",
        "cell",
        "published",
        "this run",
        "score",
        "episodes",
        "checkpoints",
        "share of the outer steps",
        "source",
    ]
    return note + table(head, rows, runs=[b.told.number for b in found])


def episodes(samples: Sequence[Sampled], why_none: str) -> str:
    """Sample episodes, and why others are missing."""
    said = f"<p>{text(why_none)}</p>" if why_none else ""
    return said + "".join(_sampled(sample) for sample in samples)


def _sampled(sample: Sampled) -> str:
    """One episode: the support set, and every query with what each run says of it."""
    support = "".join(_picture(p.source, f"support: {p.label}", text(p.label, 40)) for p in sample.support)
    queries = ""
    for place, query in enumerate(sample.queries):
        said = "".join(
            f'<span class="{"right" if guess == query.label else "wrong"}" data-row="{run}">{swatch(run)} '
            f"{'✓' if guess == query.label else f'✗ {text(guess, 40)}'}</span>"
            for run, guesses in sample.predictions.items()
            for guess in [guesses[place]]
        )
        queries += _picture(query.source, f"query: {query.label}", f"{text(query.label, 40)}{said}")
    return (
        f"<h3>{text(sample.title)}</h3><h4>Support</h4><div class='pictures'>{support}</div>"
        f"<h4>Queries: the class, and ✓ or what a run says instead</h4><div class='pictures'>{queries}</div>"
    )


def _picture(source: str, about: str, caption: str) -> str:
    image = f'<img src="{source}" alt="{text(about)}" width="64" height="64">'
    return f'<figure class="picture">{image}<figcaption>{caption}</figcaption></figure>'
