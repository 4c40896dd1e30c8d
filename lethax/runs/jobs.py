"""Runs that a command needs, each in its folder: train what is missing, go on with what is unfinished, leave alone what is done."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lethax import checkpoint
from lethax.domains import domain_of
from lethax.errors import DataError
from lethax.lock import holder
from lethax.recipe import Resolved
from lethax.runs import making, training
from lethax.runs.folder import CHECKPOINTS, Run, reached


@dataclass(frozen=True)
class Job:
    """A run that is wanted: its recipe, and the folder where it is or will be."""

    recipe: Resolved
    folder: Path

    @property
    def trained(self) -> bool:
        """Whether the run is trained: its last state is there. One that is damaged is trained again, from the state before."""
        last = checkpoint.path_of(self.folder / CHECKPOINTS, "step", self.recipe.outer.steps)
        return self.reached == self.recipe.outer.steps and checkpoint.is_good(last)

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


def train(group: Sequence[Job]) -> Generator[training.Status, None, None]:
    """Train the runs of a group that are not trained yet. RunInUse if another process is about one of them."""
    missing = [job.open() for job in group if not job.trained]
    if len(missing) == 1:
        yield from training.train(missing[0])
    elif missing:
        yield from training.train_together(missing)
