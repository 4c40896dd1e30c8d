"""The commands `lethax train` and `lethax recipe`. JAX is imported by what needs it."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lethax import signals
from lethax.cli import recipe_options
from lethax.errors import DataError, RecipeError
from lethax.progress import compiling, duration, follow, say
from lethax.recipe import Recipe, Resolved, dump, load
from lethax.text import command_line, counted, in_bytes, shown, sized


def train(args: Any) -> None:
    """Run the command `lethax train`: train a new run, or go on with one."""
    from lethax import processes
    from lethax.devices import use_all_cores
    from lethax.runs import folder as folders
    from lethax.runs import heard, probes, tensorboard

    _check_probes(args)
    if args.dry_run:
        show_cost(args)
        return
    if args.tensorboard:
        tensorboard.check()
    use_all_cores()
    processes.join(args.distributed)
    words = shlex.join(sys.argv[1:])
    of_first = processes.told(words)
    with processes.agreed():
        if words != of_first:
            raise RecipeError(
                f"the first process of this run was called by {shown(of_first, 400)}, this one by {shown(words, 400)}: give all "
                f"the same options, or set {processes.PROCESSES}=1 for runs of their own."
            )
        made, note = (_resumed if args.resume else _begun)(args) if processes.first() else (None, "")
    run = heard.heard(made)
    if not processes.first():
        _help(run)
        return
    signals.say("nothing was saved yet", f"go on with {command_line('train', '--resume', run.folder)}")
    if args.probe:
        probes.ask(run, args.probe, args.probe_every)
    begun = folders.reached(run)
    where = "finished" if begun == run.recipe.outer.steps else f"going on from step {begun:,}"
    notes = "; ".join([*([note] if note else []), *([where] if begun else [])])
    say(f"run {shown(run.folder)}: {_described(run)}{f' ({notes})' if notes else ''}")
    if seen := _seen(run):
        say(seen)
    show_training(run, tensorboard.mirrored if args.tensorboard else None)


def _help(run: Any) -> None:
    """Train a run as one of its other processes, which neither write nor speak."""
    from lethax.runs import training

    signals.say("the first process of the run saves its state", "")
    for _ in training.train(run):
        pass


def show_cost(args: Any) -> None:
    """Say what the run of these options would cost, and whether it fits into the memory."""
    from lethax.devices import use_all_cores
    from lethax.runs import estimate
    from lethax.runs import folder as folders

    if not (args.data or args.recipe or args.resume):
        raise RecipeError("train needs DATA, --recipe FILE or --resume RUN.")
    use_all_cores()
    run, recipe, note = (*_resumable(args), "") if args.resume else (None, *_fitted(args))
    if note:
        say(note)
    with compiling("an outer step") as first:
        found = estimate.cost(recipe)
        first()
    say(
        f"parameters: {found.learned:,} are learned; the network has {found.weights:,}, of which the inner loop moves "
        f"{found.moved:,}"
    )
    if found.operations:
        said = f"{found.operations / 1e9:,.3g} billion floating-point operations"
        pace = f", {found.operations / found.seconds / 1e9:,.3g} billion a second" if found.seconds else ""
        say(f"an outer step: {said} by the compiler's count{pace}")
    there = f", of {in_bytes(found.usable)} that are free" if found.usable else ""
    say(f"memory of an outer step: {in_bytes(found.memory)}{there}")
    if not found.fits:
        raise MemoryError
    if found.seconds is not None:
        begun = folders.reached(run) if run else 0
        left = recipe.outer.steps - begun
        quicker = " Those of first order are quicker." if recipe.inner.first_order_steps > begun else ""
        steps = counted(left, "outer step") + (f" from step {begun:,} on" if begun else "")
        say(
            f"time: {duration(found.seconds * left)} for {steps}, {found.seconds:.3g} s each, validation apart.{quicker}"
        )


def _check_probes(args: Any) -> None:
    from lethax.runs import probes

    if args.probe_every is not None and not args.probe:
        raise RecipeError(
            "--probe-every says how often a run is probed: give --probe as well, as in --probe landscape conflict."
        )
    probes.check(args.probe, args.probe_every)


def show_recipe(args: Any) -> None:
    """Run the command `lethax recipe`: print the resolved recipe, of data that are not prepared yet as well."""
    from lethax.recipe.resolve import resolve

    if not args.data and not args.recipe:
        raise RecipeError("recipe needs DATA, as in: lethax recipe sinusoid --method l2f; or --recipe FILE.")
    try:
        recipe, note = _fitted(args)
    except DataError as error:
        recipe, note = resolve(asked(args)), f"these are the usual values, because {error}"
    if note:
        print(f"lethax: {note}", file=sys.stderr)  # beside the recipe, which may go to a file
    print(dump(recipe), end="")


def asked(args: Any) -> Recipe:
    """The recipe that the command line gives."""
    base = load(args.recipe, args.data) if args.recipe else Recipe(data=args.data or Recipe().data)
    return base.with_values(**recipe_options.given(args))


def _fitted(args: Any) -> tuple[Resolved, str]:
    from lethax.recipe.resolve import fit

    return fit(asked(args))


def _resumable(args: Any) -> tuple[Any, Resolved]:
    """The run to go on with, and its recipe, with more outer steps if they are asked for."""
    from lethax.runs import folder as folders
    from lethax.runs import making

    given = recipe_options.given(args)
    if set(given) - {"outer.steps"} or args.data or args.recipe or args.out or args.overwrite:
        raise RecipeError(
            "--resume goes on with a run as it is, so the only options beside it are --steps, for more outer steps, --probe and "
            "--tensorboard. Leave the others out, or start a new run with --out."
        )
    run = folders.open_run(args.resume)
    return run, making.longer(run, given["outer.steps"]) if given else run.recipe


def _resumed(args: Any) -> tuple[Any, str]:
    from lethax.runs import making

    run, recipe = _resumable(args)
    return making.extend(run, recipe.outer.steps), ""


def _begun(args: Any) -> tuple[Any, str]:
    """The run of these options, new or begun before, and a note on values that were fitted to the data."""
    from lethax.runs import making

    if not args.data and not args.recipe:
        raise RecipeError("train needs DATA, --recipe FILE or --resume RUN.")
    recipe, note = _fitted(args)
    shape = f"{recipe.episode.shot}shot-" if recipe.episode.shot else ""
    name = f"{recipe.data}-{recipe.method}-{shape}seed{recipe.seed}"
    out = args.out or Path("runs") / name
    if args.overwrite:
        return making.replace(recipe, out), note
    return making.enter(recipe, out, "choose another --out, or replace that run with --overwrite"), note


def _seen(run: Any) -> str:
    """What the weights behind features have seen of the validation classes, whose scores training shows; "" if there are none."""
    from lethax import pretrained
    from lethax.data.store import open_store

    if run.inputs is None or run.inputs.origin is None:
        return ""
    return pretrained.caution(run.inputs.origin.backbone, open_store(run.recipe.data).splits["val"].classes)


def _described(run: Any) -> str:
    """ "l2f on birds, 4-way 1-shot with 6 queries a class, 50,000 outer steps"; of tasks without classes, shots alone."""
    recipe, episode = run.recipe, run.recipe.episode
    queries = f" with {counted(episode.query, 'query')} a class" if episode.query else ""
    classes = f"{sized(episode.way, 'way')} " if run.domain.classes else ""
    episodes = f"{classes}{sized(episode.shot, 'shot')}{queries if run.domain.classes else ''}"
    return f"{recipe.method} on {recipe.data}, {episodes}, {counted(recipe.outer.steps, 'outer step')}"


def show_training(run: Any, mirror: Callable[..., Any] | None = None) -> None:
    """Train a run, show its progress, and say which command comes next. `mirror` sees the progress too, and passes it on."""
    from lethax.runs import folder as folders
    from lethax.runs import training

    finished = folders.reached(run) == run.recipe.outer.steps
    statuses = training.train(run)
    if mirror:
        statuses = mirror(run, statuses)
    last = follow("outer steps", run.recipe.outer.steps, statuses, compiles=not finished)
    if last is None:
        more = command_line("train", "--resume", run.folder)
        say(f"It was finished before. To give it more outer steps: {more} --steps N")
        return
    if cost := folders.probing(run):
        say(f"The probes took {duration(cost[0])}, beside {duration(cost[1])} of training, and changed no bit of it.")
    skipped = f", {last.skipped:,} of {counted(last.total, 'outer step')} skipped" if last.skipped else ""
    say(f"done: {shown(run.folder)}{skipped}. Next: {command_line('evaluate', run.folder)}")
