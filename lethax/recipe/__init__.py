"""Recipes: the values of an experiment as a user gives them (`Recipe`), and with all others filled in (`Resolved`)."""

from lethax.recipe.record import Recipe as Recipe
from lethax.recipe.record import Resolved as Resolved
from lethax.recipe.toml import dump as dump
from lethax.recipe.toml import load as load
