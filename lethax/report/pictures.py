"""Pictures of one evaluation, beside its record."""

from pathlib import Path

from lethax import assemble, control, folders, runs
from lethax.names import LOCOMOTION, NAVIGATION, navigation_setting
from lethax.report import figures
from lethax.rl import render


def draw(run: folders.Run, result: runs.Result, seed: int) -> list[Path]:
    """Scores against inner steps; of navigation also ways to the goal, of locomotion films before and after adaptation.

    EnvironmentFault where films cannot be drawn: there is no OpenGL, not even in software.
    """
    method, stem = run.recipe.method, result.path.with_suffix("")
    made = [stem.with_name(f"{stem.name}-curve.png")]
    figures.adaptation_curves({method: result.record}, made[0])
    if run.recipe.data in NAVIGATION:
        made.append(stem.with_name(f"{stem.name}-paths.png"))
        setting = navigation_setting(result.record["data"])
        figures.navigation_paths({method: {setting: runs.read_rollouts(result.path)}}, made[-1])
    if run.recipe.data in LOCOMOTION:
        made.extend(_films(run, stem, seed))
    return made


def _films(run: folders.Run, stem: Path, seed: int) -> list[Path]:
    world, meta = control.environment(run.recipe), runs.best_metas(run, 1)[0][0]
    made = []
    for number, (task, *takes) in enumerate(control.films(run.recipe, meta, assemble.test_key(seed))):
        goal = task if world.aim.kind == "goal" else None
        for when, positions in zip(("before", "after"), takes, strict=True):
            frames = render.frames(world, positions[::2], goal=goal)
            name = f"{stem.name}-task{number}-{when}"
            made += [stem.with_name(f"{name}.gif"), stem.with_name(f"{name}.png")]
            render.gif(made[-2], frames, 2 * world.dt)
            render.strip(made[-1], frames)
    return made
