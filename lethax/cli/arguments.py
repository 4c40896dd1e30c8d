"""What the command line takes: a dataclass for every command, a field for every option. No JAX here: `--help` is quick."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from lethax.cli.recipe_options import parsed_fields
from lethax.report.cells import table_names

# An option that may be left out. The word in capitals stands in the help; what is meant where it is not given, the text says.
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Switch = tyro.conf.FlagCreatePairsOff[bool]


def _switch(name: str, text: str) -> tuple[str, Any, Any]:
    about = tyro.conf.arg(help=text, help_behavior_hint="")
    return name, Annotated[bool, tyro.conf.FlagCreatePairsOff, about], dataclasses.field(default=False)


def _file(help_: str) -> Any:
    return Annotated[Path | None, tyro.conf.arg(metavar="PATH", help=help_, help_behavior_hint="")]


_RESUME = (
    "A run to go on with. Beside it, --steps N gives it more outer steps: its phases of first order and of the multi-step loss "
    "stay where they are, and a cosine of the outer rate is from there on that of N steps."
)
_OUT = "The run's folder; runs/DATA-METHOD-SHOT-SEED unless given. The same command again goes on with the run that it holds."

DATA = (
    "data",
    Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help_behavior_hint="")],
    dataclasses.field(default=None),
)
_ROOT = ("root", _file("Prepared data sets are in this folder."), dataclasses.field(default=None))
_FROM = ("recipe", _file("A recipe in TOML; the other options change its values."), dataclasses.field(default=None))
# What `train` and `recipe` take beside the values of a recipe.
TRAIN = [
    _FROM,
    ("resume", _file(_RESUME), dataclasses.field(default=None)),
    ("out", _file(_OUT), dataclasses.field(default=None)),
    _switch("overwrite", "Replace the run that the folder holds."),
    _ROOT,
]
SHOW_RECIPE = [_FROM, _ROOT]


@dataclasses.dataclass
class Evaluate:
    """Judge runs on fixed, seeded episodes; several runs also give paired differences to the first."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ]
    """Run folders, one at least, such as runs/sinusoid-l2f-5shot-seed0."""
    episodes: Count = None
    """Test episodes, 600 unless given (a sinusoid's protocol has 10000); in control tasks, 40 unless given."""
    ensemble: int = 1
    """Best checkpoints whose outputs are averaged; the paper's code takes 3."""
    steps: Count = None
    """Inner steps of the adaptation curve: 10 unless given, 4 in control."""
    data: Text = None
    """Another data set to judge on; of control another setting: navigation_b, navigation_c, navigation_d."""
    seed: int = 0
    """Of the episodes."""
    split: Literal["train", "val", "test"] = "test"
    """Classes to draw from."""
    root: File = None
    """Where prepared data is."""
    pictures: Switch = False
    """Also draw: scores against inner steps; paths of navigation; films of locomotion, before and after adaptation."""
    json: Switch = False
    """Print the records as JSON."""


@dataclasses.dataclass
class DataList:
    """List the prepared data sets."""

    root: File = None


@dataclasses.dataclass
class DataPrepare:
    """Turn a published layout, or a folder of class folders, into a store."""

    name: tyro.conf.Positional[
        Literal["cifar100", "omniglot", "miniimagenet", "tieredimagenet", "folder", "features", "glyphs"]
    ]
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="PATH", help_behavior_hint="")] = None
    """Folder or archive; glyphs need none."""
    root: File = None
    """Where stores go; $LETHAX_DATA, or ~/.local/share/lethax."""
    split: Text = None
    """omniglot: vinyals, lake or mamlpp; folder: a JSON or CSV file."""
    store: Text = None
    """folder, features: the name of the data set, by default the folder's or file's."""
    image: Count = None
    """folder, miniimagenet, tieredimagenet: pixels of a side, 84 unless given."""
    seed: Count = None
    """folder: of the split by class, 0 unless given."""


@dataclasses.dataclass
class DataVerify:
    """Check every part of a store against its SHA-256."""

    name: tyro.conf.Positional[str]
    root: File = None


@dataclasses.dataclass
class Demo:
    """Train MAML and MAML+L2F on two embedded task families, print a table, write pictures."""

    out: Path = Path("demo")
    """Where runs and pictures go."""


@dataclasses.dataclass
class Embed:
    """Train a backbone by plain classification of the training classes (or take a run's) and write its features."""

    data: tyro.conf.Positional[str]
    """A prepared data set of images."""
    backbone: File = None
    """A run whose network to take, instead of training one."""
    net: Literal["conv4", "resnet12"] = "conv4"
    """The backbone to train."""
    filters: int = 64
    """Width of conv4."""
    steps: int = 10_000
    """Updates."""
    batch: int = 64
    """Images of one."""
    rate: float = 0.1
    """Of SGD with momentum, annealed by a cosine."""
    seed: int = 0
    """Of weights and batches."""
    out: File = None
    """The features as .safetensors; DATA-NET.safetensors unless given."""
    store: Text = None
    """The data set of features that `train` takes; DATA-NET unless given."""
    root: File = None
    """Where prepared data is."""


_TARGETS = f"One table ({', '.join(table_names())}), or cells of one, which have the names of its recipes."


@dataclasses.dataclass
class Reproduce:
    """Fill a table of the paper: run what is missing, go on with what is unfinished, skip what is done, write the table."""

    targets: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TARGET [TARGET ...]", help=_TARGETS, help_behavior_hint=""),
    ]
    budget: float = 1.0
    """Share of the published outer steps; schedules scale with it, and the table says so."""
    steps: Count = None
    """Outer steps, instead of a share."""
    seeds: int = 1
    """Runs of every cell, of seeds 0, 1, …"""
    val_episodes: Count = None
    """Episodes a validation; the recipes' own unless given."""
    only: tuple[str, ...] = ()
    """Methods to run; all unless given."""
    dry_run: Switch = False
    """Only say what would run, in how many hours. This compiles and times programs: 2 minutes for table_b, about 10 for table_d."""
    out: Path = Path("runs/reproduce")
    """Where the runs are."""
    tables: Path = Path("results")
    """Where the table goes, as JSON, Markdown and CSV."""
    root: File = None
    """Where prepared data is."""


DATA_COMMANDS: dict[str, Any] = {"list": DataList, "prepare": DataPrepare, "verify": DataVerify}


def _union(commands: dict[str, Any]) -> Any:
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in commands.items()]
    return Annotated[Union[tuple(kinds)], tyro.conf.OmitSubcommandPrefixes]  # noqa: UP007


DataCommand: Any = dataclasses.make_dataclass("DataCommand", [("action", _union(DATA_COMMANDS))])
DataCommand.__doc__ = "Prepare, list and verify data sets."


@functools.cache
def commands() -> dict[str, Any]:
    """The commands by name. Not a constant: the options of plugins are there once these are loaded."""
    train: Any = dataclasses.make_dataclass("Train", [DATA, *TRAIN, *parsed_fields()])
    train.__doc__ = "Train a method on DATA, or from a recipe; or go on with a run."
    recipe: Any = dataclasses.make_dataclass("ShowRecipe", [DATA, *SHOW_RECIPE, *parsed_fields()])
    recipe.__doc__ = "Print an experiment's recipe with every value, as TOML that `train --recipe` takes."
    return {
        "data": DataCommand,
        "train": train,
        "recipe": recipe,
        "evaluate": Evaluate,
        "embed": Embed,
        "reproduce": Reproduce,
        "demo": Demo,
    }


def command() -> Any:
    """Any of the commands, for the parser."""
    return _union(commands())
