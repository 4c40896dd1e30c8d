"""A recipe is every value of an experiment that matters: what a user gives (`Recipe`), and what that comes to (`Resolved`)."""

from lethax.recipe.record import Recipe as Recipe
from lethax.recipe.record import Resolved as Resolved
from lethax.recipe.toml import dump as dump
from lethax.recipe.toml import load as load
