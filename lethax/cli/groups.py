"""What the commands do with groups of runs that train together: here, one after another, or each as a job of its own."""

import dataclasses
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lethax.cli.arguments import Reproduce
from lethax.errors import CheckpointError, DivergedError, LethaxError, RecipeError, RunError
from lethax.lock import RunInUse
from lethax.progress import follow, say, watching
from lethax.text import ALWAYS, shown

POLL = 2.0  # seconds until it is asked again whether another process is done


class Done(NamedTuple):
    """A group with which nothing is left to do: its failures, which do not stop other groups, and the number of finished runs."""

    failed: list[LethaxError]
    finished: int


def titled(groups: Sequence[list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The groups, each with the words that stand for it."""
    for number, group in enumerate(groups, 1):
        alike = f" and {len(group) - 1} alike" if group[1:] else ""
        yield f"{number}/{len(groups)} {group[0].cell.name}{alike}", group


def train_group(title: str, group: list[Any]) -> dict[Path, LethaxError]:
    """Train what is not trained of a group. Returns the errors of runs that failed, by their folders; the others go on."""
    from lethax.runs import jobs

    failed: dict[Path, LethaxError] = {}
    if not all(job.trained for job in group):
        follow(f"{title}: outer steps", group[0].recipe.outer.steps, jobs.train(group, failed))
    for error in failed.values():
        say(f"{title}: {error}")
    return failed


def done_here(groups: Sequence[list[Any]], judged: bool) -> Generator[Done, None, None]:
    """Train all groups in this process, and evaluate them if they are to be `judged`.

    What another process is about is left until it is free. Then it is done, or gone on with.
    """
    from lethax import reproduce
    from lethax.runs import jobs

    waiting = list(titled(groups))
    while waiting:
        busy = {}
        for title, group in waiting:
            if other := jobs.in_use(reproduce.undone(group, judged)):
                busy[title] = group, other
                continue
            try:
                yield _done(title, group, judged)
            except RunInUse:  # another process was quicker
                busy[title] = group, jobs.in_use(group) or "unknown"
        if len(busy) == len(waiting):
            _wait(busy)
        waiting = [(title, group) for title, (group, _) in busy.items()]


def _wait(busy: dict[str, tuple[list[Any], str]]) -> None:
    """Wait until a group is free."""
    from lethax.runs import jobs

    title, (_, other) = next(iter(busy.items()))
    more = f", and {len(busy) - 1} more" if len(busy) > 1 else ""
    say(f"{title} is in use by process {shown(other, 100)}{more}: waiting")
    # In any case, so that a group that is refused although nobody uses it is not tried without a pause.
    time.sleep(POLL)
    while all(jobs.in_use(group) for group, _ in busy.values()):
        time.sleep(POLL)


def _done(title: str, group: list[Any], judged: bool) -> Done:
    from lethax import reproduce

    errors = train_group(title, group)
    failed, trained = [*errors.values()], [job for job in group if job.trained and job.folder not in errors]
    if not judged:
        return Done(failed, len(trained))
    missing = {job.folder: job.protocol.episodes * len(reproduce.unjudged(job)) for job in trained}
    waiting = [job for job in trained if missing[job.folder]]
    finished, total = len(trained) - len(waiting), sum(missing.values())
    with watching(f"{title}: evaluating", total) if total else nullcontext(iter) as watch:
        for job in waiting:
            try:
                reproduce.judge(job, watch)
                finished += 1
            except RunInUse:
                raise
            except (DivergedError, CheckpointError, RunError) as error:  # also one with too few validated checkpoints
                say(f"{title} is left out: {error}")
                failed.append(error)
    return Done(failed, finished)


def check_jobs(args: Reproduce) -> None:
    """RecipeError for options of jobs that cannot be."""
    if args.jobs_at_once is not None and args.jobs_at_once < 1:
        raise RecipeError(f"--jobs-at-once is {args.jobs_at_once}; it has to be at least 1.")
    if args.jobs_at_once is not None and not args.jobs:
        raise RecipeError("--jobs-at-once says how many jobs there are at a time: give --jobs local or slurm as well.")
    if args.jobs_options and args.jobs != "slurm":
        raise RecipeError("--jobs-options are those of SLURM's sbatch: give --jobs slurm as well.")


def done_in_jobs(groups: Sequence[list[Any]], judged: bool, args: Reproduce) -> Generator[Done, None, None]:
    """Have each group trained, and evaluated if it is to be `judged`, by a job of its own, and wait for all of them."""
    from lethax import clusters, reproduce, sweeps

    folder, name = args.out / "jobs", f"lethax-{groups[0][0].cell.table}"
    cluster = clusters.Local(folder) if args.jobs == "local" else clusters.Slurm(folder, name, args.jobs_options)
    parts = {
        sweeps.Part(title, words_of(args, group), partial(reproduce.undone, group, judged)): group
        for title, group in titled(groups)
    }
    for part, failure in sweeps.follow(list(parts), cluster, args.jobs_at_once):
        if failure:
            say(str(failure))
        group = parts[part]
        yield Done([failure] if failure else [], len(group) - len(part.left()))


def words_of(args: Reproduce, group: list[Any]) -> tuple[str, ...]:
    """The words of the command that does one group, with the options of the command that does them all."""
    seeds = [job.recipe.seed for job in group]
    own = dataclasses.replace(
        args, only=tuple(dict.fromkeys(job.cell.name for job in group)), first_seed=min(seeds), seeds=max(seeds) - min(seeds) + 1,
        runs_only=True, jobs=None, jobs_options=(), jobs_at_once=None, 
    )  # fmt: skip
    words = ["reproduce", *args.targets]
    for field in dataclasses.fields(own):
        value = getattr(own, field.name)
        if field.name != "targets" and value != field.default:
            values = () if value is True else value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return (*words, *ALWAYS)
