"""The kinds of arguments, and the fields of commands that take values of a recipe beside their own. Nothing here imports JAX."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

# An option that may be left out. The word in capitals stands in the help; what is meant where it is not given, the text says.
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Baseline = Literal["prototype", "probe", "finetune", "scratch"]
_ROOT_HELP = "The folder of the prepared data sets (default: $LETHAX_DATA, or ~/.local/share/lethax)."
Root = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help=_ROOT_HELP, help_behavior_hint="")]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]

Head = Annotated[
    Literal["trained", "zero", "vector", "prototypes"] | None,
    tyro.conf.arg(metavar="{trained,zero,vector,prototypes}", help_behavior_hint=""),
]
NormMode = Annotated[
    Literal["support", "support+1", "batch"] | None,
    tyro.conf.arg(metavar="{support,support+1,batch}", help_behavior_hint=""),
]


def _switch(name: str, text: str) -> tuple[str, Any, Any]:
    about = tyro.conf.arg(help=text, help_behavior_hint="")
    return name, Annotated[bool, tyro.conf.FlagCreatePairsOff, about], dataclasses.field(default=False)


def _file(help_: str) -> Any:
    return Annotated[Path | None, tyro.conf.arg(metavar="PATH", help=help_, help_behavior_hint="")]


_RESUME = (
    "The run to go on with. With --steps N it gets more outer steps. Its first-order phase and its phase of the multi-step loss "
    "then stay where they are, and if the outer rate follows a cosine, it is from there on the cosine of N steps."
)
_OUT = (
    "The folder of the run (default: one such as runs/cifar_fs-l2f-5shot-seed0). If it holds the same run already, training "
    "goes on with it."
)

DATA = (
    "data",
    Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help_behavior_hint="")],
    dataclasses.field(default=None),
)
_ROOT = ("root", _file(_ROOT_HELP), dataclasses.field(default=None))
_FROM = (
    "recipe",
    _file("The recipe to start from, as TOML. The other options change its values."),
    dataclasses.field(default=None),
)
_PROBE_HELP = (
    "Measure this while training: the landscape of the loss, the conflict of gradients, or both. Training keeps the bits that it "
    "has without. The results are lines of probes.jsonl in the run folder."
)
_NAMES = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help=_PROBE_HELP, help_behavior_hint="")]
_EVERY_HELP = "The outer steps between two measurements (default: those between two validations)."
_EVERY = Annotated[int | None, tyro.conf.arg(metavar="INT", help=_EVERY_HELP, help_behavior_hint="")]
# What `train` and `recipe` take beside the values of a recipe.
TRAIN = [
    _FROM,
    ("resume", _file(_RESUME), dataclasses.field(default=None)),
    ("out", _file(_OUT), dataclasses.field(default=None)),
    _switch("overwrite", "Delete the run that the folder holds, and start anew."),
    _switch(
        "dry_run", "Only say what the run would cost: parameters, operations, memory and hours. Nothing is written."
    ),
    ("probe", _NAMES, dataclasses.field(default=())),
    ("probe_every", _EVERY, dataclasses.field(default=None)),
    _switch(
        "distributed",
        "This process is one of several that train the run, as the launcher says. Under SLURM it is not needed.",
    ),
    _switch(
        "tensorboard", "Also write the metrics as event files for TensorBoard, to the folder tensorboard of the run."
    ),
    _ROOT,
]
SHOW_RECIPE = [_FROM, _ROOT]


def _option(name: str, kind: Any, metavar: str, text: str, default: Any, *aliases: str) -> tuple[str, Any, Any]:
    about = tyro.conf.arg(metavar=metavar, aliases=aliases or None, help=text, help_behavior_hint="")
    return name, Annotated[kind, about], dataclasses.field(default=default)


_COMPARED = "The methods, such as maml,l2f,anil. They have the same task, network, budget and seeds."
_REFERENCE = "Paired differences are taken to this method (default: the first one)."
_SEEDS = "Each method is trained this many times, each time with the next seed (default: 3)."
_EPISODES = "The number of test episodes (default: 600), in control of test tasks (default: 40)."
_COMPARE_OUT = (
    "The folder of the runs and of the table (default: runs/compare/DATA/SHOTshot). The same command goes on with it."
)
_BASELINES = (
    "Also judge these baselines on the same episodes, or all four if none is named: prototype, probe, finetune, scratch. "
    "Fine-tuning starts from the runs of the reference. See lethax evaluate."
)
_FEATURES = "Prototype and probe read this data set of features of the same pictures, instead of what the methods read."
# What `compare` takes beside the values of a recipe.
COMPARE = [
    _option("methods", tuple[str, ...], "NAME ...", _COMPARED, ()),
    _option("reference", str | None, "NAME", _REFERENCE, None),
    _option("seeds", int, "INT", _SEEDS, 3),
    _option("first_seed", int, "INT", "The seed of the first of them (default: 0).", 0),
    _option("episodes", int | None, "INT", _EPISODES, None),
    _option("baselines", tuple[Baseline, ...] | None, "NAME ...", _BASELINES, None),
    _option("features", str | None, "NAME", _FEATURES, None),
    _option("out", Path | None, "PATH", _COMPARE_OUT, None, "-o"),
    _switch("json", "Print the comparison as JSON instead of a table, and no progress."),
    _ROOT,
]
WITH_RECIPE = {"train": TRAIN, "recipe": SHOW_RECIPE, "compare": COMPARE}  # commands that take values of a recipe
