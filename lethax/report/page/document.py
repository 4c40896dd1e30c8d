"""The page as HTML. Every text from elsewhere passes `html.escape`; what the script reads is JSON that cannot close its element."""

import base64
import hashlib
import html
import importlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lethax import __version__
from lethax.errors import EnvironmentFault
from lethax.files import to_json
from lethax.progress import duration
from lethax.report.page import curves
from lethax.report.page.charts import Chart, colour, dash
from lethax.report.page.curves import Group
from lethax.report.page.gather import Told, now
from lethax.report.page.paths import paths
from lethax.report.page.probes import probes
from lethax.report.page.published import beside
from lethax.report.page.samples import Sampled
from lethax.text import counted, shown

_HERE = Path(__file__).parent


def plotly_script() -> str:
    """The script of plotly.js, which draws the charts. EnvironmentFault if the package plotly is missing."""
    try:
        offline: Any = importlib.import_module("plotly.offline")
    except ImportError:
        raise EnvironmentFault(
            'lethax report needs the package plotly, which is not installed: pip install "lethax[report]"'
        ) from None
    return str(offline.get_plotlyjs())


def text(value: Any, limit: int = 300) -> str:
    """Text from elsewhere, fit to stand in HTML."""
    return html.escape(shown(value, limit))


def embedded(value: Any) -> str:
    """JSON that may stand within a script element: no sign in it can end the element or begin a comment."""
    plain = to_json(value, None)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def document(runs: Sequence[Told], samples: Sequence[Sampled], why_none: str, refresh: float | None = None) -> str:
    """The whole page. samples: episodes to show, `why_none`: the sentence in their place. refresh: seconds between reloads."""
    charts: list[Chart] = []
    body = "\n".join([
        _summary(runs),
        _section("recipes", "What was run", _recipes(runs)),
        _section("learning", "Learning curves", _groups(curves.learning(runs), charts)),
        _section("scores", "Scores after adaptation", _groups(curves.adaptation(runs), charts) + _scores(runs)),
        _section("differences", "Paired differences", _differences(runs, charts)),
        _section("gates", "Gates γ", _groups(curves.gates(runs), charts)),
        _section("probes", "Probes", _groups(probes(runs), charts)),
        _section("paper", "Beside the paper", _paper(runs)),
        _section("episodes", "Sample episodes", _samples(samples, why_none)),
        _section("paths", "Paths", _groups(paths(runs), charts)),
    ])  # fmt: skip
    page = {
        "charts": [{"data": c.data, "layout": c.layout, "head": c.head, "rows": c.rows} for c in charts],
        "runs": len(runs), "refresh": refresh,
    }  # fmt: skip
    scripts = [plotly_script(), _read("script.js")]
    return _FRAME.format(
        policy=_policy(scripts), style=_read("style.css"), runs=_legend(runs), nav=_nav(body), body=body, data=embedded(page),
        plotly=scripts[0], script=scripts[1], count=counted(len(runs), "run"),
        made=f"lethax {text(__version__)}, {now()}",
    )  # fmt: skip


