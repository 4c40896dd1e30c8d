"""The `lethax` program, the only part of the package that prints."""

from lethax.cli.program import entry as entry
from lethax.cli.program import main as main
