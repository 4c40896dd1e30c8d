"""The command `lethax reproduce`. JAX is imported by what needs it."""

import shlex
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from lethax import signals
from lethax.cli import arguments
from lethax.cli.groups import Done, check_jobs, done_here, done_in_jobs
from lethax.errors import LethaxError, RecipeError
from lethax.progress import bar, console, say
from lethax.recipe.record import check_seed
from lethax.report import cells, paper_figures
from lethax.report.paper_figures import PaperFigure
from lethax.text import shown


def reproduce_targets(args: arguments.Reproduce) -> None:
    """Run the command `lethax reproduce`."""
    from lethax import reproduce
    from lethax.devices import use_all_cores, use_cpu
    from lethax.runs import jobs

    _check(args)
    figures = [figure for target in args.targets if (figure := paper_figures.named(target))]
    found = _cells_of_figures(args, figures) if figures else _cells_of_table(args)
    use_all_cores()
    if args.jobs and not args.dry_run:
        use_cpu()
    every = reproduce.jobs(
        found,
        args.out,
        budget=1.0 if args.budget is None else args.budget,
        steps=args.steps,
        seeds=args.seeds,
        first_seed=args.first_seed,
        val_episodes=args.val_episodes,
        episodes=args.episodes,
    )
    jobs.check_data(every)
    groups, judged = jobs.groups(every), not figures
    if args.dry_run:
        _show_plan(groups)
        if any(figure.probes for figure in figures):
            say("The probes of the figures take time beside this.")
        return
    signals.say("what is done is kept", "the same command goes on with it")
    command = shlex.join(["lethax", *sys.argv[1:]])
    with closing(done_in_jobs(groups, judged, args) if args.jobs else done_here(groups, judged)) as done:
        broken = _draw(figures, every, done, command, args) if figures else _fill_table(every, done, command, args)
    if broken:
        raise broken[0]


def _check(args: arguments.Reproduce) -> None:
    if args.budget is not None and args.steps is not None:
        raise RecipeError("--budget and --steps both say how long to train: leave one out.")
    if args.budget is not None and not 0 < args.budget <= 1:
        raise RecipeError(f"--budget is {args.budget}; it is a share, and has to be above 0 and at most 1.")
    for name, value in (("seeds", args.seeds), ("steps", args.steps), ("episodes", args.episodes)):
        if value is not None and value < 1:
            raise RecipeError(f"--{name} is {value}; it has to be at least 1.")
    check_seed(args.first_seed)
    if args.probe_every is not None and args.probe_every < 1:
        raise RecipeError(f"--probe-every is {args.probe_every}; it has to be at least 1 outer step.")
    check_jobs(args)
    if not args.targets:
        raise RecipeError(
            "reproduce needs a table, such as table_d, or cells of one table, or figures, such as figure-d."
        )


def _cells_of_table(args: arguments.Reproduce) -> list[cells.Cell]:
    found = {cell.name: cell for target in args.targets for cell in cells.find(target)}
    kept = cells.narrowed(list(found.values()), args.only)
    for name, value in (("data", args.data), ("probe-every", args.probe_every)):
        if value is not None:
            raise RecipeError(f"--{name} is an option of figures, such as figure-a, and not of tables: leave it out.")
    if len({cell.table for cell in kept}) != 1:
        raise RecipeError(
            "the targets are of several tables; reproduce takes one table, or cells of one table, at a time."
        )
    return kept


def _cells_of_figures(args: arguments.Reproduce, figures: list[PaperFigure]) -> list[cells.Cell]:
    if others := [target for target in args.targets if not paper_figures.named(target)]:
        raise RecipeError(
            f"'{shown(others[0])}' is not a figure of runs: reproduce tables and figures one after another."
        )
    if args.probe_every is not None and not any(figure.probes for figure in figures):
        raise RecipeError(f"--probe-every is {args.probe_every}, but {figures[0].name} has no probes: leave it out.")
    if args.episodes is not None:
        raise RecipeError("--episodes is an option of tables: figures come from training alone. Leave it out.")
    names = dict.fromkeys(name for figure in figures for name in figure.cells_on(args.data))
    found = {cell.name: cell for name in names for cell in cells.find(name)}
    return cells.narrowed(list(found.values()), args.only)


def _fill_table(every: list[Any], done: Iterable[Done], command: str, args: arguments.Reproduce) -> list[LethaxError]:
    """Have all groups done, and write the table after each. Returns the failures."""
    from lethax import reproduce

    broken: list[LethaxError] = []
    written: tuple[str, list[Path]] | None = None
    for failed, finished in done:
        broken += failed
        if finished and not args.runs_only:
            written = reproduce.write(every, command, args.tables)
    if written:
        for line in written[0].splitlines():
            say(line)
        say(f"written: {', '.join(map(shown, written[1]))}")
    return broken


def _draw(
    figures: list[PaperFigure], every: list[Any], done: Iterable[Done], command: str, args: arguments.Reproduce
) -> list[LethaxError]:
    """Have all groups done, and write each figure. Returns the failures, whose runs are left out."""
    from lethax import reproduce

    begun = [job for job in every if job.trained] if args.jobs else every  # jobs ask for the probes of what they train
    reproduce.probe(figures, begun, args.data, args.probe_every or 0)
    broken = [error for failed, _ in done for error in failed]
    for figure in [] if args.runs_only else figures:
        if written := reproduce.write_figure(figure, every, command, args.tables, args.data):
            say(f"{figure.name}, written: {', '.join(map(shown, written))}")
    return broken


def _show_plan(groups: list[list[Any]]) -> None:
    from lethax import reproduce

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("cells", overflow="fold")
    for column in ("runs", "steps", "done", "hours left"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("hours come from", overflow="fold")
    total = 0.0
    with bar("estimating", len(groups), "cells") as show:
        for number, (group, left) in enumerate(zip(groups, reproduce.estimates(groups), strict=True), 1):
            total += left.seconds / 3600
            names = "\n".join(dict.fromkeys(job.cell.name for job in group))
            done = f"{sum(job.trained for job in group)}/{len(group)}"
            hours = f"{left.seconds / 3600:.2f}"
            table.add_row(names, str(len(group)), f"{group[0].recipe.outer.steps:,}", done, hours, left.source)
            show(number, "")
    say("This would run:")
    console.print(table)
    say(
        f"Training would take {total:,.2f} hours on this machine. This does not include evaluation, and validation only where the "
        "hours come from a log."
    )
