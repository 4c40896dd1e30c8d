"""The `lethax` program: nothing else prints."""

from lethax.cli.program import entry as entry
from lethax.cli.program import main as main
