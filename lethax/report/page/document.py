"""The whole page: its frame, its scripts, and the order of its sections."""

import base64
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lethax import __version__
from lethax.errors import EnvironmentFault
from lethax.report.page import curves
from lethax.report.page.charts import Chart
from lethax.report.page.gather import Told, now
from lethax.report.page.paths import paths
from lethax.report.page.pieces import embedded, groups, swatch, text
from lethax.report.page.probes import probes
from lethax.report.page.samples import Sampled
from lethax.report.page.sections import differences, episodes, overview, paper, recipes, scores
from lethax.text import counted

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


def document(runs: Sequence[Told], samples: Sequence[Sampled], why_none: str, refresh: float | None = None) -> str:
    """The whole page. samples: episodes to show, `why_none`: the sentence in their place. refresh: seconds between reloads."""
    charts: list[Chart] = []
    every = [
        ("overview", "Overview", overview(runs)),
        ("recipes", "What was run", recipes(runs)),
        ("learning", "Learning curves", groups(curves.learning(runs), charts)),
        ("scores", "Scores after adaptation", groups(curves.adaptation(runs), charts) + scores(runs)),
        ("differences", "Paired differences", differences(runs, charts)),
        ("gates", "Gates γ", groups(curves.gates(runs), charts)),
        ("probes", "Probes", groups(probes(runs), charts)),
        ("paper", "Beside the paper", paper(runs)),
        ("episodes", "Sample episodes", episodes(samples, why_none)),
        ("paths", "Paths", groups(paths(runs), charts)),
    ]
    there = [(name, title, content) for name, title, content in every if content]
    page = {
        "charts": [{"data": c.data, "layout": c.layout, "head": c.head, "rows": c.rows} for c in charts],
        "runs": len(runs), "refresh": refresh,
    }  # fmt: skip
    scripts = [plotly_script(), _read("script.js")]
    return _FRAME.format(
        policy=_policy(scripts), style=_read("style.css"), runs=_legend(runs), nav=_nav(there),
        body="\n".join(_section(*one) for one in there), data=embedded(page),
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


def _legend(runs: Sequence[Told]) -> str:
    """A box for every run, which shows and hides it, with the colour and the dash of its curves."""
    boxes = "".join(
        f'<li><label><input type="checkbox" data-run="{told.number}" checked>{swatch(told.number)}'
        f'<span title="{text(told.run.folder)}">{text(told.name, 80)}</span></label></li>'
        for told in runs
    )
    return (
        '<p class="buttons"><button type="button" id="all">Show all</button> <button type="button" id="none">Hide all</button></p>'
        f'<ul class="runs">{boxes}</ul>'
    )


def _nav(sections: Sequence[tuple[str, str, str]]) -> str:
    return "<ul>" + "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections) + "</ul>"


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{title}</h2>\n{content}</section>'
