"""Fill a table or draw a figure: train what is missing, go on with what is unfinished, leave alone what is done, and write."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lethax import native, trees
from lethax.devices import devices_for
from lethax.domains import Judging, domain_of
from lethax.domains.supervised import shape_of
from lethax.lock import RunLock
from lethax.names import navigation_setting
from lethax.outer import begin, fit, fit_together, steps_of_call
from lethax.recipe import Resolved
from lethax.recipe.resolve import resolve
from lethax.records import Episode, Split
from lethax.report import columns, returns, table_rows, tables
from lethax.report.cells import Cell
from lethax.report.paper_figures import PaperFigure
from lethax.runs import estimate, probes
from lethax.runs import folder as folders
from lethax.runs.evaluation import evaluate_run, file_name, judged_before, read_kept, write_evaluation
from lethax.runs.jobs import Job

MEASUREMENTS = 50  # of a probe in a run, unless another interval is given


@dataclass(frozen=True)
class CellJob(Job):
    """One run of a cell, with one seed. `episodes`: how many it is evaluated on; None: as many as published."""

    cell: Cell
    episodes: int | None = None

    @property
    def protocol(self) -> Judging:
        """How the run is evaluated."""
        published = domain_of(self.recipe).protocol(self.recipe)
        return published if self.episodes is None else published._replace(episodes=self.episodes)

    @property
    def judged_steps(self) -> int:
        """The run is judged after 0 up to this many inner steps."""
        return max(self.recipe.inner.steps, self.protocol.steps)


def file_of(how: Judging, elsewhere: str | None = None) -> str:
    """The file in which a run keeps the result of a protocol, on its own data or on other data."""
    return file_name(f"{elsewhere}-test" if elsewhere else "test", 0, how.episodes, how.ensemble)


def jobs(
    cells: Sequence[Cell],
    out: Path,
    *,
    budget: float,
    steps: int | None,
    seeds: int,
    first_seed: int = 0,
    val_episodes: int | None = None,
    episodes: int | None = None,
) -> list[CellJob]:
    """List the runs that the cells need. Runs of a reduced budget have folders of their own."""
    found = []
    for cell in cells:
        full = resolve(cell.recipe).outer.steps
        wanted = steps if steps is not None else max(round(full * budget), 1)
        for seed in range(first_seed, first_seed + seeds):
            asked = {"val_episodes": val_episodes} if val_episodes is not None else {}
            recipe = resolve(cell.recipe.with_values(steps=wanted, seed=seed, **asked))
            found.append(CellJob(recipe, out / cell.name / f"steps{wanted}-seed{seed}", cell, episodes))
    return found


def test_data(job: CellJob) -> tuple[str | None, ...]:
    """The test data that a run is to be evaluated on; None stands for its own."""
    return (*domain_of(job.recipe).columns(job.recipe, "test"), *job.protocol.elsewhere)


def unjudged(job: CellJob) -> list[str | None]:
    """The test data that a trained run is not evaluated on yet."""
    run, how = job.open(), job.protocol
    path = lambda data: job.folder / folders.EVALUATIONS / file_of(how, data)  # noqa: E731
    return [data for data in test_data(job) if judged_before(run, path(data), how.ensemble, job.judged_steps) is None]


def judge(job: CellJob, watch: Callable[[Iterable[Any]], Iterable[Any]]) -> None:
    """Make the evaluations that a trained run lacks, while `watch` sees their parts. RunInUse if another process uses the run."""
    run, how, steps = job.open(), job.protocol, job.judged_steps
    with RunLock(job.folder):
        for data in unjudged(job):  # only now: another process may have done it meanwhile
            write_evaluation(evaluate_run(
                run, episodes=how.episodes, ensemble=how.ensemble, steps=steps, seed=0, data=data, watch=watch
            ))  # fmt: skip


def undone(group: Sequence[CellJob], judged: bool) -> list[CellJob]:
    """The runs of a group that are not trained yet, or, where runs are to be `judged`, not evaluated."""
    return [job for job in group if not job.trained or (judged and unjudged(job))]


def table(found: Sequence[CellJob], command: str) -> list[dict[str, Any]]:
    """Make the rows of all cells whose runs are evaluated."""
    entries = {}
    for mine, data in _judged(found):
        first, runs = mine[0], [job.folder for job in mine]
        if data:
            row = table_rows.entry(first.cell, first.recipe, runs, file_of(first.protocol), command)
            entries[first.cell.name] = (first.cell, row)
    return table_rows.compare(entries)


def table_of_returns(found: Sequence[CellJob], command: str) -> list[dict[str, Any]]:
    """Make the rows of all cells of control whose runs are evaluated, one for each setting."""
    rows: list[dict[str, Any]] = []
    for mine, data in _judged(found):
        first, runs = mine[0], [job.folder for job in mine]
        files = [file_of(first.protocol, one) for one in data]
        rows += [returns.entry(first.cell, first.recipe, runs, file, first.judged_steps, command) for file in files]
    return returns.compare(sorted(rows, key=lambda row: row["data"]))


def table_of_columns(found: Sequence[CellJob], command: str) -> list[dict[str, Any]]:
    """Make the rows of all cells whose runs are evaluated on several test columns, as far as these are prepared."""
    rows = []
    for mine, data in _judged(found):
        first, runs = mine[0], [job.folder for job in mine]
        files = {str(one): file_of(first.protocol, one) for one in data}
        if files:
            rows.append(columns.entry(first.cell, first.recipe, runs, files, command))
    return columns.compare(rows)


def _judged(found: Sequence[CellJob]) -> Iterator[tuple[list[CellJob], list[str | None]]]:
    """The runs of each cell that are all trained, and the test data that all of them are evaluated on."""
    for mine in _by_cell(found).values():
        if all(job.trained for job in mine):
            missing = {data for job in mine for data in unjudged(job)}
            yield mine, [data for data in test_data(mine[0]) if data not in missing]


def _by_cell(found: Sequence[CellJob]) -> dict[str, list[CellJob]]:
    names = dict.fromkeys(job.cell.name for job in found)
    return {name: [job for job in found if job.cell.name == name] for name in names}


def write(found: Sequence[CellJob], command: str, folder: Path) -> tuple[str, list[Path]]:
    """The table of one or more cells as text and as files; of scores their learning curves, and of navigation Figure F as well."""
    name = found[0].cell.table
    form = domain_of(found[0].recipe).table
    if form == "scores":
        rows = table(found, command)
        paths = tables.write(name, rows, folder)
        return tables.markdown(name, rows), [*paths, *_curves(rows, folder / f"{name.replace('_', '-')}-curves.png")]
    if form == "columns":
        rows = table_of_columns(found, command)
        text = columns.markdown(name, rows)
        return text, tables.write_files(name, rows, folder, {"md": text})
    rows = table_of_returns(found, command)
    text = returns.markdown(name, rows)
    paths = tables.write_files(name, rows, folder, {"md": text})
    return text, [*paths, *(_pictures(found, rows, folder / name.replace("_", "-")) if rows else [])]


def _curves(rows: list[dict[str, Any]], path: Path) -> list[Path]:
    """Learning curves of the rows of a table, where a run was validated more than once and all seeds at the same steps."""
    from lethax.report import figures

    drawn = [row for row in rows if _drawable(row["learning_curve"])]
    if not drawn:
        path.unlink(missing_ok=True)  # of an earlier table of this name
        return []
    figures.learning_curves(drawn, path)
    return [path]


def _drawable(curves: list[list[dict[str, Any]]]) -> bool:
    alike = len({tuple(at["step"] for at in curve) for curve in curves}) == 1
    return alike and len(curves[0]) > 1 and any(at["val_score"] for curve in curves for at in curve)


def _pictures(found: Sequence[CellJob], rows: list[dict[str, Any]], stem: Path) -> list[Path]:
    """Returns against updates; of navigation also paths of the first seeds of MAML and MAML+L2F, in the same tasks."""
    from lethax.report import figures

    made = [stem.with_name(f"{stem.name}-returns.png")]
    figures.returns_after_updates(rows, made[0])
    first = {job.cell.recipe.method: job for job in reversed(found) if "paths" in domain_of(job.recipe).drawings}
    files = {
        method: {navigation_setting(data or ""): job.folder / folders.EVALUATIONS / file_of(job.protocol, data)
                 for data in (None, *job.protocol.elsewhere)}
        for method, job in sorted(first.items(), reverse=True)
    }  # fmt: skip
    if files and not undone(list(first.values()), judged=True):
        made.append(stem.with_name(f"{stem.name}-paths.png"))
        paths = {m: {name: read_kept(file) for name, file in of_m.items()} for m, of_m in files.items()}
        figures.navigation_paths(paths, made[1])
    return made


def probe(figures: Sequence[PaperFigure], found: Sequence[CellJob], data: str | None, every: int) -> None:
    """Ask for the probes that figures need, before anything trains; `every`: outer steps between measurements, 0: 50 a run.

    RunError for a trained run without them.
    """
    from lethax.report import probe_figures

    for job in found:
        names = {name for figure in figures if job.cell.name in figure.cells_on(data) for name in figure.probes}
        if not names:
            continue
        run = job.open()
        before = probes.asked(run) or probes.Asked((), 0)
        if job.trained:
            for name in sorted(names):
                probe_figures.lines(run, name, "train")
        elif every or not names <= set(before.names):
            usual = before.every or max(job.recipe.outer.steps // MEASUREMENTS, 1)
            probes.ask(run, sorted({*before.names, *names}), every or usual)


def write_figure(
    figure: PaperFigure, found: Sequence[CellJob], command: str, folder: Path, data: str | None
) -> list[Path]:
    """Write the files of a figure from its trained runs, and return them; none if no run is trained."""
    from lethax.report import figure_files

    names = figure.cells_on(data)
    mine = [(job.cell, job.open()) for job in found if job.cell.name in names and job.trained]
    return figure_files.write(figure, mine, command, folder) if mine else []


class Estimate(NamedTuple):
    """An estimate of the seconds of training that a group has left, and its source. Only a log has those of validations too."""

    seconds: float
    source: str


def estimates(groups: Sequence[Sequence[CellJob]], clock: Callable[[], float] = time.monotonic) -> Iterator[Estimate]:
    """Estimate the time of every group, from the log of its runs, from a few timed calls of its program, or from another cell.

    Compilation is what takes long here. Convolutional nets spend their time in products, so only one cell of each setting is timed
    for them. The other cells of the setting get its time in proportion to the operations of a meta-gradient.
    """
    timed: dict[Any, tuple[str, float, float]] = {}
    for group in groups:
        missing = [job for job in group if not job.trained]
        logs = [table_rows.progress(job.folder) for job in missing]
        if all(step for step, _ in logs):
            left = [job.recipe.outer.steps - step for job, (step, _) in zip(missing, logs, strict=True)]
            seconds = sum(n * spent / step for n, (step, spent) in zip(left, logs, strict=True))
            yield Estimate(seconds, "its log" if missing else "")
            continue
        cell, recipe = missing[0].cell, missing[0].recipe
        work = operations(recipe)
        if work and cell.setting() in timed:
            name, pace, other = timed[cell.setting()]
            yield Estimate(recipe.outer.steps * pace * work / other, f"scaled from {name.rpartition('/')[2]}")
            continue
        pace = _seconds_a_step(missing, clock)
        if work:
            timed[cell.setting()] = cell.name, pace, work
        yield Estimate(recipe.outer.steps * pace, "timed")


def operations(recipe: Resolved) -> float:
    """Count the operations of an episode's meta-gradient on images, in the last phase of training; 0 for other tasks."""
    domain = domain_of(recipe)
    inputs = domain.inputs(recipe)
    if inputs is None or len(inputs.example) != 3 or 0 in shape_of(recipe, "train"):
        return 0.0
    learner: Any = domain.learner(recipe, inputs).at(recipe.outer.steps)
    learner, shape, entry = replace(learner, loop="unroll"), recipe.episode, inputs.example

    def split(each: int) -> Split:
        return Split(jnp.zeros((shape.way * each, *entry)), jnp.zeros((shape.way * each,), jnp.int32))

    episode = jax.eval_shape(lambda: Episode(split(shape.shot), split(shape.query)))
    gradient = jax.jit(jax.grad(lambda meta, e: learner.loss(meta, e)[0]))
    with native.off():  # XLA counts the operations of its own programs
        counted = gradient.lower(jax.eval_shape(learner.init, jax.random.key(0)), episode).cost_analysis()
    return float((counted or {}).get("flops", 0.0))


def _seconds_a_step(group: Sequence[CellJob], clock: Callable[[], float]) -> float:
    """Time an outer step of the last phase of training. Cheaper first-order steps before it are not taken into account."""
    recipe = group[0].recipe
    domain = domain_of(recipe)
    full: Any = domain.plan(recipe)
    learner, plan = domain.learner(recipe, domain.inputs(recipe)), estimate.brief(full)
    families = [domain.family(job.recipe, "train") for job in group]
    states = [begin(learner, plan, jax.random.key(job.recipe.seed)) for job in group]
    start = estimate.latest(recipe, plan)
    states = [state._replace(step=state.step + start) for state in states]
    if len(group) == 1:
        call = lambda: next(fit(learner, states[0], *families[0], plan))  # noqa: E731
    else:
        state, source = trees.stacked(states), trees.stacked([family.source for family in families])
        devices = devices_for(len(group))
        call = lambda: next(fit_together(learner, state, families[0].tasks, source, plan, devices))  # noqa: E731
    return estimate.seconds_of(call, clock) / steps_of_call(plan, start)
