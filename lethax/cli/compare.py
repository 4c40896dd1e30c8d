"""The command `lethax compare`. JAX is imported by what needs it."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lethax import signals
from lethax.cli import recipe_options
from lethax.cli.analyse import table_of
from lethax.cli.evaluate import against
from lethax.cli.groups import train_group
from lethax.cli.usage import check_range
from lethax.errors import CheckpointError, DivergedError, LethaxError, RecipeError
from lethax.files import to_json
from lethax.progress import console, say, watch
from lethax.recipe import Recipe
from lethax.recipe.record import check_seed
from lethax.text import command_line, counted, shown

_MOST_SEEDS = 1000


def compare(args: Any) -> None:
    """Run the command `lethax compare`: train and evaluate every method with every seed, and write the table."""
    from lethax import compare as comparing
    from lethax.devices import use_all_cores
    from lethax.report import comparison
    from lethax.runs import jobs

    methods = _checked(args)
    rivals = against(args.baselines, args.features, args.json)
    use_all_cores()
    planned = comparing.plan(
        Recipe(data=args.data).with_values(**recipe_options.given(args)), methods,
        reference=args.reference or methods[0], seeds=range(args.first_seed, args.first_seed + args.seeds), out=args.out,
        episodes=args.episodes,
    )  # fmt: skip
    every = planned.every
    jobs.check_data(every)
    folder = every[0].folder.parent
    comparing.check_rivals(planned, rivals)
    for job in every:
        job.open()  # what cannot be is said before anything trains
    wanted = comparing.episodes_hash(planned)
    tell = (lambda text: None) if args.json else say
    signals.say("what is done is kept", "the same command goes on with it")
    budget = planned.recipe.outer
    tell(
        f"{counted(len(methods), 'method')}, {counted(args.seeds, 'seed')} each, {counted(budget.steps, 'outer step')} of "
        f"{counted(budget.batch, 'task')}, in {shown(folder)}; the hash of the test episodes is {wanted}"
    )
    for note in planned.notes:
        tell(shown(note, 400))
    failed = _trained(jobs.groups(every), quiet=args.json)
    entries, notes = _judged(planned, wanted, rivals, failed, quiet=args.json)
    record = _record(planned._replace(notes=[*planned.notes, *notes]), entries, wanted)
    if not args.json:
        say(comparison.title(record))
        for lines in (comparison.score_lines(record), comparison.about_lines(record)):
            console.print(table_of(lines))
        for sentence in [*notes, *record["conclusions"]]:
            say(shown(sentence, 2000))
    written = comparison.write(record, folder)
    if args.json:
        print(to_json(record, None))
    else:
        say(f"written: {', '.join(map(shown, written))}")
    if failed:
        raise next(iter(failed.values()))


def _checked(args: Any) -> list[str]:
    """The methods that are asked for. RecipeError for a command line that cannot be."""
    if args.data and (Path(args.data) / "recipe.toml").is_file():
        raise RecipeError(
            f"{shown(args.data)} is a run: compare trains runs of its own on DATA. Finished runs are compared by: "
            f"{command_line('evaluate', args.data, 'OTHER_RUN')}"
        )
    if not args.data:
        raise RecipeError("compare needs DATA, as in: lethax compare sinusoid --methods maml,l2f")
    methods = [name for word in args.methods for name in word.split(",") if name]
    if len(methods) < 2:
        raise RecipeError("compare needs two methods at least, as in: --methods maml,l2f")
    check_range("seeds", args.seeds, 1, _MOST_SEEDS)
    check_range("episodes", args.episodes, 2, 10_000_000)  # one has no interval to conclude from
    check_seed(args.first_seed)
    check_seed(args.first_seed + args.seeds - 1)
    return methods


def _trained(groups: list[list[Any]], quiet: bool) -> dict[Path, LethaxError]:
    """Train what is not trained yet. Returns the error of every run that diverged or is damaged, by its folder; others go on."""
    from lethax.runs import jobs

    failed: dict[Path, LethaxError] = {}
    for number, group in enumerate(groups, 1):
        alike = f" and {len(group) - 1} alike" if group[1:] else ""
        if quiet:
            for _ in jobs.train(group, failed):
                pass
        else:
            failed |= train_group(f"{number}/{len(groups)} {shown(group[0].folder.name, 60)}{alike}", group)
    return failed


def _judged(
    planned: Any, wanted: str, rivals: Any, failed: dict[Path, LethaxError], quiet: bool
) -> tuple[list[Any], list[str]]:
    """What is compared, which are the methods and the baselines, and what there is to say of baselines and of features."""
    from lethax import compare as comparing
    from lethax.report import comparison

    entries, beside, notes = [], [], []
    for method, mine in planned.jobs.items():
        records: list[Any] = []
        for job in (job for job in mine if job.folder not in failed):
            seen = iter if quiet else partial(watch, f"evaluating {shown(job.folder.name, 60)}", planned.episodes)
            wants = comparing.rivals_of(rivals, first=not records) if method == planned.reference else None
            try:
                records.append(comparing.judge(planned, job, wanted, wants, seen))
            except (DivergedError, CheckpointError) as error:
                failed[job.folder] = error
        if method == planned.reference:
            beside, notes = comparison.baselines(records), comparison.remarks(records)
        about = comparison.about(mine[0].recipe, [job.folder for job in mine])
        lost = tuple(str(failed[job.folder]) for job in mine if job.folder in failed)
        entries.append(comparison.Compared(method, comparison.scores_of(records), about, lost))
    return [*entries, *beside], notes


def _record(planned: Any, entries: list[Any], wanted: str) -> dict[str, Any]:
    """All that the files and the table say."""
    from lethax.domains import domain_of
    from lethax.report import comparison
    from lethax.runs.folder import environment

    recipe, domain = planned.recipe, domain_of(planned.recipe)
    objective = domain.learner(recipe, domain.inputs(recipe)).objective
    record: dict[str, Any] = {
        **environment(), "command": shlex.join(["lethax", *sys.argv[1:]]), "data": recipe.data, "split": "test",
        "way": recipe.episode.way if domain.classes else None, "shot": recipe.episode.shot, "net": recipe.net.kind,
        "score": objective.score_name, "higher_is_better": objective.higher_is_better, "episodes": planned.episodes,
        "episodes_hash": wanted, "reference": planned.reference,
        "seeds": [job.recipe.seed for job in planned.jobs[planned.reference]], "notes": planned.notes,
        "rows": comparison.rows(entries, planned.reference),
    }  # fmt: skip
    return {**record, "conclusions": comparison.conclusions(record)}
