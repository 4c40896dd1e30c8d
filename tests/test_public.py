"""The public names: which there are, that type checkers know them, and that they are what they are in any order of imports."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lethax

ROOT = Path(__file__).parent.parent
NAMES = """
    ALFA Adapted Attenuator CheckpointError Contextual Conv4 CrossEntropy CurveEncoder DataError DivergedError Domain
    EnvironmentFault Episode EpisodeShape FixedRule ImageEncoder Implicit L2F LEO LSLR Learner LethaxError MAML MLP Made
    MetaSGD Method NearestPrototype Net PlainNet Plan Prepared Recipe RecipeError Reptile ResNet12 Resolved RunError SGD
    Score SignSGD Split SquaredError TrainState Trial adapt_run begin best_metas class_split domain_of dump evaluate
    features_on_device fit load load_adapted on_device open_run open_store option paired register_domain register_method
    register_net register_rule register_section register_tasks resolve score
""".split()


def test_the_names() -> None:
    """What users rely on: a name that goes, or comes, is a change for the changelog."""
    assert lethax.__all__ == NAMES


def test_checkers_read_the_same_names_as_python_loads() -> None:
    tree = ast.parse((ROOT / "lethax" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {
        (alias.asname or alias.name).removeprefix("_"): (node.module, alias.name)
        for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert typed == {name: (f"lethax.{module}", there) for name, (module, there) in lethax._PLACES.items()}
    assert (ROOT / "lethax" / "py.typed").is_file()


WRONG = """
import lethax

lethax.MAML(lethax.Conv4(wey=5), stepz=3)
lethax.register_methd
lethax.evaluate.score
lethax.MAML(lethax.Conv4(way=5), steps=3)
learner: lethax.Learner = lethax.LEO(lethax.MLP())
"""
# What is not ours is passed over, which is most of the time.
CONFIG = """
[mypy]
strict = true
follow_imports = silent
[mypy-jax.*,numpy.*,optax.*,jaxtyping.*,rich.*,PIL.*,filelock.*,safetensors.*,tyro.*,matplotlib.*]
follow_imports = skip
"""


def test_a_type_checker_finds_mistakes_in_a_program_of_a_user(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "mine.py").write_text(WRONG)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    options = ["--config-file", "mypy.ini", "--cache-dir", "cache", "--no-error-summary"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "mine.py"], cwd=tmp_path, env={"MYPYPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    found = re.findall(r'^mine.py:(\d+): error: .*?"(\w+)" ?.* \[([a-z-]+)\]$', done.stdout, re.M)
    assert found == [
        ("4", "stepz", "call-arg"), ("4", "wey", "call-arg"), ("5", "register_methd", "attr-defined"),
        ("6", "score", "attr-defined"),
    ], done.stdout + done.stderr  # fmt: skip


@pytest.mark.parametrize("package", [lethax.__name__, *(
    module.name for module in pkgutil.walk_packages(lethax.__path__, "lethax.") if module.ispkg
)])  # fmt: skip
def test_no_module_takes_the_place_of_a_name(package: str) -> None:
    """Python puts an imported module into its package, over whatever has that name there: `lethax.evaluate` was once one."""
    modules = {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)}
    source = Path(str(importlib.import_module(package).__file__)).read_text(encoding="utf-8")
    given = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module != package
        for alias in node.names
    }  # fmt: skip
    assert not modules & (given | set(lethax.__all__ if package == "lethax" else ()))


IMPORTS = """
import importlib, os, pkgutil, signal, sys
import lethax

def names():
    return {name: getattr(lethax, name) for name in lethax.__all__}

def modules():
    for module in pkgutil.walk_packages(lethax.__path__, "lethax."):
        if module.name != "lethax.__main__":
            importlib.import_module(module.name)

"""
# What Python on Windows lacks, beside the whole of these modules. Libraries are imported before: they have their own ways there.
WINDOWS = """
import asyncio, filelock, jax, matplotlib.figure, multiprocessing, optax, PIL.Image, rich.console, safetensors.numpy
import subprocess, tyro
for name in ("fcntl", "grp", "pwd", "resource", "termios", "posix"):
    sys.modules[name] = None
for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "posix_fallocate", "fork", "getuid", "geteuid",
             "sched_getaffinity", "uname", "fchmod", "killpg", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGALRM", "SIGUSR1", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
"""


@pytest.mark.parametrize("order", ["before = names(); modules()", f"{WINDOWS}\nmodules(); before = names()"])
def test_in_any_order_of_imports(order: str) -> None:
    """A name is the same before and after all modules are imported; these need nothing that Windows lacks."""
    check = "assert names() == before and callable(lethax.evaluate), lethax.evaluate\n"
    listens = "from lethax import signals; signals.hold(); signals.listen()\n"
    done = subprocess.run([sys.executable, "-c", f"{IMPORTS}{order}\n{check}{listens}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
