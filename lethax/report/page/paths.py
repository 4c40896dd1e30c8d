"""Charts of the paths that are kept beside evaluations of navigation."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lethax.errors import RunError
from lethax.report.page.charts import Chart, Line, lines, rounded
from lethax.report.page.curves import Group, judgements, name_of
from lethax.report.page.gather import Evaluated, Told
from lethax.runs.evaluation import kept_path, read_kept
from lethax.text import counted, shown

TASKS = 3  # of each evaluation that are drawn


def paths(runs: Sequence[Told]) -> Iterator[Group]:
    """A chart for each of the first tasks: the path of a rollout before adaptation and after all updates."""
    drawn = [told for told in runs if "paths" in told.run.domain.drawings]
    for (data, split), found in judgements(drawn).items():
        hashes: dict[str, list[tuple[str, int, dict[str, np.ndarray]]]] = {}
        for told, one in found:
            if kept_path(one.path).is_file():
                name = name_of(told, one, found)
                hashes.setdefault(one.episodes_hash, []).append((name, told.number, _kept(one)))
        charts = [
            _task(data, task, same)
            for same in hashes.values()
            for task in range(min(TASKS, *(len(kept["tasks"]) for _, _, kept in same), TASKS))
        ]
        if charts:
            yield Group(f"{data}, {split}", charts)


def _kept(one: Evaluated) -> dict[str, np.ndarray]:
    """The rollouts. RunError if they are not those of points on a plane."""
    kept = read_kept(one.path)
    fits = {"tasks", "observations", "alive"} <= set(kept)
    if not fits or not _of_a_plane(*(kept[name].shape for name in ("tasks", "observations", "alive"))):
        raise RunError(f"{shown(kept_path(one.path))} holds no paths: evaluate the run again.")
    return kept


def _of_a_plane(tasks: tuple[int, ...], observations: tuple[int, ...], alive: tuple[int, ...]) -> bool:
    """Whether these are the shapes of tasks [n, 2 or more], observations [n, updates + 1, T, 2] and alive [n, updates + 1, T]."""
    of_tasks = len(tasks) == 2 and tasks[1] >= 2
    return of_tasks and len(observations) == 4 and observations == (tasks[0], *alive[1:], 2) and alive[:1] == tasks[:1]


def _task(data: str, task: int, same: Sequence[tuple[str, int, dict[str, np.ndarray]]]) -> Chart:
    found = []
    for name, run, kept in same:
        last = kept["observations"].shape[1] - 1
        for updates, dash in ((0, "dot"), (last, "solid")):
            alive = int(kept["alive"][task, updates].sum())
            x, y = map(rounded, kept["observations"][task, updates, : max(alive, 1)].astype(float).T)
            found.append(Line(f"{name}, {counted(updates, 'update')}", run, x, y, dash=dash))
    goal, start = same[0][2]["tasks"][task, :2], same[0][2]["observations"][task, 0, 0]
    about = (
        f"Paths of a point on a plane in test task {task} of {data}: dotted before adaptation, solid after all updates. "
        "The star is the goal, the square is the start."
    )
    chart = lines(f"Task {task}", about, found, "x", "y")
    chart.data.extend([_mark("start", start, "square"), _mark("goal", goal, "star")])
    chart.layout["yaxis"] |= {"scaleanchor": "x"}
    chart.rows.extend([["start", *map(float, start)], ["goal", *map(float, goal)]])
    return chart


def _mark(name: str, at: np.ndarray, symbol: str) -> dict[str, Any]:
    x, y = map(float, at[:2])
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": [x], "y": [y],
        "marker": {"symbol": symbol, "size": 12, "color": "#c2255c" if symbol == "star" else "#7a828e"},
        "hovertemplate": "%{x:.3g}, %{y:.3g}<extra>" + name + "</extra>",
    }  # fmt: skip
