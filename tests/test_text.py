"""Foreign text is shown on one line, escaped and bounded."""

import pytest

from lethax.errors import DataError
from lethax.text import shown


@pytest.mark.parametrize(("text", "expected"), [
    ("plain name, ü, 日本", "plain name, ü, 日本"),
    ("\x1b[2Jclean", "\\x1b[2Jclean"),
    ("a\nlethax: done", "a\\nlethax: done"),
    ("a\rb\tc", "a\\rb\\tc"),
    ("right\u202eleft", "right\\u202eleft"),
    ("line\u2028end", "line\\u2028end"),
    (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\udce9"),
])  # fmt: skip
def test_what_acts_on_a_terminal_is_escaped(text, expected):
    assert shown(text) == expected
    shown(text).encode("utf-8")


def test_length_is_bounded():
    text = shown("b" + "x" * 100_000 + "e", limit=50)
    assert len(text) <= 50 and text.startswith("bx") and text.endswith("xe")
    assert shown("x" * 50, limit=50) == "x" * 50


def test_an_error_is_one_bounded_line():
    message = str(DataError("class \x1b[31m\nlethax: all is well " + "x" * 1_000_000))
    assert message.isprintable() and len(message) < 5000
