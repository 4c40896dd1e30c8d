"""The errors a user can meet; each says what was found, what was expected and what to do.

LethaxError
├── RecipeError       a recipe, option or name that does not exist or does not fit
├── DataError         a data set, archive or picture that is missing, damaged or too small
├── CheckpointError   a checkpoint that is damaged, of another format or of another net
├── RunError          a run folder that is missing, locked or of another recipe
├── DivergedError     NaN or Inf appeared in training; the last good checkpoint is kept
└── EnvironmentFault  a simulator that is missing or breaks down, or a task or action that does not fit it
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

from lethax.text import shown

LIMIT = 4000  # characters of a message
OF_A_PLUGIN = " If a plugin adds it, name the plugin with --plugin FILE."


class LethaxError(Exception):
    """Base of all errors that are shown to the user as one clear sentence: see `text.shown` for what is done to the message."""

    run: Path | None = None  # the folder of the run that failed, where several are trained in one program

    def __init__(self, message: str) -> None:
        super().__init__(shown(message, LIMIT))


class RecipeError(LethaxError):
    """A recipe, option or name that does not exist or does not fit."""


class DataError(LethaxError):
    """A data set, archive or picture that is missing, damaged or too small."""


class CheckpointError(LethaxError):
    """A checkpoint that is damaged, of another format, or of another net."""


class RunError(LethaxError):
    """A run folder that is missing, locked by another process, or of another recipe."""


class DivergedError(LethaxError):
    """NaN or Inf appeared in training; the last good checkpoint is kept."""


class EnvironmentFault(LethaxError):
    """A simulator that is missing or breaks down, or a task or action that does not fit it."""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known name, or the empty string."""
    nearest = difflib.get_close_matches(found, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
