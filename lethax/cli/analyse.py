"""The command `lethax analyse`. JAX is imported by what needs it."""

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lethax import signals
from lethax.cli import arguments
from lethax.cli.usage import check_once, check_range
from lethax.errors import RecipeError
from lethax.progress import bar, console, say
from lethax.recipe.record import check_seed
from lethax.text import counted, showable, shown


def analyse(args: arguments.Analyse) -> None:
    from lethax.devices import use_all_cores
    from lethax.report import analyses as views
    from lethax.report.scores import short_names
    from lethax.runs.analyses import MEASURES, open_trained
    from lethax.runs.evaluation import check_alike
    from lethax.runs.folder import environment, open_run

    _check(args)
    use_all_cores()
    opened = [open_run(folder, "Name those that you mean") for folder in args.runs]
    check_alike(opened, "analyse")
    analysis, folder = MEASURES[args.what], args.out or _usual_folder(args.runs)
    tasks = analysis.tasks if args.tasks is None else args.tasks
    ready = [open_trained(run, tasks=tasks, split=args.split, seed=args.seed) for run in opened]
    for trained in ready:
        analysis.check(trained)
    folder.mkdir(parents=True, exist_ok=True)  # now, because it must not fail after what was measured
    signals.say("nothing of this analysis is kept")
    results: dict[str, Any] = {}
    for name, trained in zip(short_names(args.runs), ready, strict=True):
        with bar(f"{args.what} of {name}", 1.0) as show:
            results[name] = analysis.measure(trained, show)
    lines = views.VIEWS[args.what].table(results)
    alone = f" of {next(iter(results))}" if len(results) == 1 else ""
    say(f"{args.what}{alone} on {counted(tasks, f'{args.split} task')}, seed {args.seed}")
    console.print(table_of([line[1:] for line in lines] if alone else lines))
    runs = [
        {"run": name, "method": t.run.recipe.method, "data": t.run.recipe.data, "checkpoint": t.step,
         "score": t.score_name}
        for name, t in zip(results, ready, strict=True)
    ]  # fmt: skip
    record = {"what": args.what, "tasks": tasks, "split": args.split, "seed": args.seed,
              "command": environment()["command"], "runs": runs}  # fmt: skip
    written = views.write(args.what, record, results, folder)
    say(f"written: {', '.join(map(shown, written))}")


def _check(args: arguments.Analyse) -> None:
    if not args.runs:
        raise RecipeError(
            "analyse needs at least one run folder, as in: lethax analyse runs/cifar_fs-l2f-5shot-seed0 --what gates"
        )
    check_once(args.runs)
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise RecipeError(f"--out is {shown(args.out)}, which is a file: name a folder.")
    check_seed(args.seed)
    check_range("tasks", args.tasks, 1, 1_000_000)


def _usual_folder(runs: tuple[Path, ...]) -> Path:
    from lethax.runs.folder import ANALYSES

    return runs[0] / ANALYSES if len(runs) == 1 else Path(ANALYSES)


def table_of(lines: list[list[str]]) -> Table:
    """Make a table whose first line is the header. The first column folds where it is long, the others never do."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, header in enumerate(lines[0]):
        table.add_column(header, overflow="fold", no_wrap=number > 0, min_width=0 if number else 8)
    for line in lines[1:]:
        table.add_row(*(Text(showable(cell, console.encoding)) for cell in line))
    return table
