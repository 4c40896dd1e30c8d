"""The README's Python runs as it stands; commands and options, its own and of the pages on methods, are known to the program."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from lethax import cli
from lethax.cli.program import parsed
from lethax.cli.recipe_options import every_option, negative, normal

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/methods").glob("*.md"))]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
OTHERS = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))]
LINES = {line.split("#")[0].strip() for text in TEXTS + OTHERS for line in re.findall(r"^ +(lethax .+)$", text, re.M)}
COMMANDS = sorted(
    line for line in LINES if "[" not in line and "--plugin" not in line
)  # a synopsis; what needs its file


def test_python(capsys):
    code = re.search(r"```python\n(.+?)```", README, re.S)[1]
    assert len(code.splitlines()) <= 15
    random = np.random.RandomState(0)
    scope = {"images": random.randint(0, 256, (60, 28, 28, 1)).astype(np.uint8), "labels": np.repeat(np.arange(6), 10)}
    exec(code, scope)
    assert scope["logits"].shape == (25, 5)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_known(command):
    words = shlex.split(command)[1:]
    if "--help" in words:
        assert cli.main(words) == 0
    else:
        parsed([normal(word) for word in words])


def test_options_are_known():
    """An option that is named in a text exists, and with the value beside it the command is one that can be typed."""
    known = {f"--{flag}": one.kind for one in every_option() for flag in (one.flag, negative(one))}
    known["--plugin"] = Path  # of every command: it is taken before the others are read
    named = [option for text in TEXTS for option in re.findall(r"`(--[^`]+)`", text)]
    assert len(named) > 20
    for option in named:
        name, _, value = option.replace("\\|", "|").partition(" ")
        assert name in known, option
        if value and known[name] is not Path:
            parsed(["train", "sinusoid", name, value.split("|")[0]])
        elif known[name] is bool:
            parsed(["train", "sinusoid", name])


def test_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^ +make (\w+)", README, re.M):
        assert f"\n{target}:" in makefile


def test_public_names():
    import lethax

    assert all(getattr(lethax, name) is not None for name in lethax.__all__)
    with pytest.raises(AttributeError):
        lethax.nothing  # noqa: B018
