"""Make text fit to be shown: text that is not ours, counts, and signs that a terminal lacks."""

import codecs
import shlex
from typing import Any

_PLAIN = str.maketrans(
    {"±": "+/-", "−": "-", "…": "...", "–": "-", "×": "x", "√": "sqrt ", "²": "^2"}
    | {"α": "alpha", "β": "beta", "γ": "gamma", "θ": "theta", "λ": "lambda", "σ": "sigma"}
)
_PLAIN |= {ord(c): "-" for c in "─━═╴╶╸╺"} | {ord(c): "|" for c in "│┃║"} | {ord(c): "+" for c in "╭╮╰╯"}


def shown(value: Any, limit: int = 200) -> str:
    """`value` as one line of at most about `limit` characters, in which nothing can act on a terminal or imitate our lines.

    Control characters, line breaks, direction marks and bytes that are not UTF-8 appear as escapes, such as `\\x1b`. A longer text
    loses its middle: the end of a path often says more than what stands before it.
    """
    try:
        text = str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, which hexadecimal digits can write
        return f"a very long {type(value).__name__}"
    if len(text) > limit:
        half = (limit - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


ALWAYS: list[str] = []  # the words that any command needs to go on with this one: --plugin FILE
ROOT: list[str] = []  # the words that say where this command has its data, where it was told: --root FOLDER
_WITH_ROOT = ("train", "evaluate", "data", "embed")  # of the commands that are proposed, those that take it


def command_line(*words: Any) -> str:
    """Write a `lethax` command that can be copied, whatever its words contain."""
    root = ROOT if words[0] in _WITH_ROOT else []
    return shown(shlex.join(["lethax", *map(str, words), *root, *ALWAYS]), 1000)


def plural(number: int, one: str) -> str:
    """The word after a number: "class" after 1, else "classes"; "query" and "queries"."""
    if number == 1:
        return one
    return f"{one[:-1]}ies" if one.endswith("y") else f"{one}es" if one.endswith("s") else f"{one}s"


def sized(number: int, what: str) -> str:
    """ "5-way", "20-shot"; "any-way" where 0 says that each episode draws its own number."""
    return f"{number:,}-{what}" if number else f"any-{what}"


def counted(number: int, one: str) -> str:
    """ "1 class", "12,000 classes"."""
    return f"{number:,} {plural(number, one)}"


def in_bytes(count: float) -> str:
    """A number of bytes: "3.1 GiB", "120 MiB", "7 KiB"."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"


def showable(text: str, encoding: str) -> str:
    """`text` without the signs that an encoding lacks: "+/-" in place of "±", an escape such as `\\u0394` in place of others."""
    return text.encode(encoding, ENCODING_ERRORS).decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(ord(c)) or c.encode("unicode_escape").decode() for c in text), error.end


ENCODING_ERRORS = "lethax"  # what a stream does with a sign that its encoding lacks
codecs.register_error(ENCODING_ERRORS, _replaced)
