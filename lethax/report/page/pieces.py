"""Pieces of HTML. Every text from elsewhere passes `html.escape`; what the script reads is JSON that cannot end its element."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from lethax.files import to_json
from lethax.report.page.charts import Chart, colour, dash
from lethax.report.page.curves import Group
from lethax.report.page.gather import Told
from lethax.text import shown


def text(value: Any, limit: int = 300) -> str:
    """Text from elsewhere, fit to stand in HTML."""
    return html.escape(shown(value, limit))


def embedded(value: Any) -> str:
    """JSON that may stand within a script element: no sign in it can end the element or begin a comment."""
    plain = to_json(value, None)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure(value: Any, digits: int = 4) -> str:
    """A number of a table; "–" for one that is not finite or not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.{digits}g}" if isinstance(value, float) else text(value)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], runs: Sequence[int] = (), columns: Sequence[int] = ()
) -> str:
    """A table of cells that are HTML already. runs, columns: the run of each row, or of each column but the first."""
    down = [_mark(run) for run in runs] or [""] * len(rows)
    across = [_mark(run) for run in columns] or [""] * (len(head) - 1)
    first, *others = head
    top = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col"{mark}>{cell}</th>' for mark, cell in zip(across, others, strict=True)
    )
    body = "".join(
        f'<tr{mark}><th scope="row">{name}</th>'
        + "".join(f"<td{of_run}>{cell}</td>" for of_run, cell in zip(across, cells, strict=True))
        + "</tr>"
        for mark, (name, *cells) in zip(down, rows, strict=True)
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _mark(run: int) -> str:
    """The attribute by which the page hides what is of a run."""
    return f' data-row="{run}"'


_STROKES = {"solid": "0", "dash": "6 4", "dot": "2 3", "dashdot": "7 3 2 3"}


def swatch(run: int) -> str:
    """A piece of the line of a run."""
    return _stroke(colour(run), dash(run))


def _stroke(colour: str, dash: str) -> str:
    return (
        f'<svg class="swatch" width="26" height="10" aria-hidden="true"><line x1="0" y1="5" x2="26" y2="5" stroke-width="3" '
        f'stroke="{colour}" stroke-dasharray="{_STROKES[dash]}"/></svg>'
    )


def _keys(chart: Chart) -> str:
    """The names of the curves of a chart."""
    items = (f'<li data-row="{k.run}">{_stroke(k.colour, k.dash)} {text(k.name, 60)}</li>' for k in chart.keys)
    return f'<ul class="keys">{"".join(items)}</ul>' if chart.keys else ""


def named(told: Told) -> str:
    """A run with a piece of its line."""
    return f"{swatch(told.number)} {text(told.name, 80)}"


def groups(groups: Iterable[Group], charts: list[Chart]) -> str:
    """Groups of charts, each under its heading. The charts are added to `charts`."""
    return "\n".join(f'<h3>{text(g.title)}</h3><div class="grid">{figures(g.charts, charts)}</div>' for g in groups)


def figures(made: Sequence[Chart], charts: list[Chart]) -> str:
    """Places for charts, which are added to `charts`. The script draws them, and fills their tables when they are opened."""
    pieces = []
    for chart in made:
        at = len(charts)
        charts.append(chart)
        only = f' data-only="{chart.runs[0]}"' if len(chart.runs) == 1 else ""
        height = chart.layout.get("height", 340)
        pieces.append(
            f'<figure{only}><figcaption><h4 id="t{at}">{text(chart.title)}</h4></figcaption>'
            f'{_keys(chart)}<div class="chart" id="c{at}" role="img" aria-label="{text(chart.title)}. {text(chart.about, 600)}" '
            f'style="height:{int(height)}px"></div>'
            f'<p class="about">{text(chart.about, 600)}</p>'
            f'<details class="numbers" data-chart="{at}"><summary>Numbers<span class="hidden"> of {text(chart.title)}</span>'
            f"</summary></details></figure>"
        )
    return "".join(pieces)