def _policy(scripts: Sequence[str]) -> str:
    """The content security policy: these scripts alone, and no request to anywhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Lethax report: {count}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>Lethax report</h1>
<p>{count}, {made}</p>
<button type="button" id="theme" aria-pressed="false">Dark</button>
</header>
<div class="columns">
<aside>
<details id="runs" open><summary>Runs</summary>{runs}</details>
<nav aria-label="Sections">{nav}</nav>
</aside>
<main id="content" tabindex="-1">
{body}
</main>
</div>
<script type="application/json" id="page">{data}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""
_STROKES = {"solid": "0", "dash": "6 4", "dot": "2 3", "dashdot": "7 3 2 3"}


def _legend(runs: Sequence[Told]) -> str:
    """A box for every run, which shows and hides it, with the colour and the dash of its curves."""
    boxes = "".join(
        f'<li><label><input type="checkbox" data-run="{told.number}" checked>{_swatch(told.number)}'
        f'<span title="{text(told.run.folder)}">{text(told.name, 80)}</span></label></li>'
        for told in runs
    )
    return (
        '<p class="buttons"><button type="button" id="all">Show all</button> <button type="button" id="none">Hide all</button></p>'
        f'<ul class="runs">{boxes}</ul>'
    )


def _swatch(run: int) -> str:
    """A piece of the line of a run."""
    return (
        f'<svg class="swatch" width="26" height="10" aria-hidden="true"><line x1="0" y1="5" x2="26" y2="5" stroke-width="3" '
        f'stroke="{colour(run)}" stroke-dasharray="{_STROKES[dash(run)]}"/></svg>'
    )


def _section(name: str, title: str, content: str) -> str:
    return (
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{title}</h2>\n{content}</section>'
        if content
        else ""
    )


def _nav(body: str) -> str:
    names = [piece.partition('"')[0] for piece in body.split('<section id="')[1:]]
    titles = [piece.partition("</h2>")[0].rpartition(">")[2] for piece in body.split("<h2 ")[1:]]
    return "<ul>" + "".join(f'<li><a href="#{n}">{t}</a></li>' for n, t in zip(names, titles, strict=True)) + "</ul>"


def _groups(groups: Iterable[Group], charts: list[Chart]) -> str:
    return "\n".join(f'<h3>{text(g.title)}</h3><div class="grid">{_figures(g.charts, charts)}</div>' for g in groups)


def _figures(made: Sequence[Chart], charts: list[Chart]) -> str:
    """Places for charts, which are added to `charts`. The script draws them, and fills their tables when they are opened."""
    pieces = []
    for chart in made:
        at = len(charts)
        charts.append(chart)
        only = f' data-only="{chart.runs[0]}"' if len(chart.runs) == 1 else ""
        height = chart.layout.get("height", 340)
        pieces.append(
            f'<figure{only}><figcaption><h4 id="t{at}">{text(chart.title)}</h4></figcaption>'
            f'<div class="chart" id="c{at}" role="img" aria-label="{text(chart.title)}. {text(chart.about, 600)}" '
            f'style="height:{int(height)}px"></div>'
            f'<p class="about">{text(chart.about, 600)}</p>'
            f'<details class="numbers" data-chart="{at}"><summary>Numbers<span class="hidden"> of {text(chart.title)}</span>'
            f"</summary></details></figure>"
        )
    return "".join(pieces)


def figure(value: Any, digits: int = 4) -> str:
    """A number of a table; "–" for one that is not finite or not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.{digits}g}" if isinstance(value, float) else text(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", runs: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already. runs: the run of each row, with which it is hidden."""
    marks = [f' data-row="{run}"' for run in runs] or [""] * len(rows)
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr{mark}><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
        for mark, (first, *others) in zip(marks, rows, strict=True)
    )
    said = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0"><table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _named(told: Told) -> str:
    return f"{_swatch(told.number)} {text(told.name, 80)}"


def _summary(runs: Sequence[Told]) -> str:
    rows = [
        [
            _named(told), text(told.run.recipe.data), text(told.run.recipe.method),
            f"{told.steps:,} of {told.run.recipe.outer.steps:,}" + ("" if told.finished else " (not finished)"),
            duration(told.seconds) if told.seconds else "–", _best(told), text(told.environment.get("device", "–"), 60),
        ]
        for told in runs
    ]  # fmt: skip
    head = ["run", "data", "method", "outer steps", "time", "best validation", "device"]
    content = table(head, rows, runs=[told.number for told in runs])
    return _section("overview", "Overview", content)


def _best(told: Told) -> str:
    values = [line["val_score"] for line in told.metrics if isinstance(line.get("val_score"), int | float)]
    if not values:
        return "–"
    best = (max if told.run.learner().objective.higher_is_better else min)(values)
    return f"{figure(told.factor * best)} {'%' if told.factor == 100 else text(told.score)}"


def _recipes(runs: Sequence[Told]) -> str:
    """The values that differ between the runs; those that all share are folded."""
    keys = dict.fromkeys(key for told in runs for key in told.values)
    cells = {key: [_value(told.values, key) for told in runs] for key in keys}
    differ = [key for key in keys if len(set(cells[key])) > 1]
    content = ""
    if differ:
        rows = []
        for told in runs:
            marks = [_marked(cells[key], cells[key][told.number]) for key in differ]
            rows.append([_named(told), *marks])
        content = "<p>These values differ between the runs. One that few runs have is highlighted.</p>" + table(
            ["run", *(text(key) for key in differ)], rows, runs=[told.number for told in runs]
        )
    elif len(runs) > 1:
        content = "<p>All runs have the same recipe.</p>"
    same = [[text(key), cells[key][0]] for key in keys if key not in differ]
    about = [
        [_named(told), text(told.environment.get("lethax", "–"), 40), text(told.environment.get("jax", "–"), 40),
         text(told.environment.get("started", "–"), 40), f"<code>{text(told.environment.get('command', '–'), 600)}</code>"]
        for told in runs
    ]  # fmt: skip
    return (
        content
        + f"<details><summary>{counted(len(same), 'value')} that all runs share</summary>{table(['value', 'is'], same)}</details>"
        + "<details><summary>Commands and versions</summary>"
        + table(["run", "lethax", "jax", "started", "command"], about, runs=[told.number for told in runs]) + "</details>"
    )  # fmt: skip


def _value(values: dict[str, Any], key: str) -> str:
    """A value of a recipe; "–" where the run does not read it."""
    value = values.get(key)
    if key not in values or value is None:
        return "–"
    if isinstance(value, tuple | list):
        return text(", ".join(map(str, value))) or "none"
    return text(json.dumps(value) if isinstance(value, bool) else value)


def _marked(column: Sequence[str], cell: str) -> str:
    """A cell, highlighted unless most runs have its value."""
    usual = max(column, key=column.count)
    return cell if cell == usual and column.count(usual) > 1 else f"<mark>{cell}</mark>"


def _scores(runs: Sequence[Told]) -> str:
    rows, numbers = [], []
    for told in runs:
        for row in curves.evaluation_rows([told]):
            _, data, split, unit, n, mean, half, median, *others = row
            interval = f"{figure(mean)} ± {figure(half, 3)}" if n > 1 else figure(mean)
            rows.append(
                [
                    _named(told),
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
        return "<p>None of the runs is evaluated yet: <code>lethax evaluate RUN</code> does it.</p>"
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
    return "<h3>All evaluations</h3>" + table(head, rows, runs=numbers)


def _differences(runs: Sequence[Told], charts: list[Chart]) -> str:
    found = list(curves.differences(runs))
    if not found:
        return ""
    rows = [
        [text(g.other), text(g.first), f"{g.mean:+.4g} ± {g.ci95:.3g}", f"{g.n:,}"] for _, gaps in found for g in gaps
    ]
    note = (
        "<p>Runs that were judged on the same episodes are compared episode by episode. An interval that does not contain 0 tells "
        "these two runs apart; it says nothing about other seeds.</p>"
    )
    return (
        note + _groups([group for group, _ in found], charts) + table(["run", "less", "difference", "episodes"], rows)
    )


def _paper(runs: Sequence[Told]) -> str:
    found = beside(runs)
    if not found:
        return ""
    rows = [
        [
            _named(b.told), text(b.cell.name), "–" if b.published is None else figure(b.published)
            + ("" if b.published_interval is None else f" ± {figure(b.published_interval, 3)}"),
            f"{figure(b.ours.mean)} ± {figure(b.ours.ci95, 3)}", text(curves.unit_of(b.evaluation.score)), f"{b.evaluation.n:,}",
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


def _samples(samples: Sequence[Sampled], why_none: str) -> str:
    said = f"<p>{text(why_none)}</p>" if why_none else ""
    return said + "".join(_sampled(sample) for sample in samples)


def _sampled(sample: Sampled) -> str:
    """One episode: the support set, and every query with what each run says of it."""
    support = "".join(_picture(p.source, f"support: {p.label}", text(p.label, 40)) for p in sample.support)
    queries = ""
    for place, query in enumerate(sample.queries):
        said = "".join(
            f'<span class="{"right" if guess == query.label else "wrong"}" data-row="{run}">{_swatch(run)} '
            f"{'✓' if guess == query.label else '✗'} {text(guess, 40)}</span>"
            for run, guesses in sample.predictions.items()
            for guess in [guesses[place]]
        )
        queries += _picture(query.source, f"query: {query.label}", f"{text(query.label, 40)}{said}")
    return (
        f"<h3>{text(sample.title)}</h3><h4>Support</h4><div class='pictures'>{support}</div>"
        f"<h4>Queries, with the class and what each run says</h4><div class='pictures'>{queries}</div>"
    )


def _picture(source: str, about: str, caption: str) -> str:
    image = f'<img src="{source}" alt="{text(about)}" width="64" height="64">'
    return f'<figure class="picture">{image}<figcaption>{caption}</figcaption></figure>'
