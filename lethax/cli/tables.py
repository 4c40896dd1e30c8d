"""The command `lethax reproduce`. JAX is imported by what needs it."""

import shlex
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from lethax import signals
from lethax.cli import arguments
from lethax.errors import DivergedError, RecipeError
from lethax.progress import bar, console, follow, say
from lethax.text import shown


def fill_table(args: arguments.Reproduce) -> None:
    from lethax import reproduce
    from lethax.devices import use_all_cores
    from lethax.report import cells

    if not 0 < args.budget <= 1:
        raise RecipeError(f"--budget is {args.budget}; it is a share, and has to be above 0 and at most 1.")
    for name, value in (("seeds", args.seeds), ("steps", args.steps)):
        if value is not None and value < 1:
            raise RecipeError(f"--{name} is {value}; it has to be at least 1.")
    if not args.targets:
        raise RecipeError("reproduce needs a table, such as table_d, or cells of one table.")
    found = [cell for target in args.targets for cell in cells.find(target, args.only)]
    if len({cell.table for cell in found}) != 1:
        raise RecipeError(
            "the targets are of several tables; reproduce takes one table, or cells of one table, at a time."
        )
    use_all_cores()
    every = reproduce.jobs(
        found, args.out, budget=args.budget, steps=args.steps, seeds=args.seeds, val_episodes=args.val_episodes
    )
    reproduce.check_data(every)
    groups = reproduce.groups(every)
    if args.dry_run:
        _show_plan(groups)
        return
    signals.say("what is done is kept", "the same command goes on with it")
    broken: list[DivergedError] = []
    written: tuple[str, list[Path]] | None = None
    for number, group in enumerate(groups, 1):
        title = f"{number}/{len(groups)} {group[0].cell.name}" + (f" and {len(group) - 1} alike" if group[1:] else "")
        failed, judged = _fill(title, group)
        broken += failed
        if judged:
            written = reproduce.write(every, shlex.join(["lethax", *sys.argv[1:]]), args.tables)
    if written:
        for line in written[0].splitlines():
            say(line)
        say(f"written: {', '.join(map(shown, written[1]))}")
    if broken:
        raise broken[0]


def _fill(title: str, group: list[Any]) -> tuple[list[DivergedError], int]:
    """Train and evaluate a group; returns its failures, which do not stop the other runs, and how many runs were evaluated."""
    from lethax import reproduce

    failed: list[DivergedError] = []
    judged = 0
    if not all(job.trained for job in group):
        try:
            follow(f"{title}: outer steps", group[0].recipe.outer.steps, reproduce.train(group))
        except DivergedError as error:
            say(f"{title}: {error}")
            failed.append(error)
    for job in (job for job in group if job.trained):
        try:
            reproduce.judge(job)
            judged += 1
        except DivergedError as error:
            say(f"{title} is left out: {error}")
            failed.append(error)
    return failed, judged


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
    say(f"Training would take {total:,.2f} hours on this machine. This does not include validation and evaluation.")
