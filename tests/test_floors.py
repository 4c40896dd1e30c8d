"""Imports only go down a stair, and no file asks for a data set or a method by its name but those that have them."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lethax import names
from lethax.data.known import KNOWN
from lethax.methods.registry import METHODS

ROOT = Path(__file__).parent.parent
# From the ground up. A part is a module or a package with all in it; "recipe.resolve" has a step of its own, above its package.
# Parts of one step do not know each other.
STAIR = [
    ["text", "names", "streams", "signals"],
    ["records", "errors", "trees", "gaussian"],
    ["objectives", "progress", "inner", "conjugate"],
    ["files", "lock", "learner", "hardware"],
    ["processes", "command", "precision", "native"],
    ["rules", "devices", "optimizer"],
    ["outer", "evaluation", "checkpoint"],
    ["meta_batch"],
    ["nets", "data", "recipe", "analysis"],
    ["pretrain", "baselines"],
    ["methods", "rl", "pretrained", "clusters"],
    ["domains"],
    ["recipe.resolve", "plugins"],
    ["runs"],
    ["embed", "report", "sweeps"],
    ["reproduce", "compare", "doctor", "benchmark"],
    ["cli"],
    ["__main__"],
]
STEP = {part: step for step, parts in enumerate(STAIR) for part in parts}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "lethax").rglob("*.py"))}
CHECKED = [name for name in MODULES if name != "lethax"]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[str]:
    """Full names of all that a module imports, also within functions; `from lethax import trees` counts as lethax.trees."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def part_of(name: str) -> str:
    """`data` of lethax.data.source; `recipe.resolve` of lethax.recipe.resolve, which the stair names itself."""
    whole = name.removeprefix("lethax.")
    part = whole if whole in STEP else whole.split(".")[0]
    assert part in STEP, f"{name} has no step: add '{part}' to STAIR in {Path(__file__).name}"
    return part


@pytest.mark.parametrize("name", CHECKED)
def test_imports_go_down(name: str) -> None:
    mine = part_of(name)
    for found in imports(name):
        if not found.startswith("lethax."):
            continue  # of others, or of the root's __version__
        part = part_of(found)
        assert part == mine or STEP[part] < STEP[mine], (
            f"{name} (step {STEP[mine]}) imports {found} (step {STEP[part]})"
        )


def test_no_module_imports_itself_by_way_of_others() -> None:
    arrows = {name: [found for found in imports(name) if found in CHECKED and found != name] for name in CHECKED}
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_every_step_is_of_modules_and_has_few() -> None:
    assert set(STEP) <= {part_of(name) for name in CHECKED}, "STAIR names a module that is gone"
    assert max(map(len, STAIR)) <= 4 and len(STEP) == sum(map(len, STAIR))


@pytest.mark.parametrize("name", [name for name in CHECKED if name.startswith("lethax.methods.")])
def test_methods_do_not_know_each_other(name: str) -> None:
    if name not in ("lethax.methods.parts", "lethax.methods.registry"):  # which put them together
        known = {found for found in imports(name) if f"{found}.".startswith("lethax.methods.")}
        assert {
            found for found in known if not found.startswith(("lethax.methods.contract", "lethax.methods.fast"))
        } == set()


@pytest.mark.parametrize("name", CHECKED)
def test_matplotlib_is_only_imported_where_figures_and_glyphs_are_drawn(name: str) -> None:
    if name != "lethax.data.glyphs" and not f"{name}.".startswith("lethax.report."):
        assert not any(found.split(".")[0] == "matplotlib" for found in imports(name))


@pytest.mark.parametrize("name", CHECKED)
def test_simulators_are_imported_when_used(name: str) -> None:
    assert not {found.split(".")[0] for found in imports(name)} & {"gymnasium", "mujoco"}


def test_command_line_starts_without_jax() -> None:
    code = "import sys, lethax.cli; print(sorted({'jax', 'jaxlib', 'numpy', 'optax', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# What may ask by name: what has the names.
OWNERS = ("lethax.domains.", "lethax.methods.", "lethax.names.", "lethax.data.")
KINDS = {"curves", "images", "features", "control"}
NAMES = {*METHODS, *names.MADE, *KNOWN, "glyphs", *KINDS}
LISTS = {"MADE", "CURVES", "NAVIGATION", "LOCOMOTION"}
PARTS_OF_TEXT = {"startswith", "endswith", "removeprefix", "removesuffix"}


def words(node: ast.AST) -> set[str]:
    """The strings and the lists of names in an expression."""
    found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    named = {
        n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)
    }
    return found | (named & LISTS)


def questions(module: ast.AST) -> Iterator[str]:
    """What is asked by the name of a data set, a method or their kind: comparisons, cases, and the beginnings of names."""
    for node in ast.walk(module):
        asked: set[str] = set()
        if isinstance(node, ast.Compare):
            asked = words(node) & (NAMES | LISTS)
        elif isinstance(node, ast.MatchValue):
            asked = words(node) & NAMES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARTS_OF_TEXT:
            starts = {word.strip("+_-") for argument in node.args for word in words(argument)}
            asked = {word for word in starts if len(word) > 2 and any(word in one for one in NAMES)}
        if asked:
            yield f"line {node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in MODULES if not f"{name}.".startswith(OWNERS)])
def test_nothing_else_asks_for_data_or_methods_by_name(name: str) -> None:
    assert not list(questions(tree(name)))


@pytest.mark.parametrize("line", [
    'x = 1 if recipe.data == "sinusoid" else 2', 'if name in ("leo", "leo+l2f"): pass', "recipe.data in MADE",
    "a not in names.MADE",
    'method.startswith("leo")', 'data.removeprefix("modes")', 'method.endswith("+l2f")', 'recipe.method != "cavia"',
    'match data:\n  case "navigation": pass', 'domain.kind == "control"',
])  # fmt: skip
def test_questions_by_name_are_seen(line: str) -> None:
    assert len(list(questions(ast.parse(line)))) == 1


@pytest.mark.parametrize("line", ['path.startswith("best-")', 'TITLES["maml"]', 'split == "test"', "name in known"])
def test_other_questions_are_not(line: str) -> None:
    assert not list(questions(ast.parse(line)))


def workarounds(module: ast.AST) -> Iterator[str]:
    """`assert recipe.…` and `recipe.… or default`: a resolved recipe has every value, and nothing is asked again."""
    for node in ast.walk(module):
        tested = [node.test] if isinstance(node, ast.Assert) else []
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            tested = node.values[:-1]
        for one in tested:
            text = ast.unparse(one)
            if isinstance(one, ast.Attribute) and {"recipe", "resolved", "r"} & set(text.split(".")[:-1]):
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", MODULES)
def test_a_resolved_recipe_is_not_asked_again(name: str) -> None:
    assert not list(workarounds(tree(name)))


def test_workarounds_are_seen() -> None:
    for line in ("assert recipe.way", "x = run.recipe.outer.rate or 0.1", "f(r.inner.steps or 5)"):
        assert len(list(workarounds(ast.parse(line)))) == 1
    assert not list(workarounds(ast.parse("if learner.ready or recipe.reads('leo'): pass")))


def test_no_two_classes_share_a_name() -> None:
    """A word means one thing: a reader who has met it once knows it everywhere."""
    seen: dict[str, str] = {}
    for name in CHECKED:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef):
                assert node.name not in seen, f"{node.name} is a class of {seen[node.name]} and of {name}"
                seen[node.name] = name
