"""The arguments of the commands on data sets, features and trained models. Nothing here imports JAX."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lethax.cli.fields import Count, File, Root, Text


@dataclasses.dataclass
class DataList:
    """List the prepared data sets."""

    root: Root = None


@dataclasses.dataclass
class DataPrepare:
    """Prepare a data set for training, from files as they are published or from a folder of your own pictures."""

    name: tyro.conf.Positional[
        Literal[
            "cifar100",
            "omniglot",
            "miniimagenet",
            "tieredimagenet",
            "folder",
            "features",
            "glyphs",
            "metadataset-ilsvrc_2012",
            "metadataset-omniglot",
            "metadataset-aircraft",
            "metadataset-cu_birds",
            "metadataset-dtd",
            "metadataset-quickdraw",
            "metadataset-fungi",
            "metadataset-vgg_flower",
            "metadataset-traffic_sign",
            "metadataset-mscoco",
            "metadataset-cifar100",
        ]  # fmt: skip
    ]
    """What is prepared: a published data set, a folder of your own pictures, features, glyphs, or a source of Meta-Dataset."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="PATH", help_behavior_hint="")] = None
    """The folder or archive that holds the files. Glyphs need none, because lethax draws them."""
    root: Root = None
    split: Text = None
    """How classes are split. For omniglot: vinyals, lake or mamlpp. For folder: a JSON or CSV file that lists the classes,
    or a folder with train.csv, val.csv and test.csv."""
    store: Text = None
    """For folder and features: the name of the data set (default: the name of the folder or file)."""
    image: Count = None
    """For folder, miniimagenet, tieredimagenet and Meta-Dataset: pictures are scaled to this many pixels a side (default: 84)."""
    seed: Count = None
    """For folder: the seed of the random split into training, validation and test classes (default: 0), where nothing else splits
    them."""
    per_class: Count = None
    """For Meta-Dataset: of larger classes only so many pictures are kept, 510 or more (default: all; of quickdraw 1000)."""
    least: Count = None
    """For folder: classes of fewer pictures are left out, and named. An episode of K shots and Q queries takes K + Q of a class."""
    duplicates: Annotated[
        Literal["report", "drop", "error"] | None, tyro.conf.arg(metavar="{report,drop,error}", help_behavior_hint="")
    ] = None
    """For folder: pictures that are there twice, or nearly so, are listed, left out, or an error (default: report)."""
    near: Count = None
    """For folder: two pictures are nearly the same if their hashes differ in at most this many of 64 bits (default: 6)."""


@dataclasses.dataclass
class DataVerify:
    """Check that the files of a prepared data set are as they were written, by their SHA-256."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
    """The name of the data set, as `lethax data list` prints it."""
    root: Root = None


@dataclasses.dataclass
class Embed:
    """Make features of images by a pretrained network, or by one that is trained here to classify the training classes."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
    """The name of a prepared data set of images."""
    backbone: Annotated[str | None, tyro.conf.arg(metavar="NAME|RUN", help_behavior_hint="")] = None
    """Take a network that is trained already: efficientnet-lite0, trained on ImageNet, or that of the run in this folder."""
    size: Count = None
    """For efficientnet-lite0: pictures are enlarged to this many pixels a side, a multiple of 32 (default: 96)."""
    net: Annotated[
        Literal["conv4", "resnet12"] | None, tyro.conf.arg(metavar="{conv4,resnet12}", help_behavior_hint="")
    ] = None
    """Without --backbone, this network is trained (default: conv4)."""
    filters: Count = None
    """Each layer of conv4 has this many channels (default: 64)."""
    steps: Count = None
    """Training takes this many updates (default: 10000)."""
    batch: Count = None
    """An update reads this many images (default: 64)."""
    rate: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """The learning rate of SGD with momentum at the start (default: 0.1). It falls to 0 along a cosine."""
    seed: Count = None
    """The seed of the first weights and of the order of the images (default: 0)."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH", help_behavior_hint="")] = None
    """The features are also written to this file, whose name ends in .safetensors (default: DATA-NET.safetensors)."""
    store: Text = None
    """The name of the data set of features, which `lethax train` takes (default: DATA-NET)."""
    root: Root = None


@dataclasses.dataclass
class ModelsList:
    """List the trained models that come with lethax, with what they were measured at."""


@dataclasses.dataclass
class ModelsGet:
    """Copy a trained model to a run folder, which every command takes."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
    """The name of the model, as `lethax models list` prints it."""
    out: File = None
    """The folder of the run (default: runs/NAME)."""
