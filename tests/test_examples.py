"""The examples in the docstrings of the main entry points run and print what they say, and those of examples/ run."""

import doctest
import inspect
import math
import runpy
from pathlib import Path

import pytest

import lethax

NAMES = (
    "L2F", "MAML", "Attenuator", "Conv4", "Plan", "begin", "fit", "Trial", "evaluate", "class_split", "on_device", "open_store",
    "Recipe", "resolve",
)  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own for what an example writes."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_example(name, here):
    text = inspect.getdoc(getattr(lethax, name))
    assert "Example" in text
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    refers = text.partition("Example: see `")[2].partition("`")[0]
    if refers:  # two names that are of use only together have one example
        assert not example.examples and name in inspect.getdoc(getattr(lethax, refers)).partition("Example:")[2]
        return
    assert 2 <= len(example.examples) and text.partition("Example:")[2].strip().count("\n") < 16
    said = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert result.attempted and not result.failed, "".join(said)


TINY = {
    "sine": {"steps": 2, "episodes": 100},
    "own_arrays": {"steps": 2, "filters": 2, "inner_steps": 1},
    "own_loop": {"steps": 2},
    "policy": {"steps": 1, "rollouts": 2, "horizon": 5, "units": 4},
}
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", TINY)
def test_program(name, here, capsys):
    program = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    found = program["main"](**TINY[name])
    assert all(
        math.isfinite(value) for value in ([found] if isinstance(found, float) else getattr(found, "per_task", found))
    )
    assert capsys.readouterr().out
    assert f"python examples/{name}.py" in program["__doc__"]


def test_every_program_is_run():
    programs = {path.stem for path in (ROOT / "examples").glob("*.py") if not path.stem.startswith("new_")}
    assert programs == set(TINY)
    assert len((ROOT / "examples/sine.py").read_text().splitlines()) <= 40


def test_the_sine_is_learned():
    """A short training is far better than a curve that knows nothing, whose squared error is over 4."""
    program = runpy.run_path(str(ROOT / "examples/sine.py"))
    assert program["main"](steps=3000, episodes=200).mean < 2.5
