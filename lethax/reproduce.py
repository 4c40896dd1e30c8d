"""`lethax reproduce`: run what a table lacks, go on with what is unfinished, leave what is done, write the table."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lethax import assemble, folders, runs, training
from lethax import recipe as recipes
from lethax.data.store import open_store
from lethax.devices import devices_for
from lethax.errors import DataError
from lethax.names import CONTROL, NAVIGATION, REGRESSION, navigation_setting
from lethax.outer import begin, fit, fit_together, steps_of_call
from lethax.recipe import Recipe
from lethax.records import Episode, Split
from lethax.report import returns, tables
from lethax.report.cells import Cell
from lethax.runs import read_rollouts


class Job(NamedTuple):
    """One run of a cell: a seed."""

    cell: Cell
    recipe: Recipe
    folder: Path

    @property
    def trained(self) -> bool:
        """Whether its last checkpoint is there."""
        return folders.reached(folders.Run(self.folder, self.recipe)) == self.recipe.steps


class Protocol(NamedTuple):
    """How a cell is judged: test episodes, best checkpoints whose outputs are averaged, inner steps, and where else."""

    episodes: int
    ensemble: int
    steps: int = 0
    elsewhere: tuple[str, ...] = ()

    def file(self, elsewhere: str | None = None) -> str:
        """Where the run keeps the result, on its own data or on others."""
        return f"{elsewhere + '-' if elsewhere else ''}test-seed0-n{self.episodes}-best{self.ensemble}.json"


def protocol(recipe: Recipe) -> Protocol:
    """600 episodes and the three best, as the released code; 10 000 and the best one for LEO, as published, and for curves.

    A budget with fewer validations than three has fewer best ones. In control 40 tasks after 0 to 4 updates; navigation also in
    the paper's other three settings.
    """
    if recipe.data in CONTROL:
        return Protocol(40, 1, 4, NAVIGATION[1:] if recipe.data == NAVIGATION[0] else ())
    if recipe.method.startswith("leo") or recipe.data in REGRESSION:
        return Protocol(10_000, 1)
    validations = -(-(recipe.steps or 1) // (recipe.epoch or 1))
    return Protocol(600, min(3, recipe.keep, validations))


def jobs(
    cells: Sequence[Cell], out: Path, *, budget: float, steps: int | None, seeds: int, val_episodes: int | None = None
) -> list[Job]:
    """Every run that the cells need; a reduced budget has its own folders."""
    found = []
    for cell in cells:
        full = recipes.resolve(cell.recipe).steps or 0
        wanted = steps if steps is not None else max(round(full * budget), 1)
        for seed in range(seeds):
            recipe = recipes.resolve(replace(cell.recipe, steps=wanted, seed=seed, val_episodes=val_episodes))
            found.append(Job(cell, recipe, out / cell.name / f"steps{wanted}-seed{seed}"))
    return found


def check_data(found: Sequence[Job]) -> None:
    """DataError, before anything runs, that says of every data set that is missing or damaged how to make it."""
    said = []
    for data in dict.fromkeys(job.recipe.data for job in found if not job.trained):
        if data not in (*REGRESSION, *CONTROL):
            try:
                open_store(data)
            except DataError as error:
                said.append(str(error))
    if said:
        raise DataError(" ".join(said))


def groups(found: Sequence[Job]) -> list[list[Job]]:
    """Jobs that train together: small ones of one shape. The others stand alone."""
    together: dict[Any, list[Job]] = {}
    for job in found:
        together.setdefault(assemble.shape_key(job.recipe) or job.folder, []).append(job)
    return list(together.values())


def opened(job: Job) -> folders.Run:
    """Its run folder, made where there is none; RunError where one is of another recipe."""
    return folders.enter(job.recipe, job.folder)


def train(group: Sequence[Job]) -> Generator[training.Status, None, None]:
    """Train what is not trained of a group."""
    missing = [opened(job) for job in group if not job.trained]
    if len(missing) == 1:
        yield from training.train(missing[0])
    elif missing:
        yield from training.train_together(missing)


def judge(job: Job) -> None:
    """Evaluate a trained run, unless that is done."""
    how = protocol(job.recipe)
    for data in (None, *how.elsewhere):
        if not (job.folder / "evaluations" / how.file(data)).is_file():
            run, steps = opened(job), max(job.recipe.inner_steps or 0, how.steps)
            runs.write_evaluation(
                runs.evaluate_run(run, episodes=how.episodes, ensemble=how.ensemble, steps=steps, seed=0, data=data)
            )


def table(found: Sequence[Job], command: str) -> list[dict[str, Any]]:
    """The rows of all cells whose runs are evaluated."""
    entries = {}
    for name, mine in _by_cell(found).items():
        first = mine[0]
        row = tables.entry(first.cell, first.recipe, [j.folder for j in mine], protocol(first.recipe).file(), command)
        if row:
            entries[name] = (first.cell, row)
    return tables.compare(entries)


def table_of_returns(found: Sequence[Job], command: str) -> list[dict[str, Any]]:
    """The rows of all cells of control whose runs are evaluated: one for each setting that they are judged on."""
    rows: list[dict[str, Any]] = []
    for mine in _by_cell(found).values():
        first, how = mine[0], protocol(mine[0].recipe)
        files = [how.file(data) for data in (None, *how.elsewhere)]
        made = [returns.entry(first.cell, first.recipe, [j.folder for j in mine], file, command) for file in files]
        rows.extend(row for row in made if row)
    return returns.compare(sorted(rows, key=lambda row: row["data"]))


def _by_cell(found: Sequence[Job]) -> dict[str, list[Job]]:
    names = dict.fromkeys(job.cell.name for job in found)
    return {name: [job for job in found if job.cell.name == name] for name in names}


def write(found: Sequence[Job], command: str, folder: Path) -> tuple[str, list[Path]]:
    """The table of one or more cells as text and as files; of navigation, Figure F as well."""
    name = found[0].cell.table
    if found[0].recipe.data not in CONTROL:
        rows = table(found, command)
        return tables.markdown(name, rows), tables.write(name, rows, folder)
    rows = table_of_returns(found, command)
    text = returns.markdown(name, rows)
    paths = tables.write_files(name, rows, folder, {"md": text})
    return text, [*paths, *_pictures(found, rows, folder / name.replace("_", "-"))]


def _pictures(found: Sequence[Job], rows: list[dict[str, Any]], stem: Path) -> list[Path]:
    """Returns against updates; of navigation also paths of the first seeds of MAML and MAML+L2F, in the same tasks."""
    from lethax.report import figures

    made = [stem.with_name(f"{stem.name}-returns.png")]
    figures.returns_after_updates(rows, made[0])
    first = {job.cell.recipe.method: job for job in reversed(found) if job.recipe.data in NAVIGATION}
    files = {
        method: {navigation_setting(data or ""): job.folder / "evaluations" / protocol(job.recipe).file(data)
                 for data in (None, *NAVIGATION[1:])}
        for method, job in sorted(first.items(), reverse=True)
    }  # fmt: skip
    if files and all(file.is_file() for settings in files.values() for file in settings.values()):
        made.append(stem.with_name(f"{stem.name}-paths.png"))
        paths = {m: {name: read_rollouts(file) for name, file in of_m.items()} for m, of_m in files.items()}
        figures.navigation_paths(paths, made[1])
    return made


class Estimate(NamedTuple):
    """Seconds of training that a group has left, validation aside, and where they are from."""

    seconds: float
    source: str


def estimates(groups: Sequence[Sequence[Job]], clock: Callable[[], float] = time.monotonic) -> Iterator[Estimate]:
    """For every group: from the log of its runs, or from a few timed calls of its program, or from another's.

    To compile is what takes long here. So of convolutional nets, whose time is in their products, one cell of a setting is
    timed; the others have its time in proportion to the operations of a meta-gradient.
    """
    timed: dict[Any, tuple[str, float, float]] = {}
    for group in groups:
        missing = [job for job in group if not job.trained]
        logs = [tables.progress(job.folder) for job in missing]
        if all(step for step, _ in logs):
            left = [(job.recipe.steps or 0) - step for job, (step, _) in zip(missing, logs, strict=True)]
            seconds = sum(n * spent / step for n, (step, spent) in zip(left, logs, strict=True))
            yield Estimate(seconds, "its log" if missing else "")
            continue
        cell, recipe = missing[0].cell, missing[0].recipe
        work = 0.0 if recipe.net == "mlp" else operations(recipe)
        if work and cell.setting() in timed:
            name, pace, other = timed[cell.setting()]
            yield Estimate((recipe.steps or 0) * pace * work / other, f"scaled from {name.rpartition('/')[2]}")
            continue
        pace = _seconds_a_step(missing, clock)
        if work:
            timed[cell.setting()] = cell.name, pace, work
        yield Estimate((recipe.steps or 0) * pace, "timed")


def operations(recipe: Recipe) -> float:
    """Of one episode's meta-gradient in the last phase of training on images, counted before anything compiles; 0 if unknown."""
    learner = replace(assemble.learner(recipe).at(recipe.steps), loop="unroll")
    shape, entry = assemble.shape_of(recipe), assemble.entry_of(recipe)

    def split(each: int) -> Split:
        return Split(jnp.zeros((shape.way * each, *entry)), jnp.zeros((shape.way * each,), jnp.int32))

    episode = jax.eval_shape(lambda: Episode(split(shape.shot), split(shape.query)))
    gradient = jax.jit(jax.grad(lambda meta, e: learner.loss(meta, e)[0]))
    counted = gradient.lower(jax.eval_shape(learner.init, jax.random.key(0)), episode).cost_analysis()
    return float((counted or {}).get("flops", 0.0))


def _seconds_a_step(group: Sequence[Job], clock: Callable[[], float]) -> float:
    """Of the last phase of training; cheaper first-order steps before it are not seen.

    The program is the one that the run takes, so that the cache has it for then.
    """
    recipe = group[0].recipe
    learner, plan = assemble.learner(recipe), assemble.plan(recipe)
    families = [assemble.family(job.recipe, "train") for job in group]
    states = [begin(learner, plan, jax.random.key(job.recipe.seed)) for job in group]
    start = max(min(max(recipe.first_order_steps or 0, recipe.multi_step_steps or 0), plan.total - plan.chunk), 0)
    states = [state._replace(step=state.step + start) for state in states]
    if len(group) == 1:
        call = lambda: fit(learner, states[0], *families[0], plan)  # noqa: E731
    else:
        stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
        state, source = jax.tree.map(stack, *states), jax.tree.map(stack, *[f.source for f in families])
        devices = devices_for(len(group))
        call = lambda: fit_together(learner, state, families[0].tasks, source, plan, devices)  # noqa: E731
    jax.block_until_ready(next(call()))  # compiles
    begun = clock()
    for _ in range(2):
        jax.block_until_ready(next(call()))
    return (clock() - begun) / (2 * steps_of_call(plan, start))
