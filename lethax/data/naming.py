"""The names that data sets may have."""

import re

from lethax.data.known import KNOWN
from lethax.errors import DataError
from lethax.names import DATA_NAME, MADE
from lethax.text import shown


def well_named(name: str, advice: str = "") -> str:
    """Return a name that is spelt as those of data sets are. DataError otherwise, which ends in `advice`."""
    if not re.fullmatch(DATA_NAME, name):
        said = f"'{shown(name, 80)}' is no name for a data set: use lower-case letters, digits, - and _{advice}."
        raise DataError(said)
    return name


def checked_name(name: str) -> str:
    """Return the name if a new data set may have it. DataError otherwise."""
    if name in MADE:
        raise DataError(f"'{name}' is the name of tasks that lethax makes itself: choose another with --store.")
    return well_named(name, "; choose one with --store")


def own_name(name: str, layout: str = "") -> str:
    """Return the name if a data set of somebody's own, prepared from this layout, may have it. DataError otherwise."""
    if name in KNOWN and not KNOWN[name].words.startswith(f"data prepare {layout} "):
        raise DataError(
            f"'{name}' is the name of a data set that lethax prepares by itself: choose another with --store."
        )
    return checked_name(name)
