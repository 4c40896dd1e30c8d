"""Foreign text is shown on one line, escaped and bounded."""

import pytest

from lethax.errors import DataError
from lethax.text import counted, plural, showable, shown


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
    assert shown(16**5000) == "a very long int"  # which Python does not write


def test_an_error_is_one_bounded_line():
    message = str(DataError("class \x1b[31m\nlethax: all is well " + "x" * 1_000_000))
    assert message.isprintable() and len(message) < 5000


@pytest.mark.parametrize(("number", "one", "said"), [
    (1, "query", "1 query"), (15, "query", "15 queries"), (1, "class", "1 class"), (0, "class", "0 classes"),
    (12_000, "shot", "12,000 shots"),
])  # fmt: skip
def test_counts_have_the_right_word(number, one, said):
    assert counted(number, one) == said and said.endswith(plural(number, one))


def test_signs_that_an_encoding_lacks_are_replaced():
    assert showable("0.5 ± 0.1 Δ", "ascii") == "0.5 +/- 0.1 \\u0394"
    assert showable("0.5 ± 0.1 Δ", "latin-1") == "0.5 ± 0.1 \\u0394"
    assert showable("0.5 ± 0.1 Δ", "utf-8") == "0.5 ± 0.1 Δ"
