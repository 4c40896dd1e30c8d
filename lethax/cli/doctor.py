"""The command `lethax doctor`."""

from lethax import doctor as examination
from lethax.cli import arguments
from lethax.errors import LethaxError


def doctor(args: arguments.Doctor) -> None:
    """Run the command `lethax doctor`: print what this machine has. LethaxError where something is wrong."""
    rows = examination.examine(args.quick)
    if not examination.show(rows, args.json):
        wrong = ", ".join(row.what for row in rows if row.state == examination.WRONG)
        raise LethaxError(f"something is wrong with {wrong}: the table says what to do.")
