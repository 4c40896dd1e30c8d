"""The command `lethax evaluate`. JAX is imported by what needs it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lethax import signals
from lethax.cli import arguments
from lethax.cli.usage import check_range
from lethax.errors import DataError, RecipeError
from lethax.files import to_json
from lethax.progress import console, say, watch
from lethax.recipe.record import check_seed
from lethax.text import shown


def evaluate(args: arguments.Evaluate) -> None:
    from lethax.devices import use_all_cores
    from lethax.report import columns, scores
    from lethax.runs.evaluation import check_alike, evaluate_run, write_evaluation
    from lethax.runs.folder import open_run

    _check_evaluate(args)
    use_all_cores()
    opened = [open_run(folder, "Name those that you mean") for folder in args.runs]
    check_alike(opened, "evaluate")
    judged = list(_judged(args, opened))
    results = []
    changed = {name: value for name in ("way", "shot", "head", "norm") if (value := getattr(args, name)) is not None}
    rivals = against(args.baselines, args.features, args.json)
    for folder, run, data in judged:
        count, on = args.episodes or run.domain.episodes, f" on {shown(data)}" if data and data != args.data else ""
        results.append(evaluate_run(
            run, episodes=count, ensemble=args.ensemble, steps=run.domain.curve if args.steps is None else args.steps,
            seed=args.seed, split=args.split, data=data, changed=changed,
            watch=iter if args.json else partial(watch, f"evaluating {shown(folder)}{on}", count),
            against=rivals,
        ))  # fmt: skip
    folders = [folder for folder, _, _ in judged]
    if args.json:
        print(to_json([result.record for result in results], None))
    elif len(judged) > len(opened):
        say(columns.title(results))
        console.print(columns.table(folders, results, console.encoding))
    else:
        say(scores.title(results))
        for table in scores.tables(args.runs, results, console.width, console.encoding):
            console.print(table)
        for why in filter(None, (scores.unpaired(args.runs, results), scores.beyond(results))):
            say(why)
        for sentence in dict.fromkeys(line for result in results for line in scores.elsewhere(result.record)):
            say(sentence)
    signals.say("the evaluations that were written are kept")
    for result in results:  # after they are shown: a full disk must not cost hours of judging
        write_evaluation(result)
    drawn = _draw([run for _, run, _ in judged], results, args.seed) if args.pictures else []
    if args.json:
        return
    for folder, result in zip(folders, results, strict=True):
        if said := scores.gates(result.record):
            say(f"{shown(folder)}{_on(result, folders)}: {said}")
        for line in scores.verdicts(shown(folder), result.record):
            say(line)
    for result in results:
        say(f"written: {shown(result.path)}, on the episodes with the hash {result.record['episodes_hash']}")
    if drawn:
        say(f"drawn: {', '.join(map(shown, drawn))}")


def _judged(args: arguments.Evaluate, opened: Sequence[Any]) -> Iterator[tuple[Path, Any, str | None]]:
    """Every run with the data that it is judged on; None is its own."""
    for folder, run in zip(args.runs, opened, strict=True):
        columns = (args.data,) if args.data else run.domain.columns(run.recipe, args.split)
        if not columns:
            raise DataError(f"nothing is prepared that has classes to judge {shown(folder)} on: no {args.split} split.")
        for data in columns:
            yield folder, run, data


def _on(result: Any, folders: Sequence[Path]) -> str:
    """The data of a result, where its run has several."""
    return f" on {shown(result.record['data'], 60)}" if len(set(folders)) < len(folders) else ""


def _check_evaluate(args: arguments.Evaluate) -> None:
    if not args.runs:
        raise RecipeError(
            "evaluate needs at least one run folder, as in: lethax evaluate runs/sinusoid-l2f-5shot-seed0"
        )
    check_seed(args.seed)
    check_range("episodes", args.episodes, 1, 10_000_000)
    check_range("ensemble", args.ensemble, 1, 1000)
    check_range("steps", args.steps, 0, 1000)
    check_range("way", args.way or None, 2, 1000)  # the recipe says whether 0, a number that is drawn, makes sense
    check_range("shot", args.shot or None, 1, 1000)


def against(names: Sequence[str] | None, features: str | None, quiet: bool) -> Any:
    """The baselines that are asked for; all of them if none is named. None if they are not asked for."""
    from lethax.runs.rivals import NAMES, NETS, RATES, STEPS, TRIED, Against

    if names is None:
        if features is not None:
            raise RecipeError("--features are read by baselines: name some, as in --baselines prototype probe.")
        return None
    asked = [name for name in NAMES if name in (names or NAMES)]
    long = [name for name in asked if name in NETS]
    if long and not quiet:
        say(f"{' and '.join(long)}: {STEPS} steps of the whole network on every episode, and before that on {TRIED[long[0]]} "
            f"validation episodes for each of {len(RATES)} rates")  # fmt: skip
    return Against(asked, features, (lambda what, count, parts: parts) if quiet else watch)


def _draw(runs: Sequence[Any], results: Sequence[Any], seed: int) -> list[Path]:
    from lethax.report import pictures

    return [path for run, result in zip(runs, results, strict=True) for path in pictures.draw(run, result, seed)]
