"""`lethax demo`: MAML and MAML+L2F on sinusoids and on printed characters of scripts never seen in training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from lethax import data, signals, trees
from lethax.analysis import regression
from lethax.cli import arguments
from lethax.cli.train import show_training
from lethax.devices import use_all_cores
from lethax.domains import supervised
from lethax.evaluation import paired
from lethax.progress import console, say
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.report import figures
from lethax.runs.evaluation import best_metas, evaluate_run, write_evaluation
from lethax.runs.folder import open_run
from lethax.runs.making import enter
from lethax.streams import test_key
from lethax.text import showable, shown

METHODS = ("maml", "l2f")
# Small budgets, marked as such in the table: the demo has to end in minutes on two cores.
SETTINGS: dict[str, tuple[Recipe, int]] = {
    "sinusoid": (Recipe.of(data="sinusoid", shot=5, inner_steps=1, steps=10_000, epoch=2_500), 2_000),
    "glyphs": (
        Recipe.of(
            data="glyphs", shot=1, query=5, batch=4, inner_steps=2, inner_rate=0.1, filters=16, steps=300,
            first_order_steps=0, epoch=150, val_episodes=40, keep=1,
        ),
        200,
    ),
}  # fmt: skip


def show_demo(args: arguments.Demo) -> None:
    """Run the command `lethax demo`."""
    signals.say("what is done is kept", "the same command goes on with it")
    run(args.out, show_training)


def run(out: Path, train: Callable[[Any], None]) -> None:
    """Train what is not trained yet, evaluate it, print a table, and write pictures to the folder `out`."""
    use_all_cores()
    say("Preparing the data set glyphs, unless that was done before.")
    data.prepare("glyphs", None, None, lambda what, share: None)
    title = "5-shot sinusoids, 5-way 1-shot characters: n test episodes, ± 1.96 s/√n"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("tasks", "method", "steps", "n", "before", "after", "L2F − MAML"):
        table.add_column(column, no_wrap=column != "tasks")  # that one gives way in a narrow terminal
    for name, (base, episodes) in SETTINGS.items():
        results = {method: _result(out / f"{name}-{method}", base, method, episodes, train) for method in METHODS}
        gap = paired(results["l2f"].score.per_task, results["maml"].score.per_task)
        gaps = {"l2f": showable(f"{gap.mean:+.3f} ± {gap.ci95:.3f}", console.encoding)}
        for method, result in results.items():
            inner = result.record["inner_steps"]
            table.add_row(
                f"{name}, {result.record['score']}", figures.TITLES[method], f"{base.get('outer.steps'):,}", f"{result.score.n:,}",
                f"{result.curve[0].mean:.3f}",
                showable(f"{result.curve[inner].mean:.3f} ± {result.score.ci95:.3f}", console.encoding),
                gaps.get(method, ""),
            )  # fmt: skip
        figures.adaptation_curves({m: r.record for m, r in results.items()}, out / f"{name}-adaptation.png")
    figures.sinusoid_fits({m: _fits(out / f"sinusoid-{m}") for m in METHODS}, out / "sinusoid-fits.png")
    console.print(table)
    say(f"The pictures are {', '.join(map(shown, sorted(out.glob('*.png'))))}.")


def _result(folder: Path, base: Recipe, method: str, episodes: int, train: Callable[[Any], None]) -> Any:
    found = enter(resolve(base.with_values(method=method)), folder)
    say(f"{shown(folder)}: {method} on {base.data}")
    train(found)
    result = evaluate_run(found, episodes=episodes, ensemble=1, steps=5, seed=0)
    write_evaluation(result)
    return result


def _fits(folder: Path) -> dict[str, Any]:
    """What is drawn of the fourth test curve: its support points, and the outputs of the net after each inner step."""
    found = open_run(folder)
    shape = supervised.shape_of(found.recipe, "test")._replace(query=200)
    family, meta = found.domain.family(found.recipe, "test"), best_metas(found, 1)[0][0]
    fits = regression.fits(found.learner(), meta, *family, shape, test_key(0), curves=4, steps=5)
    support, query, path = trees.at(fits, 3)
    return {"support": support, "query": query, "path": path}
