"""The command `lethax models`. JAX is imported by what needs it."""

from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from lethax.cli import data_arguments
from lethax.cli.commands import ModelsCommand
from lethax.errors import LethaxError, RunError
from lethax.progress import console, say
from lethax.text import command_line, shown


def models(args: ModelsCommand) -> None:
    """Run `lethax models list` or `get`."""
    if isinstance(args.action, data_arguments.ModelsGet):
        _get(args.action)
    else:
        _list()


def _list() -> None:
    from lethax.report.scores import interval
    from lethax.runs.published import model as opened
    from lethax.runs.published import names

    found = []
    for name in names():
        try:
            found.append(opened(name))
        except LethaxError as error:  # of one model: it must not hide the others
            say(f"{shown(name, 60)} is left out: {error}")
    if not found:
        raise RunError("no models came with this installation of lethax: install it with its folder models.")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for header in ("model", "shape", "score", "episodes", "steps", "kB"):
        table.add_column(header, overflow="fold")
    for model in found:
        recipe, record = model.run.recipe, model.measured
        way = f"{recipe.episode.way}-way " if recipe.episode.way > 1 else ""
        table.add_row(
            *map(Text, (
                model.name, f"{way}{recipe.episode.shot}-shot",
                f"{shown(record['score'], 40)} {interval(record['mean'], record['ci95'], record['n'])}", f"{record['n']:,}",
                f"{recipe.outer.steps:,}",
                f"{model.size / 1000:,.0f}",
            ))
        )  # fmt: skip
    console.print(table)
    say(f"To take one: {command_line('models', 'get', found[0].name)}")


def _get(args: data_arguments.ModelsGet) -> None:
    from lethax.runs.published import get

    run = get(args.name, args.out or Path("runs") / args.name)
    say(f"written: {shown(run.folder)}, a run of {run.recipe.method} on {run.recipe.data} without states of training")
    say(f"to judge it: {command_line('evaluate', run.folder)}")
    if run.inputs is not None and run.inputs.pictures:
        words = ("predict", run.folder, "--support", "FOLDER", "--query", "FOLDER")
        say(f"to adapt it to your own classes: {command_line(*words)}")
