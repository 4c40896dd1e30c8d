"""Runs that a command needs, each in its folder: train what is missing, go on with what is unfinished, leave alone what is done."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lethax import checkpoint
from lethax.domains import domain_of
from lethax.errors import CheckpointError, DataError, DivergedError, LethaxError
from lethax.lock import holder
from lethax.recipe import Resolved
from lethax.runs import making, training
from lethax.runs.folder import Run, checkpoints, finished, reached


@dataclass(frozen=True)
class Job:
    """A run that is wanted: its recipe, and the folder where it is or will be."""

    recipe: Resolved
    folder: Path

    @property
    def trained(self) -> bool:
        """Whether the run is trained, see `folder.finished`."""
        return finished(Run(self.folder, self.recipe, None))

    @property
    def reached(self) -> int:
        """The outer step of the run's newest state, or 0."""
        return reached(Run(self.folder, self.recipe, None))

    def open(self) -> Run:
        """Open the run folder, or make it. RunError if it holds a run of another recipe."""
        return making.enter(self.recipe, self.folder)


J = TypeVar("J", bound=Job)


def check_data(jobs: Sequence[Job]) -> None:
    """Raise DataError before anything runs, if data sets are missing or damaged. It says how to make each of them."""
    said: dict[str, None] = {}
    for job in jobs:
        try:
            if not job.trained:
                domain_of(job.recipe).identity(job.recipe)
        except DataError as error:
            said[str(error)] = None
    if said:
        raise DataError(" ".join(said))


def groups(jobs: Sequence[J]) -> list[list[J]]:
    """Group the jobs that train together, which are small ones of one shape. Each other job is a group of its own."""
    together: dict[Any, list[J]] = {}
    for job in jobs:
        domain = domain_of(job.recipe)
        needed = job.recipe.data in domain.made or not job.trained  # of what is done, the data may be gone
        key = domain.together(job.recipe, domain.inputs(job.recipe)) if needed else None
        together.setdefault(key or job.folder, []).append(job)
    return list(together.values())


def in_use(group: Sequence[Job]) -> str:
    """The first process that is about a run of a group, as `lock.holder` names it, or ""."""
    return next(filter(None, (holder(job.folder) for job in group)), "")


def train(group: Sequence[Job], failed: dict[Path, LethaxError]) -> Generator[training.Status, None, None]:
    """Train the runs of a group that are not trained yet. RunInUse if another process is about one of them.

    The error of a run that diverges, or whose states cannot be read, is put into `failed`, by its folder, and the others go on.
    One that was begun before the others, so that no state of theirs is of a step that it has, is trained apart.
    """
    while missing := [job.open() for job in group if not job.trained and job.folder not in failed]:
        runs = _level(missing)
        try:
            yield from training.train(runs[0]) if len(runs) == 1 else training.train_together(runs)
        except (DivergedError, CheckpointError) as error:
            failed[error.run or runs[0].folder] = error


def _level(runs: Sequence[Run]) -> list[Run]:
    """The first of the runs, and those that have a state of one outer step with it, so that they can go on together."""
    steps = [set(checkpoint.numbered(checkpoints(run), "step")) or {0} for run in runs]
    common, found = steps[0], []
    for run, of_run in zip(runs, steps, strict=True):
        if of_run & common:
            common &= of_run
            found.append(run)
    return found
