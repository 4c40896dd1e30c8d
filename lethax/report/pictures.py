"""Draw pictures of one evaluation, beside its record."""

from collections.abc import Callable
from pathlib import Path

from lethax.domains.control import Control
from lethax.names import navigation_setting
from lethax.report import figures
from lethax.rl import render
from lethax.runs.evaluation import Result, best_metas
from lethax.runs.folder import Run
from lethax.streams import test_key


def draw(run: Run, result: Result, seed: int) -> list[Path]:
    """Draw scores against inner steps, and the pictures of the run's domain. Returns the files.

    EnvironmentFault if films cannot be drawn, because there is no OpenGL, not even in software.
    """
    stem = result.path.with_suffix("")
    made = [stem.with_name(f"{stem.name}-curve.png")]
    figures.adaptation_curves({run.recipe.method: result.record}, made[0])
    for name in run.domain.drawings:
        made += DRAWINGS[name](run, result, stem, seed)
    return made


def _paths(run: Run, result: Result, stem: Path, seed: int) -> list[Path]:
    """Draw paths to the goal."""
    made = stem.with_name(f"{stem.name}-paths.png")
    setting = navigation_setting(result.record["data"])
    figures.navigation_paths({run.recipe.method: {setting: result.kept}}, made)
    return [made]


def _films(run: Run, result: Result, stem: Path, seed: int) -> list[Path]:
    """Draw a robot before and after adaptation, as GIFs and as strips of pictures."""
    domain, meta = run.domain, best_metas(run, 1)[0][0]
    assert isinstance(domain, Control)
    world, made = domain.environment(run.recipe), []
    for number, (task, *takes) in enumerate(domain.films(run.recipe, meta, test_key(seed))):
        goal = task if world.aim.kind == "goal" else None
        for when, positions in zip(("before", "after"), takes, strict=True):
            frames = render.frames(world, positions[::2], goal=goal)
            name = f"{stem.name}-task{number}-{when}"
            made += [stem.with_name(f"{name}.gif"), stem.with_name(f"{name}.png")]
            render.gif(made[-2], frames, 2 * world.dt)
            render.strip(made[-1], frames)
    return made


DRAWINGS: dict[str, Callable[[Run, Result, Path, int], list[Path]]] = {"paths": _paths, "films": _films}
