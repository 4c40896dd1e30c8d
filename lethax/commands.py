"""What the commands do and show. JAX and NumPy are imported by those that need them."""

import dataclasses
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from lethax import arguments, signals
from lethax import recipe as recipes
from lethax.commands_data import describe
from lethax.errors import DivergedError, RecipeError
from lethax.files import to_json
from lethax.names import CONTROL, REGRESSION
from lethax.progress import bar, console, follow, say, watch
from lethax.recipe import Recipe
from lethax.text import counted, shown


def train(args: Any) -> None:
    from lethax import folders

    run, note = (_resumed if args.resume else _begun)(args)
    go_on = _command("train", "--resume", run.folder)
    signals.say("nothing was saved yet", f"go on with {go_on}")
    begun = folders.reached(run)
    where = "finished" if begun == run.recipe.steps else f"going on from step {begun:,}"
    notes = "; ".join([*([note] if note else []), *([where] if begun else [])])
    say(f"run {shown(run.folder)}: {_described(run.recipe)}{f' ({notes})' if notes else ''}")
    _show_training(run)


def _resumed(args: Any) -> tuple[Any, str]:
    from lethax import assemble, folders

    given = arguments.recipe_values(args)
    if set(given) - {"steps"} or args.data or args.recipe or args.out or args.overwrite:
        raise RecipeError(
            "--resume goes on with a run as it is: beside it there can only be --steps, for more outer steps; "
            "or start a new run with --out."
        )
    assemble.use_all_cores()
    run = folders.open_run(args.resume)
    return (folders.extend(run, given["steps"]) if given else run), ""


def _begun(args: Any) -> tuple[Any, str]:
    """The run of these options, a new one or the one that the same options began, and what of it is not the usual value."""
    from lethax import assemble, fitting, folders

    if not args.data and not args.recipe:
        raise RecipeError("train needs DATA, --recipe FILE or --resume RUN.")
    base = recipes.load(args.recipe) if args.recipe else Recipe()
    named = {"data": args.data} if args.data else {}
    recipe, note = fitting.fit(dataclasses.replace(base, **arguments.recipe_values(args), **named))
    assemble.use_all_cores()
    assemble.check(recipe)
    out = args.out or Path("runs") / f"{recipe.data}-{recipe.method}-{recipe.shot}shot-seed{recipe.seed}"
    if args.overwrite:
        return folders.replace(recipe, out), note
    return folders.enter(recipe, out, "choose another --out, or replace that run with --overwrite"), note


def _described(recipe: Recipe) -> str:
    """ "l2f on birds, 4-way 1-shot with 6 queries a class, 50,000 outer steps"; of tasks without classes, shots alone."""
    made = recipe.data in (*REGRESSION, *CONTROL)
    queries = f" with {counted(recipe.query or 0, 'query')} a class"
    episodes = f"{recipe.shot}-shot" if made else f"{recipe.way}-way {recipe.shot}-shot{queries}"
    return f"{recipe.method} on {recipe.data}, {episodes}, {counted(recipe.steps or 0, 'outer step')}"


def _show_training(run: Any) -> None:
    from lethax import folders, training

    finished = folders.reached(run) == run.recipe.steps
    last = follow("outer steps", run.recipe.steps, training.train(run), compiles=not finished)
    if last is None:
        more = _command("train", "--resume", run.folder)
        say(f"It was finished before. To give it more outer steps: {more} --steps N")
        return
    skipped = f", {last.skipped:,} of {counted(last.total, 'outer step')} skipped" if last.skipped else ""
    say(f"done: {shown(run.folder)}{skipped}. Next: {_command('evaluate', run.folder)}")


def _command(*words: Any) -> str:
    """A command that can be copied, whatever is in its words."""
    return shown(shlex.join(["lethax", *map(str, words)]), 1000)


def evaluate(args: arguments.Evaluate) -> None:
    from lethax import assemble, folders, runs
    from lethax.report import scores

    _check_evaluate(args)
    assemble.use_all_cores()
    opened = [folders.open_run(folder, "Name those that you mean") for folder in args.runs]
    kinds = {_kind(run.recipe): shown(run.folder) for run in opened}
    if len(kinds) > 1:
        others = " and ".join(f"{folder} is judged by its {kind}" for kind, folder in kinds.items())
        raise RecipeError(f"{others}: evaluate them one after the other.")
    results = []
    for folder, run in zip(args.runs, opened, strict=True):
        control = run.recipe.data in CONTROL
        count = args.episodes or (40 if control else 600)
        results.append(runs.evaluate_run(
            run, episodes=count, ensemble=args.ensemble, steps=(4 if control else 10) if args.steps is None else args.steps,
            seed=args.seed, split=args.split, data=args.data,
            watch=iter if args.json else partial(watch, f"evaluating {shown(folder)}", count),
        ))  # fmt: skip
    if args.json:
        print(to_json([result.record for result in results], None))
    else:
        say(scores.title(results))
        for table in scores.tables(args.runs, results, console.width, console.encoding):
            console.print(table)
        if why := scores.unpaired(args.runs, results):
            say(why)
    signals.say("what is written stays")
    for result in results:  # after they are shown: a full disk must not cost hours of judging
        runs.write_evaluation(result)
    drawn = _draw(args, results) if args.pictures else []
    if args.json:
        return
    for folder, result in zip(args.runs, results, strict=True):
        if said := scores.gates(result.record):
            say(f"{shown(folder)}: {said}")
    for result in results:
        say(f"written: {shown(result.path)} (episodes {result.record['episodes_hash']})")
    if drawn:
        say(f"drawn: {', '.join(map(shown, drawn))}")


