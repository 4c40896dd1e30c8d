"""Charts as plotly.js takes them, each with the table of its numbers. Whatever is drawn comes from rows of `gather`.

A chart is {"data": traces, "layout": layout}. A trace of a run has its number under "run", by which the page shows and hides it.
Names are escaped here, because plotly.js reads a little HTML in every text.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lethax.text import shown

# Readable on white and on black; the tenth run and those after it have other dashes.
COLOURS = (
    "#3b7dd8", "#d9730d", "#2f9e44", "#e03e3e", "#9065d0", "#0c9aa8", "#d6498f", "#a0673a", "#8a8f1c", "#7a828e",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot")
POINTS = 200  # of a curve; more than a screen shows only slow the page down
_ALL_POINTS = 3000  # of all curves of a chart
KEYS = 8  # curves that are named above a chart, unless another number is given


class Key(NamedTuple):
    """The name of a curve, its run, and what its line looks like."""

    name: str
    run: int
    colour: str
    dash: str


class Chart(NamedTuple):
    """A chart with its title, a sentence for those who do not see it, and its numbers as a table.

    runs: the numbers of the runs in it; a chart of a single run is hidden with it. keys: what is named above it.
    """

    title: str
    about: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    head: list[str]
    rows: list[list[Any]]
    runs: tuple[int, ...]
    keys: Sequence[Key] = ()


class Line(NamedTuple):
    """A curve. half: half-widths of its intervals; low, high: a band of other ends. Numbers that are not finite leave a gap."""

    name: str
    run: int
    x: Sequence[Any]
    y: Sequence[float]
    half: Sequence[float] | None = None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dash: str | None = None
    mark: int | None = None  # the place of a point that stands out
    colour: str | None = None


def colour(run: int) -> str:
    """The colour of a run in every chart."""
    return COLOURS[run % len(COLOURS)]


def dash(run: int) -> str:
    """The dash of a run's curves, which tells it from runs of its colour."""
    return DASHES[run // len(COLOURS) % len(DASHES)]


def label(name: str, limit: int = 60) -> str:
    """A name as plotly.js may show it: bounded, and free of markup."""
    return html.escape(shown(name, limit))


def lines(
    title: str,
    about: str,
    found: Sequence[Line],
    x: str,
    y: str,
    markers: bool = False,
    keys: int = KEYS,
    **layout: Any,
) -> Chart:
    """A chart of curves with bands of their intervals; at most `keys` curves are named above it."""
    most = max(min(POINTS, _ALL_POINTS // max(len(found), 1)), 40)
    traces: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for line in found:
        at = thinned(len(line.y), most)
        xs, ys = [_place(line.x[i]) for i in at], rounded(np.asarray(line.y, float)[at])
        low, high = _band(line)
        if low is not None and high is not None:
            traces += _bands(line, xs, low[at], high[at])
        traces.append(
            _curve(
                line,
                xs,
                ys,
                [_said(low, high, i) for i in at],
                markers,
                [at.index(line.mark)] if line.mark in at else [],
            )
        )
        for i, one in zip(at, ys, strict=True):
            ends = [] if low is None or high is None else rounded((low[i], high[i]))
            rows.append([line.name, line.x[i], one, *ends, *([None] * (2 - len(ends)))])
    head = ["curve", x, y, "from", "to"]
    if all(row[3] is None for row in rows):
        head, rows = head[:3], [row[:3] for row in rows]
    axes = {"xaxis": {"title": {"text": label(x)}}, "yaxis": {"title": {"text": label(y)}}}
    named = [Key(line.name, line.run, *_look(line)) for line in found] if len(found) <= keys else []
    order = tuple(dict.fromkeys(line.run for line in found))
    return Chart(title, about, traces, {**axes, **layout}, head, rows, order, named)


def _look(line: Line) -> tuple[str, str]:
    """The colour and the dash of a curve."""
    return line.colour or colour(line.run), line.dash or dash(line.run)


def rounded(values: Iterable[float]) -> list[float]:
    """Numbers with six digits: what a chart shows, in half of the bytes."""
    return [float(f"{value:.6g}") for value in values]


def _place(x: Any) -> Any:
    return label(x) if isinstance(x, str) else x


def _band(line: Line) -> tuple[np.ndarray | None, np.ndarray | None]:
    if line.half is not None:
        y, half = np.asarray(line.y, float), np.asarray(line.half, float)
        return y - half, y + half
    if line.low is None or line.high is None:
        return None, None
    return np.asarray(line.low, float), np.asarray(line.high, float)


def _said(low: np.ndarray | None, high: np.ndarray | None, i: int) -> str:
    """The interval as the hover text has it."""
    if low is None or high is None or not (math.isfinite(low[i]) and math.isfinite(high[i])):
        return ""
    return f"<br>{low[i]:.4g} to {high[i]:.4g}"


def _curve(
    line: Line, x: list[Any], y: list[float], said: list[str], markers: bool, marked: list[int]
) -> dict[str, Any]:
    trace = {
        "type": "scatter", "mode": "lines+markers" if markers or len(x) == 1 else "lines", "name": label(line.name, 40),
        "run": line.run, "x": x, "y": y, "customdata": said,
        "line": {"color": _look(line)[0], "width": 2, "dash": _look(line)[1]},
        "hovertemplate": "%{y:.5g} at %{x}%{customdata}<extra>%{fullData.name}</extra>",
    }  # fmt: skip
    if markers:
        trace["marker"] = {"size": [11 if i in marked else 5 for i in range(len(x))]}
    return trace


def _bands(line: Line, x: list[Any], low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    """The band of a curve: a closed line for every stretch of finite numbers."""
    fine = np.isfinite(low) & np.isfinite(high)
    made, start = [], None
    for i in range(len(x) + 1):
        if i < len(x) and fine[i]:
            start = i if start is None else start
        elif start is not None:
            part = slice(start, i)
            made.append({
                "type": "scatter", "mode": "lines", "run": line.run,
                "x": [*x[part], *x[part][::-1]], "y": rounded([*high[part], *low[part][::-1]]), "fill": "toself",
                "fillcolor": faint(_look(line)[0]), "line": {"width": 0}, "hoverinfo": "skip",
            })  # fmt: skip
            start = None
    return made


def faint(colour: str) -> str:
    """A colour that lets through what is behind it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def thinned(count: int, most: int) -> list[int]:
    """Places of at most `most` of `count` points, evenly and with both ends."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


class Dot(NamedTuple):
    """A number with its interval, in a row of its own."""

    name: str
    run: int
    value: float
    half: float


def dots(title: str, about: str, found: Sequence[Dot], x: str, zero: bool = False) -> Chart:
    """Numbers beside each other, a row for each, with their intervals; `zero` draws a line at 0."""
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": label(dot.name), "run": dot.run,
            "x": [dot.value], "y": [label(dot.name, 24) + "\u200b" * i], "marker": {"size": 9, "color": colour(dot.run)},
            "error_x": {"type": "data", "array": [dot.half], "color": colour(dot.run), "thickness": 2, "width": 4},
            "hovertemplate": "%{x:.5g} ± %{error_x.array:.3g}<extra>%{fullData.name}</extra>",
        }
        for i, dot in enumerate(found)
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": label(x)}, "zeroline": zero, "zerolinewidth": 2},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
        "height": 110 + 26 * len(found),
    }  # fmt: skip
    rows: list[list[Any]] = [[dot.name, dot.value, dot.value - dot.half, dot.value + dot.half] for dot in found]
    return Chart(
        title, about, traces, layout, ["run", x, "from", "to"], rows, tuple(dict.fromkeys(d.run for d in found))
    )
