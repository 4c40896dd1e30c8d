"""What an option of a recipe is: its type, its range, its default and its help."""

from dataclasses import field
from typing import Any, NamedTuple

# A program grows with some numbers where its loops are written out, and one beyond this compiles without an end in sight.
MANY = 100_000


class Range(NamedTuple):
    """The range of a number: `low` and `high` are allowed themselves, `above` and `below` are not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None


class Option(NamedTuple):
    """One option of a recipe, such as "inner.rate". `short` is its spelling without the section, "inner-rate", or ""."""

    section: str
    name: str
    kind: Any
    text: str
    default: Any
    range: Range
    short: str

    @property
    def key(self) -> str:
        """The name with its section: "inner.rate"."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """The spelling on the command line, without its dashes."""
        return self.short or self.key.replace("_", "-")


def option(default: Any, text: str, short: str = "", **bounds: float) -> Any:
    """Make a field of a section from its default, a sentence of help, its short spelling and the range of its numbers."""
    return field(default=default, metadata={"text": text, "short": short, "range": Range(**bounds)})