def _check_evaluate(args: arguments.Evaluate) -> None:
    if not args.runs:
        raise RecipeError(
            "evaluate needs at least one run folder, as in: lethax evaluate runs/sinusoid-l2f-5shot-seed0"
        )
    recipes.check_seed(args.seed)
    for name, value, least, most in (
        ("episodes", args.episodes, 1, 10_000_000), ("ensemble", args.ensemble, 1, 1000), ("steps", args.steps, 0, 1000)
    ):  # fmt: skip
        if value is not None and not least <= value <= most:
            raise RecipeError(f"--{name} is {value}; it has to be from {least} to {most:,}.")


def _kind(recipe: Recipe) -> str:
    """What the scores of a run are."""
    return "error" if recipe.data in REGRESSION else "return" if recipe.data in CONTROL else "accuracy"


def _draw(args: arguments.Evaluate, results: list[Any]) -> list[Path]:
    from lethax import folders
    from lethax.report import pictures

    return [
        path
        for folder, result in zip(args.runs, results, strict=True)
        for path in pictures.draw(folders.open_run(folder), result, args.seed)
    ]


def embed_images(args: arguments.Embed) -> None:
    from lethax import assemble, embed
    from lethax.data import embeddings

    if min(args.filters, args.steps, args.batch) < 1 or not 0 < args.rate < float("inf"):
        raise RecipeError("--filters, --steps and --batch have to be at least 1, --rate a number above 0.")
    recipes.check_seed(args.seed)
    assemble.use_all_cores()
    store = embed.images_of(args.data)
    name = args.store or f"{args.data}-{args.backbone.name.lower() if args.backbone else args.net}"
    if args.backbone:
        backbone = embed.from_run(args.backbone)
    else:
        net = embed.net_for(args.net, store, args.filters)
        how = embed.Schooling(
            args.steps, args.batch, args.rate, padding=max(store.splits["train"].images.shape[1] // 10, 1)
        )
        with bar("backbone", args.steps) as show:
            backbone = embed.school(store, net, how, args.seed, lambda done, _, note: show(done, note))
        say(f"accuracy on held-out images of the training classes: {backbone.accuracy:.3f}")
    total = sum(len(split.images) for split in store.splits.values())
    with bar("features", total, "images") as show:
        splits = embed.features_of(store, backbone, lambda done, _, note: show(done, note))
    path = args.out or Path(f"{name}.safetensors")
    embed.write(path, splits)
    origin = {"kind": "features", "of": args.data, "command": shlex.join(["lethax", *sys.argv[1:]])}
    embeddings.write_features(name, splits, args.root, origin)
    describe(name, args.root)
    say(f"written: {shown(path)}. Next: {_command('train', name, '--method', 'leo+l2f')}")


def fill_table(args: arguments.Reproduce) -> None:
    from lethax import assemble, reproduce
    from lethax.report import cells

    if not 0 < args.budget <= 1 or args.seeds < 1 or (args.steps is not None and args.steps < 1):
        raise RecipeError("--budget has to be above 0 and at most 1, --seeds and --steps at least 1.")
    if not args.targets:
        raise RecipeError("reproduce needs a table, such as table_d, or cells of one.")
    found = [cell for target in args.targets for cell in cells.find(target, args.only)]
    if len({cell.table for cell in found}) != 1:
        raise RecipeError("reproduce takes one table, or cells of one table.")
    assemble.use_all_cores()
    every = reproduce.jobs(
        found, args.out, budget=args.budget, steps=args.steps, seeds=args.seeds, val_episodes=args.val_episodes
    )
    reproduce.check_data(every)
    groups = reproduce.groups(every)
    if args.dry_run:
        _show_plan(groups)
        return
    signals.say("what is done stays", "the same command goes on")
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
    """Train and judge a group: the failures, which must not cost the other runs hours, and how many runs are judged."""
    from lethax import reproduce

    failed: list[DivergedError] = []
    judged = 0
    if not all(job.trained for job in group):
        try:
            follow(f"{title}: outer steps", group[0].recipe.steps or 0, reproduce.train(group))
        except DivergedError as error:
            say(f"{title}: {error}")
            failed.append(error)
    for job in (job for job in group if job.trained):
        try:
            reproduce.judge(job)
            judged += 1
        except DivergedError as error:
            say(f"{title}: left out, {error}")
            failed.append(error)
    return failed, judged


def _show_plan(groups: list[list[Any]]) -> None:
    from lethax import reproduce

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("cells", overflow="fold")
    for column in ("runs", "steps", "done", "hours left"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("hours are", overflow="fold")
    total = 0.0
    with bar("estimating", len(groups), "cells") as show:
        for number, (group, left) in enumerate(zip(groups, reproduce.estimates(groups), strict=True), 1):
            total += left.seconds / 3600
            names = "\n".join(dict.fromkeys(job.cell.name for job in group))
            done = f"{sum(job.trained for job in group)}/{len(group)}"
            hours = f"{left.seconds / 3600:.2f}"
            table.add_row(names, str(len(group)), str(group[0].recipe.steps), done, hours, left.source)
            show(number, "")
    say("what would run:")
    console.print(table)
    say(f"{total:.2f} hours of training on this machine, validation and evaluation aside")


def show_demo(args: arguments.Demo) -> None:
    from lethax import demo

    signals.say("what is done stays", "the same command goes on")
    demo.run(args.out, _show_training)
