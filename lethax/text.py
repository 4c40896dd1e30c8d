"""Text that is not ours, made fit to be shown: names, classes and values from files and from the command line."""

from typing import Any


def shown(value: Any, limit: int = 200) -> str:
    """`value` as one line of at most about `limit` characters, in which nothing can act on a terminal or imitate our lines.

    Control characters, line breaks, direction marks and bytes that are not UTF-8 appear as escapes, such as `\\x1b`. A longer text
    loses its middle: the end of a path often says more than what stands before it.
    """
    text = str(value)
    if len(text) > limit:
        half = (limit - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
