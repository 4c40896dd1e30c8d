"""The cells of the paper's tables. Each has a recipe in `recipes/TABLE/`; published numbers are in `published.toml`."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lethax.errors import RecipeError, did_you_mean
from lethax.recipe import Recipe, load
from lethax.report import paper_figures
from lethax.text import shown

_HERE = Path(__file__).parent
# Beside the package where it is installed, at the top of the sources where it is not.
_ALIASES = {"figure_f": "navigation", "f": "navigation"}
FOLDER = next((f for f in (_HERE.parent / "recipes", _HERE.parent.parent / "recipes") if f.is_dir()), _HERE / "recipes")


class Published(NamedTuple):
    """A published number. `interval` is what is printed after its ±, which in the classification tables is √(p(1 − p)).

    `by_updates`: in control, returns after 0, 1, … updates, `value` among them. `by_column`: (value, interval) of every test
    column, whose mean is `value`.
    """

    value: float
    interval: float | None
    source: str
    by_updates: tuple[float, ...] = ()
    by_column: Mapping[str, tuple[float, float]] = MappingProxyType({})


class Setting(NamedTuple):
    """What two cells have to share, so that a difference between them comes from their methods."""

    base: str
    data: str
    net: str
    way: int
    shot: int
    query: int
    inner_steps: int
    batch: int
    preset: str


class Cell(NamedTuple):
    """One number of a table. Its name is such as "table_b/l2f_cifar_fs_5way5shot_conv4"; its recipe is not resolved yet."""

    name: str
    recipe: Recipe
    published: Published | None

    @property
    def table(self) -> str:
        """The table of the cell, which is the folder of its recipe."""
        return self.name.partition("/")[0]

    def setting(self) -> "Setting":
        """The setting of the cell. It has the values that the method compared with, such as MAML, would have in this cell."""
        from lethax.methods.registry import (
            method_of,
        )  # not at the top: they import JAX, which `lethax --help` does not wait for
        from lethax.recipe.resolve import resolve

        base = method_of(self.recipe).base
        r = resolve(replace(self.recipe, method=base, flat=True))
        episode = r.episode
        return Setting(
            base, r.data, r.net.kind, episode.way, episode.shot, episode.query, r.inner.steps, r.outer.batch, r.preset
        )

    @property
    def is_base(self) -> bool:
        """Whether the other methods of the setting are compared with this cell."""
        return self.recipe.method == self.setting().base


@cache
def published() -> dict[str, Published]:
    """The published numbers, by the name of their cell."""
    entries = tomllib.loads((_HERE / "published.toml").read_text(encoding="utf-8"))
    return {
        name: Published(
            e["value"],
            e.get("interval"),
            e["source"],
            tuple(e.get("by_updates", ())),
            {column: (value, interval) for column, (value, interval) in e.get("by_column", {}).items()},
        )  # fmt: skip
        for name, e in entries.items()
    }


def table_names() -> list[str]:
    """The names of all tables, which are the folders of recipes."""
    return sorted(path.name for path in FOLDER.glob("*") if path.is_dir())


def every_cell() -> list[Cell]:
    """All cells, sorted by table and name."""
    paths = sorted(FOLDER.glob("*/*.toml"))
    names = [f"{path.parent.name}/{path.stem}" for path in paths]
    return [Cell(name, load(path), published().get(name)) for name, path in zip(names, paths, strict=True)]


def find(target: str) -> list[Cell]:
    """Find the cells of a table ("table_b", "table-b", "b") or one cell. RecipeError if there is none."""
    wanted = target.lower().replace("-", "_").removesuffix(".toml").removeprefix("recipes/")
    wanted = _ALIASES.get(wanted, wanted)
    cells = every_cell()
    found = [c for c in cells if wanted in (c.name.lower().replace("-", "_"), c.table, c.table.removeprefix("table_"))]
    if not found:
        near = did_you_mean(wanted, [*table_names(), *(c.name for c in cells), *paper_figures.FIGURES])
        raise RecipeError(
            f"no table, cell or figure is called '{shown(target)}'.{near} All tables and figures: lethax reproduce --help"
        )
    return found


def narrowed(found: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that are named, or whose methods are; all of them where none is. RecipeError for a name that fits none of them."""
    methods = sorted({cell.recipe.method for cell in found})
    known = {*methods, *(cell.name for cell in found)}
    for name in only:
        if name not in known:
            near = did_you_mean(name, known)
            raise RecipeError(
                f"--only is {shown(name)}, but the targets have no such cell and no cell of such a method.{near} Their methods: "
                f"{', '.join(methods)}."
            )
    return [cell for cell in found if not only or cell.recipe.method in only or cell.name in only]
