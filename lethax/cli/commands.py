"""The tree of commands that the parser reads. Nothing here imports JAX."""

import dataclasses
import functools
from typing import Annotated, Any, Union

import tyro

from lethax.cli import arguments, data_arguments
from lethax.cli.fields import COMPARE, DATA, SHOW_RECIPE, TRAIN
from lethax.cli.recipe_options import parsed_fields
from lethax.recipe import sections
from lethax.recipe.options import Option

DATA_COMMANDS: dict[str, Any] = {
    "list": data_arguments.DataList,
    "prepare": data_arguments.DataPrepare,
    "verify": data_arguments.DataVerify,
}


def _union(commands: dict[str, Any]) -> Any:
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in commands.items()]
    return Annotated[Union[tuple(kinds)], tyro.conf.OmitSubcommandPrefixes]  # noqa: UP007


MODELS_COMMANDS: dict[str, Any] = {"list": data_arguments.ModelsList, "get": data_arguments.ModelsGet}
DataCommand: Any = dataclasses.make_dataclass("DataCommand", [("action", _union(DATA_COMMANDS))])
DataCommand.__doc__ = "Prepare, list and verify data sets."
ModelsCommand: Any = dataclasses.make_dataclass("ModelsCommand", [("action", _union(MODELS_COMMANDS))])
ModelsCommand.__doc__ = "List and copy trained models that come with lethax."
NESTED: dict[str, dict[str, Any]] = {"data": DATA_COMMANDS, "models": MODELS_COMMANDS}  # commands of commands


def commands() -> dict[str, Any]:
    """The commands by name. This is a function because plugins add options before it is called."""
    return _commands(tuple(sections.by_key().values()))


@functools.cache
def _commands(known: tuple[Option, ...]) -> dict[str, Any]:
    """The commands whose recipes have the options `known`."""
    train: Any = dataclasses.make_dataclass("Train", [DATA, *TRAIN, *parsed_fields()])
    train.__doc__ = "Train a method on DATA or from a recipe, or go on with a run."
    recipe: Any = dataclasses.make_dataclass("ShowRecipe", [DATA, *SHOW_RECIPE, *parsed_fields()])
    recipe.__doc__ = "Print the recipe of an experiment with every value, as TOML that `lethax train --recipe` takes."
    compare: Any = dataclasses.make_dataclass("Compare", [DATA, *COMPARE, *parsed_fields({"method", "seed"})])
    compare.__doc__ = (
        "Train methods on DATA with equal options, budgets and seeds, and compare them on the same test episodes.\n\n"
        "An option holds for every method that reads it. A method that is not told otherwise has its own published inner loop. "
        "Runs that are finished already are compared by `lethax evaluate RUN RUN`."
    )
    return {
        "data": DataCommand,
        "models": ModelsCommand,
        "train": train,
        "recipe": recipe,
        "evaluate": arguments.Evaluate,
        "compare": compare,
        "predict": arguments.Predict,
        "export": arguments.Export,
        "analyse": arguments.Analyse,
        "embed": data_arguments.Embed,
        "report": arguments.Report,
        "reproduce": arguments.Reproduce,
        "demo": arguments.Demo,
        "doctor": arguments.Doctor,
        "bench": arguments.Bench,
    }


def command() -> Any:
    """The type that the parser reads: one of the commands."""
    return _union(commands())
