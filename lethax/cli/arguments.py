"""The arguments of commands: a dataclass for each command, a field for each option. Nothing here imports JAX."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lethax.cli.fields import Baseline, Count, File, Head, NormMode, Root, Switch, Text
from lethax.report.cells import table_names
from lethax.report.paper_figures import FIGURES


@dataclasses.dataclass
class Evaluate:
    """Evaluate runs on fixed test episodes. Several runs also give paired differences to the first one."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ]
    """One or more run folders, such as runs/sinusoid-l2f-5shot-seed0."""
    episodes: Count = None
    """The number of test episodes (default: 600), in control of test tasks (default: 40). For sinusoids 10000 are published."""
    ensemble: int = 1
    """The outputs of this many checkpoints are averaged, the best ones by validation. The paper's code averages 3."""
    steps: Count = None
    """Scores are given after 0 up to this many inner steps (default: 10, in control 4)."""
    data: Text = None
    """Evaluate on the test classes of another data set, in the size and normalisation of the training data. For navigation this is
    another setting: navigation_b, navigation_c or navigation_d."""
    seed: int = 0
    """The seed that the test episodes follow from. Runs can be compared where it is equal."""
    split: Literal["train", "val", "test"] = "test"
    """Episodes are drawn from the classes of this split."""
    way: Count = None
    """Episodes have this many classes (default: as in training). With another number, --head says where the last
    layer starts; without it, from its trained columns. In Meta-Dataset, 0 lets each episode draw a number, and so does --shot 0."""
    shot: Count = None
    """Each class has this many support examples (default: as in training)."""
    head: Head = None
    """The last layer starts from its trained columns, from zero, from the mean of these columns, or from the mean features of each
    class (default: as in training)."""
    norm: NormMode = None
    """Batch norm takes the moments of queries from the support set, from it and one query, or from the whole query batch (default:
    as in training)."""
    baselines: Annotated[
        tuple[Baseline, ...] | None,
        tyro.conf.arg(metavar="{prototype,probe,finetune,scratch} ...", help_behavior_hint=""),
    ] = None
    """Also judge these baselines on the same episodes, or all four if none is named: the nearest prototype, a linear probe,
    fine-tuning of the run's network, training from scratch. The last two take long."""
    features: Text = None
    """Prototype and probe read this data set of features of the same pictures, instead of what the run reads."""
    root: Root = None
    pictures: Switch = False
    """Also draw the scores against the inner steps, and for control the paths or films, into the run folders."""
    json: Switch = False
    """Print the results as JSON instead of a table."""


What = Literal["gates", "attenuation", "effects", "surface", "landscape", "conflict"]  # those of runs.analyses.MEASURES
_WHAT = (
    "What is measured. gates: L2F's gates of each layer over tasks. attenuation: the score where one layer is multiplied by 0.1 to "
    "1 before adaptation. effects: the score if gates before a batch norm change the size of weights or the inner rate alone. "
    "surface: the losses on the plane through w_0 and w_J. landscape: how smooth the loss is along inner steps. conflict: angles "
    "between gradients."
)
_TASKS = (
    "It is measured on this many tasks, the first episodes of `lethax evaluate` with the same seed and split (default: 1 for "
    "surface, 300 for gates and effects, else 100)."
)


@dataclasses.dataclass
class Analyse:
    """Look into trained runs: measure one thing of each, print a table, and write a figure with its numbers."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ]
    """One or more run folders. Several are compared in one figure."""
    what: Annotated[What, tyro.conf.arg(help=_WHAT)]
    tasks: Annotated[int | None, tyro.conf.arg(metavar="INT", help=_TASKS, help_behavior_hint="")] = None
    split: Literal["train", "val", "test"] = "test"
    """Tasks are drawn from the classes of this split."""
    seed: int = 0
    """The seed that the tasks follow from."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", aliases=["-o"], help_behavior_hint="")] = None
    """The folder that the files are written to (default: RUN/analyses of a single run, else analyses)."""
    root: Root = None


