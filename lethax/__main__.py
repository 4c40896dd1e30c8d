"""python -m lethax"""

from lethax.cli import entry

entry()
