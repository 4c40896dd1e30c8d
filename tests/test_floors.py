"""Imports only go down: every module has a floor, and imports from its own or one below, also within functions."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    [
        "records",
        "learner",
        "errors",
        "trees",
        "conjugate",
        "objectives",
        "gaussian",
        "names",
        "rules",
        "files",
        "toml",
        "lock",
        "signals",
        "text",
        "streams",
    ],
    [
        "inner",
        "nets",
        "data",
        "checkpoint",
        "rl",
        "rl.aims",
        "rl.physics",
        "rl.locomotion",
        "rl.gym_adapter",
        "rl.render",
        "rl.environment",
        "rl.navigation",
        "rl.rollouts",
        "rl.advantages",
        "rl.objective",
        "rl.trpo",
    ],
    ["methods", "devices", "optimizer"],
    ["outer", "evaluate", "baselines", "pretrain", "rl.outer", "rl.evaluate", "rl.film"],
    ["recipe", "presets", "checks", "fitting", "control", "assemble", "folders", "runs", "recorder", "training"],
    ["report"],
    ["cli", "arguments", "usage", "progress", "commands", "commands_data", "demo", "reproduce", "embed", "__main__"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
SPREAD = {name.split(".")[0] for name in FLOOR if "." in name}  # packages whose modules have floors of their own


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "lethax").rglob("*.py"))}
CHECKED = [name for name in MODULES if name != "lethax"]


def imports(name: str) -> Iterator[str]:
    """Full names of all that a module imports; `from lethax import trees` counts as lethax.trees."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def part_of(name: str) -> str:
    """`data` of lethax.data.source; `rl.render` of lethax.rl.render, as rl is spread over floors."""
    whole = name.removeprefix("lethax.")
    return whole if whole.split(".")[0] in SPREAD else whole.split(".")[0]


def floor(name: str) -> int:
    part = part_of(name)
    assert part in FLOOR, f"{name} has no floor: add '{part}' to FLOORS in {Path(__file__).name}"
    return FLOOR[part]


@pytest.mark.parametrize("name", CHECKED)
def test_imports_go_down(name: str) -> None:
    for found in imports(name):
        if not found.startswith("lethax."):
            continue  # of others, or of the root's __version__
        assert floor(found) <= floor(name), f"{name} (floor {floor(name)}) imports {found} (floor {floor(found)})"
        if floor(name) == 2:
            assert not f"{found}.".startswith("lethax.data."), f"{name} imports {found}: methods do not know data"
            sibling = f"{found}.".startswith("lethax.methods.") and name != "lethax.methods"
            assert not sibling, f"{name} imports {found}: methods do not know each other"


@pytest.mark.parametrize("name", CHECKED)
def test_matplotlib_is_only_imported_where_figures_and_glyphs_are_drawn(name: str) -> None:
    if name != "lethax.data.glyphs" and not f"{name}.".startswith("lethax.report."):
        assert not any(found.split(".")[0] == "matplotlib" for found in imports(name))


@pytest.mark.parametrize("name", CHECKED)
def test_simulators_are_imported_when_used(name: str) -> None:
    assert not {found.split(".")[0] for found in imports(name)} & {"gymnasium", "mujoco"}


@pytest.mark.skipif("lethax.cli" not in MODULES, reason="there is no command line yet")
def test_command_line_starts_without_jax() -> None:
    code = "import sys, lethax.cli; print(sorted({'jax', 'jaxlib', 'numpy', 'optax', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_floor_is_of_a_module() -> None:
    assert set(FLOOR) <= {part_of(name) for name in CHECKED}, "FLOORS names a module that is gone"
