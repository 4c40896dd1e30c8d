"""A row of the table of `lethax doctor`."""

from typing import NamedTuple

OK, WARNING, WRONG = "ok", "warning", "wrong"


class Row(NamedTuple):
    """What was looked at, its state (OK, WARNING or WRONG), what was found, and what to do; "" where nothing has to be done."""

    what: str
    state: str
    found: str
    advice: str = ""
