"""The examples in the docstrings of the main entry points run and print what they say."""

import doctest
import inspect

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
