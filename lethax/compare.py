"""Compare methods on one data set: equal options, equal budgets, the same seeds, and one list of test episodes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lethax.domains import domain_of
from lethax.errors import RecipeError, RunError
from lethax.methods import method_of
from lethax.recipe import Recipe, Resolved
from lethax.recipe.resolve import fit, parts_of, resolve
from lethax.runs.evaluation import evaluate_run, file_name, judged_before, write_evaluation
from lethax.runs.folder import EVALUATIONS
from lethax.runs.jobs import Job
from lethax.runs.rivals import CLASSIFIERS, NETS, Against, Contest, check_baselines
from lethax.streams import test_key
from lethax.text import shown

SEED = 0  # that the test episodes follow from, as in the tables
ENSEMBLE = 1  # best checkpoints that are judged
# What has the reference's value in all methods, given or not: the task, the network, and the budget.
SHARED = (
    "episode.way", "episode.shot", "episode.query", "episode.eval_query", "episode.rotate",
    "net.kind", "net.filters", "net.depth", "net.deviation", "net.norm",
    "outer.steps", "outer.full_steps", "outer.batch", "outer.epoch", "outer.val_episodes", "outer.keep",
)  # fmt: skip


class Comparison(NamedTuple):
    """What is compared: the runs of every method, one for each seed. `notes` are sentences on options that not all have."""

    reference: str
    jobs: dict[str, list[Job]]
    notes: list[str]
    episodes: int

    @property
    def every(self) -> list[Job]:
        """All runs, method by method."""
        return [job for mine in self.jobs.values() for job in mine]

    @property
    def recipe(self) -> Resolved:
        """The recipe of the reference's first run."""
        return self.jobs[self.reference][0].recipe


def plan(
    asked: Recipe,
    methods: Sequence[str],
    *,
    reference: str,
    seeds: Sequence[int],
    out: Path | None,
    episodes: int | None,
) -> Comparison:
    """Make the recipe of every method and seed.

    The options that are given hold for every method that reads them. The task, the network and the budget are the reference's,
    and every method keeps its own published inner loop unless an option says otherwise. RecipeError if a method does not fit.
    """
    _check(methods, reference)
    usual, notes = _recipes(asked, methods, reference)
    folder = out or Path("runs") / "compare" / asked.data / f"{usual[reference].episode.shot or 'any'}shot"
    jobs = {
        method: [
            Job(resolve(recipe.with_values(seed=seed)), folder / f"{method}-seed{seed}")
            for seed in seeds
        ]
        for method, recipe in usual.items()
    }  # fmt: skip
    return Comparison(reference, jobs, notes, episodes or domain_of(usual[reference]).episodes)


def _check(methods: Sequence[str], reference: str) -> None:
    if reference not in methods:
        raise RecipeError(
            f"--reference is '{shown(reference, 60)}', which is not one of the methods: {', '.join(methods)}."
        )
    names: dict[str, str] = {}
    for method in methods:
        full = method_of(Recipe(method=method)).full
        if full in names:
            raise RecipeError(f"{names[full]} and {method} are one method: name it once.")
        names[full] = method


def _recipes(asked: Recipe, methods: Sequence[str], reference: str) -> tuple[dict[str, Resolved], list[str]]:
    """The recipe of every method, and what there is to say about them."""
    reads = {method: parts_of(replace(asked, method=method)).options for method in methods}
    without = {key: [m for m in methods if key not in reads[m]] for key in asked.given}
    partly = {key: lacking for key, lacking in without.items() if 0 < len(lacking) < len(methods)}
    notes = [
        f"{key} is not an option of {', '.join(lacking)}, and holds for the others." for key, lacking in partly.items()
    ]

    def own(method: str) -> Recipe:
        given = {key: value for key, value in asked.given.items() if method not in partly.get(key, ())}
        return replace(asked, method=method, given=given)

    first, fitted = fit(own(reference))
    shared = {key: first.value(key) for key in SHARED if key in first.used}
    found = {}
    for method in methods:
        mine = own(method)
        more = {key: value for key, value in shared.items() if key in reads[method]}
        found[method] = first if method == reference else resolve(replace(mine, given={**mine.given, **more}))
    return found, [*([f"{fitted}."] if fitted else []), *notes]


def episodes_hash(comparison: Comparison) -> str:
    """The hash of the test episodes, which every run has to meet."""
    recipe = comparison.recipe
    domain = domain_of(recipe)
    domain.check_split(recipe, "test")
    return domain.episodes_hash(recipe, "test", comparison.episodes, test_key(SEED))


def judge(
    comparison: Comparison,
    job: Job,
    wanted: str,
    against: Against | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """The record of a run's evaluation on the test episodes with the hash `wanted`; it is evaluated unless it was before.

    against: the baselines that the record has as well; others, which the run was judged beside at another time, are left out.
    """
    path = job.folder / EVALUATIONS / file_name("test", SEED, comparison.episodes, ENSEMBLE)
    run, steps = job.open(), job.recipe.inner.steps
    record = judged_before(run, path, ENSEMBLE, steps)
    same = record is not None and (record.get("episodes_hash"), record["n"]) == (wanted, comparison.episodes)
    if record is not None and same and _has(record, against):
        names = against.names if against else ()
        return {**record, "baselines": {name: record["baselines"][name] for name in names}}
    result = evaluate_run(
        run,
        episodes=comparison.episodes,
        ensemble=ENSEMBLE,
        steps=steps,
        seed=SEED,
        watch=watch,
        against=against,
    )
    if result.record["episodes_hash"] != wanted:
        raise RunError(
            f"{shown(job.folder)} meets the episodes {result.record['episodes_hash']}, the others meet {wanted}: it cannot be "
            "compared with them."
        )
    write_evaluation(result)
    return result.record


def check_rivals(comparison: Comparison, against: Against | None) -> None:
    """Raise RecipeError for a baseline that does not fit the reference, before anything trains."""
    if against is None:
        return
    recipe = comparison.recipe
    domain = domain_of(recipe)
    inputs = domain.inputs(recipe)
    meta = jax.eval_shape(domain.learner(recipe, inputs).init, jax.random.key(0))
    key = test_key(SEED)
    check_baselines(Contest(recipe, inputs, "test", comparison.episodes, key, meta, against.features), against.names)


def rivals_of(against: Against | None, first: bool) -> Against | None:
    """The baselines that a run of the reference is judged beside. Only the first one has those that depend on no run."""
    if against is None:
        return None
    names = [name for name in against.names if first or name in NETS]
    return against._replace(names=names, features=against.features if first else None) if names else None


def _has(record: dict[str, Any], against: Against | None) -> bool:
    """Whether a record has all baselines that are asked for, of what they are to read."""
    found = record.get("baselines", {})
    reads = (
        {name: (against.features if name in CLASSIFIERS else None) or record["data"] for name in against.names}
        if against
        else {}
    )
    return all(name in found and found[name]["on"] == data for name, data in reads.items())
