"""The examples in the docstrings of the main entry points run and print what they say."""

import doctest
import inspect

import pytest

import lethax
from lethax.recipe.resolve import resolve

NAMES = (
    "L2F", "MAML", "Attenuator", "Conv4", "Plan", "begin", "fit", "class_split", "on_device", "open_store",
    "Recipe",
)  # fmt: skip
ENTRIES = {**{name: getattr(lethax, name) for name in NAMES}, "resolve": resolve}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own for what an example writes."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ENTRIES)
def test_example(name, here):
    text = inspect.getdoc(ENTRIES[name])
    assert "Example" in text
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    refers = text.partition("Example: see `")[2].partition("`")[0]
    if refers:  # two names that are of use only together have one example
        assert not example.examples and name in inspect.getdoc(ENTRIES[refers]).partition("Example:")[2]
        return
    assert 2 <= len(example.examples) and text.partition("Example:")[2].strip().count("\n") < 16
    said = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert result.attempted and not result.failed, "".join(said)
