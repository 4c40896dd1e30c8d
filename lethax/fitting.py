"""A recipe that leaves way, shot or query open takes those that its data set allows. No JAX here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from lethax.data.fits import nearest, room
from lethax.data.store import ClassSplit, open_store
from lethax.errors import DataError
from lethax.names import CONTROL, REGRESSION
from lethax.recipe import Recipe, resolve
from lethax.text import counted

_OPEN = ("way", "shot", "query")


class Fitted(NamedTuple):
    """A resolved recipe, and what in it is not the usual value because the data set is small; "" where nothing is."""

    recipe: Recipe
    note: str


def fit(recipe: Recipe) -> Fitted:
    """`resolve`, with way, shot and query that all splits of the data set allow, unless the recipe gives them.

    DataError where what it gives does not allow a single episode; it names a command that works.
    """
    usual = resolve(recipe)
    if usual.data in (*REGRESSION, *CONTROL):
        return Fitted(usual, "")
    splits = open_store(usual.data).splits
    fixed = [name for name in _OPEN if getattr(recipe, name) is not None]
    assert usual.way and usual.shot and usual.query
    wanted = usual.way, usual.shot, usual.query
    found = nearest(splits, *wanted, fixed)
    trained = {name: part for name, part in splits.items() if name != "test"}
    note = ""
    if not found and trained and (found := nearest(trained, *wanted, fixed)):
        note = f"the test split allows {room({'test': splits['test']})}, so this run cannot be evaluated on it"
    if not found:
        raise DataError(_refusal(usual, recipe, splits))
    changed: dict[str, Any] = {
        name: value for name, value in zip(_OPEN, found, strict=True) if value != getattr(usual, name)
    }
    if changed:
        differences = ", ".join(f"{name} {value} instead of {getattr(usual, name)}" for name, value in changed.items())
        note = f"{differences}, to fit {usual.data}" + (f"; {note}" if note else "")
    return Fitted(resolve(replace(recipe, **changed)), note)


def _refusal(usual: Recipe, recipe: Recipe, splits: Mapping[str, ClassSplit]) -> str:
    asked = f"{usual.way}-way episodes of {counted(usual.shot or 0, 'shot')} and {counted(usual.query or 0, 'query')} a class"
    found = nearest(splits, usual.way or 0, usual.shot or 0, usual.query or 0)
    said = f"{usual.data} does not allow {asked}: it allows {room(splits)}."
    if not found:
        return f"{said} An episode needs two classes and two examples of each: prepare it again with more."
    method = f" --method {recipe.method}" if recipe.method != Recipe().method else ""
    return f"{said} This fits: lethax train {usual.data}{method} --way {found[0]} --shot {found[1]} --query {found[2]}"
