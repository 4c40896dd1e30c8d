"""What the command line takes: a dataclass for every command, a field for every option. No JAX here: `--help` is quick."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lethax.recipe import Recipe


def recipe_options() -> list[tuple[str, Any, Any]]:
    """Every field of the recipe as an option that is None unless given."""
    found = []
    for f in dataclasses.fields(Recipe):
        if f.name != "data":
            kind = f.type if "None" in str(f.type) else f.type | None  # type: ignore[operator]
            found.append(
                (f.name, Annotated[kind, tyro.conf.arg(help=f.metadata["help"])], dataclasses.field(default=None))
            )
    return found


Train: Any = dataclasses.make_dataclass(
    "Train",
    [
        ("data", Annotated[str | None, tyro.conf.Positional], dataclasses.field(default=None)),
        ("recipe", Path | None, dataclasses.field(default=None)),
        ("resume", Path | None, dataclasses.field(default=None)),
        ("out", Path | None, dataclasses.field(default=None)),
        ("root", Path | None, dataclasses.field(default=None)),
        *recipe_options(),
    ],
)
Train.__doc__ = "Train a method on DATA, or from a recipe; or go on with a run. Options are the fields of a recipe."


@dataclasses.dataclass
class Evaluate:
    """Judge runs on fixed, seeded episodes; several runs also give paired differences to the first."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    episodes: int | None = None
    """Test episodes, 600 unless given (a sinusoid's protocol has 10000); in control tasks, 40 unless given."""
    ensemble: int = 1
    """Best checkpoints whose outputs are averaged; the paper's code takes 3."""
    steps: int | None = None
    """Inner steps of the adaptation curve: 10 unless given, 4 in control."""
    data: str | None = None
    """Another data set to judge on; of control another setting: navigation_b, navigation_c, navigation_d."""
    seed: int = 0
    """Of the episodes."""
    split: Literal["train", "val", "test"] = "test"
    """Classes to draw from."""
    root: Path | None = None
    """Where prepared data is."""
    pictures: bool = False
    """Also draw: scores against inner steps; paths of navigation; films of locomotion, before and after adaptation."""
    json: bool = False
    """Print the records as JSON."""


@dataclasses.dataclass
class DataList:
    """List the prepared data sets."""

    root: Path | None = None


@dataclasses.dataclass
class DataPrepare:
    """Turn a published layout, or a folder of class folders, into a store."""

    name: tyro.conf.Positional[
        Literal["cifar100", "omniglot", "miniimagenet", "tieredimagenet", "folder", "features", "glyphs"]
    ]
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder or archive; glyphs need none."""
    root: Path | None = None
    """Where stores go; $LETHAX_DATA, or ~/.local/share/lethax."""
    split: str | None = None
    """omniglot: vinyals, lake or mamlpp; folder: a JSON or CSV file."""
    store: str | None = None
    """folder, features: the name of the data set, by default the folder's or file's."""
    image: int | None = None
    """folder, miniimagenet, tieredimagenet: pixels of a side, 84 unless given."""
    seed: int | None = None
    """folder: of the split by class, 0 unless given."""


@dataclasses.dataclass
class DataVerify:
    """Check every part of a store against its SHA-256."""

    name: tyro.conf.Positional[str]
    root: Path | None = None


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
    backbone: Path | None = None
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
    out: Path | None = None
    """The features as .safetensors; DATA-NET.safetensors unless given."""
    store: str | None = None
    """The data set of features that `train` takes; DATA-NET unless given."""
    root: Path | None = None
    """Where prepared data is."""


@dataclasses.dataclass
class Reproduce:
    """Fill a table of the paper: run what is missing, go on with what is unfinished, skip what is done, write the table."""

    targets: tyro.conf.Positional[tuple[str, ...]]
    """A table (table_a, table_b, table_d, miniimagenet, tieredimagenet), or cells of one, the names of recipes."""
    budget: float = 1.0
    """Share of the published outer steps; schedules scale with it, and the table says so."""
    steps: int | None = None
    """Outer steps, instead of a share."""
    seeds: int = 1
    """Runs of every cell, of seeds 0, 1, …"""
    val_episodes: int | None = None
    """Episodes a validation; the recipes' own unless given."""
    only: tuple[str, ...] = ()
    """Methods to run; all unless given."""
    dry_run: bool = False
    """Show what would run, with hours estimated from a short timing."""
    out: Path = Path("runs/reproduce")
    """Where the runs are."""
    tables: Path = Path("results")
    """Where the table goes, as JSON, Markdown and CSV."""
    root: Path | None = None
    """Where prepared data is."""


@dataclasses.dataclass
class DataCommand:
    """Prepare, list and verify data sets."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[DataList, tyro.conf.subcommand("list")]
        | Annotated[DataPrepare, tyro.conf.subcommand("prepare")]
        | Annotated[DataVerify, tyro.conf.subcommand("verify")]
    ]


Command = (
    Annotated[DataCommand, tyro.conf.subcommand("data")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Embed, tyro.conf.subcommand("embed")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)