@dataclasses.dataclass
class Predict:
    """Adapt a run or a pretrained network to a few pictures of each of your classes, and predict the classes of other pictures."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """The run folder of a method that was trained on pictures, or none if --model or --backbone is given."""
    support: File = None
    """The labelled pictures: a folder or an archive with a folder for each class, of any number of pictures."""
    query: File = None
    """The pictures to predict: a folder or an archive."""
    out: Annotated[
        Path, tyro.conf.arg(aliases=["-o"], metavar="PATH", help_behavior_hint="(default: predictions.csv)")
    ] = Path("predictions.csv")
    """The table of predictions is written to this file, whose name ends in .csv."""
    head: Head = None
    """The last layer starts from its trained columns, from zero, from the mean of these columns, or from the mean features of each
    class (default: as in training)."""
    norm: NormMode = None
    """Batch norm takes its moments from the support pictures (default), from them and the predicted one, or from all predicted
    ones."""
    unsure: float = 0.1
    """A prediction is marked unsure if its probability is less than this above that of the second class."""
    all: Switch = False
    """Also write the probability of every class."""
    ensemble: Count = None
    """The outputs of this many checkpoints are averaged, the best ones by validation (default: 1)."""
    save: File = None
    """Also write the adapted model to this file, whose name ends in .safetensors. --model takes it."""
    model: File = None
    """Predict with a model that --save wrote, instead of a run and support pictures."""
    backbone: Annotated[
        Literal["efficientnet-lite0"] | None, tyro.conf.arg(metavar="{efficientnet-lite0}", help_behavior_hint="")
    ] = None
    """Predict without a run: classify the features of this network, which was trained on ImageNet, by the support pictures."""
    size: Count = None
    """Beside --backbone, pictures are scaled to this many pixels a side, a multiple of 32 (default: 96)."""
    classifier: Annotated[
        Literal["prototype", "probe"] | None, tyro.conf.arg(metavar="{prototype,probe}", help_behavior_hint="")
    ] = None
    """Beside --backbone, a picture gets the class with the nearest mean (default), or that of logistic regression."""


@dataclasses.dataclass
class Export:
    """Write a program that predicts without Lethax: StableHLO, which any process that has JAX can call, or ONNX."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """The run folder of a method that was trained on pictures. Its program adapts to labelled pictures, and predicts."""
    model: File = None
    """Instead of a run, a model that `lethax predict` saved. Its program predicts the classes of that model."""
    out: Annotated[
        Path, tyro.conf.arg(aliases=["-o"], metavar="PATH", help_behavior_hint="(default: model.stablehlo)")
    ] = Path("model.stablehlo")
    """The program is written to this file, whose name ends in .stablehlo or .onnx. What it takes and gives stands beside it in a
    JSON file."""
    way: Count = None
    """The number of classes of a support set (default: that of the run)."""
    head: Head = None
    """The last layer starts from its trained columns, from zero, from the mean of these columns, or from the mean features of each
    class (default: as in training)."""
    norm: NormMode = None
    """Batch norm takes its moments from the support pictures (default), from them and the predicted one, or from all predicted
    ones."""
    ensemble: Count = None
    """The outputs of this many checkpoints are averaged, the best ones by validation (default: 1)."""


@dataclasses.dataclass
class Demo:
    """Train MAML and MAML+L2F on two small task families that need no download, print a table and write pictures."""

    out: Path = Path("demo")
    """Runs and pictures are written to this folder."""


@dataclasses.dataclass
class Report:
    """Write a page about runs that opens in any browser without a network: curves, scores, gates, probes, sample episodes."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ]
    """One or more run folders, such as runs/*."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """The page is written to this file."""
    samples: int = 4
    """Sample episodes of images show what this many runs say. Each run costs the compilation of its network; 0 shows none."""
    watch: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Write the page again every SECONDS while runs go on. An open page then reloads itself. Ctrl-C ends this."""
    root: Root = None


_TARGETS = (
    f"A table ({', '.join(table_names())}), or cells of one table, or figures ({', '.join(FIGURES)}); figure-f is the table "
    "navigation. A cell has the name of its recipe, such as table_b/NAME."
)


@dataclasses.dataclass
class Reproduce:
    """Fill a table of the paper, or draw its figures.

    This trains what is missing, goes on with what is unfinished, and leaves alone what is done."""

    targets: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TARGET [TARGET ...]", help=_TARGETS, help_behavior_hint=""),
    ]
    budget: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """The share of the published outer steps to train for (default: 1). Schedules shrink in proportion, and the table shows the
    share."""
    steps: Count = None
    """The number of outer steps to train for, instead of a share."""
    seeds: int = 1
    """Each cell is trained this many times, each time with the next seed."""
    first_seed: int = 0
    """The seed of the first of them."""
    val_episodes: Count = None
    """A validation has this many episodes (default: what the recipe says)."""
    episodes: Count = None
    """Each trained run is evaluated on this many test episodes (default: as many as published)."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD ...", help_behavior_hint="")] = ()
    """Train these methods or cells only (default: all of the table or figure)."""
    data: Text = None
    """Draw a figure of images for these data: miniimagenet, as in the paper, or cifar_fs."""
    probe_every: Count = None
    """The outer steps between two measurements for a figure (default: a fiftieth of those of a run)."""
    dry_run: Switch = False
    """Show what would run and for how many hours. This itself times programs: 2 minutes for table_b, about 10 for table_d."""
    jobs: Annotated[Literal["local", "slurm"] | None, tyro.conf.arg(metavar="{local,slurm}", help_behavior_hint="")] = (
        None
    )
    """Each group of runs that train together is a job of its own, on this machine or under SLURM. The command waits for them."""
    jobs_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = ()
    """Options of sbatch for each job of SLURM, such as partition=gpu time=8:00:00 cpus-per-task=8 mem=16G."""
    jobs_at_once: Count = None
    """At most this many jobs run or wait at a time (default: one on this machine, under SLURM all)."""
    runs_only: Switch = False
    """Train and judge the runs, and write no table and no figure, as each job does."""
    out: Path = Path("runs/reproduce")
    """The runs are in this folder."""
    tables: Path = Path("results")
    """The table is written to this folder, as JSON, Markdown and CSV, and a figure as PNG, SVG, CSV and JSON."""
    root: Root = None


@dataclasses.dataclass
class Bench:
    """Time outer steps on this machine, on random data, each case in a process of its own. Nothing else should run meanwhile."""

    all: Switch = False
    """Also time evaluation, images of 84 px and ResNet12. On two cores this takes about ten minutes."""
    calls: int = 5
    """Each case is timed this many times after its first step, and the median is given."""
    json: Switch = False
    """Print what was measured as JSON instead of a table."""


@dataclasses.dataclass
class Doctor:
    """Say what this machine has, what is wrong, and what to do. The exit code is 0 if nothing is wrong, else 1."""

    quick: Switch = False
    """Do not read the prepared data sets, whose checksums are compared otherwise."""
    json: Switch = False
    """Print the findings as JSON instead of a table."""
    root: Root = None
