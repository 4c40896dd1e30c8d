"""The data sets that `lethax data prepare` knows by name: the command that makes each, and where its source comes from."""

from typing import NamedTuple

from lethax.errors import OF_A_PLUGIN
from lethax.names import PRETRAINED
from lethax.text import command_line


class Known(NamedTuple):
    """A data set that is known: the `words` of a command behind `lethax` make it, and `source` says what to give to the command."""

    words: str
    source: str


_CIFAR = Known(
    "data prepare cifar100 --from cifar-100-python.tar.gz",
    "the python version of CIFAR-100, from https://www.cs.toronto.edu/~kriz/cifar.html",
)
_OMNIGLOT = (
    "images_background.zip and images_evaluation.zip in one folder, from https://github.com/brendenlake/omniglot"
)
_LEO = "{train,val,test}_embeddings.pkl in one folder, from https://github.com/google-deepmind/leo"
_IMAGENET = "folders of its classes with pictures of https://image-net.org"


# The sources of Meta-Dataset, in the order of its tables, and where the files of each come from.
METADATASET = {
    "ilsvrc_2012": f"the training pictures of ILSVRC 2012, {_IMAGENET}",
    "omniglot": _OMNIGLOT,
    "aircraft": "fgvc-aircraft-2013b.tar.gz, from https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
    "cu_birds": "CUB_200_2011.tgz, from https://www.vision.caltech.edu/datasets/cub_200_2011",
    "dtd": "dtd-r1.0.1.tar.gz, from https://www.robots.ox.ac.uk/~vgg/data/dtd",
    "quickdraw": "its 345 files CLASS.npy, from https://console.cloud.google.com/storage/quickdraw_dataset/full/numpy_bitmap",
    "fungi": "images/, train.json and val.json of the 2018 challenge, from https://github.com/visipedia/fgvcx_fungi_comp",
    "vgg_flower": "jpg/ and imagelabels.mat, from https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    "traffic_sign": "GTSRB_Final_Training_Images.zip, from https://benchmark.ini.rub.de",
    "mscoco": "train2017/ and instances_train2017.json, from https://cocodataset.org",
}
# Test data beside them, in the same form.
FURTHER = {"cifar100": _CIFAR.source}
KNOWN = {
    "cifar_fs": _CIFAR,
    "fc100": _CIFAR,
    "omniglot": Known("data prepare omniglot --from FOLDER", _OMNIGLOT),
    "omniglot_lake": Known("data prepare omniglot --split lake --from FOLDER", _OMNIGLOT),
    "omniglot_mamlpp": Known("data prepare omniglot --split mamlpp --from FOLDER", _OMNIGLOT),
    "miniimagenet": Known(
        "data prepare miniimagenet --from FOLDER",
        f"mini-imagenet-cache-{{train,val,test}}.pkl, pictures with train.csv, val.csv and test.csv, or {_IMAGENET}",
    ),
    "tieredimagenet": Known(
        "data prepare tieredimagenet --from FOLDER",
        f"its six pickles, from https://github.com/renmengye/few-shot-ssl-public, or {_IMAGENET}",
    ),
    "mini_leo": Known("data prepare features --store mini_leo --from FOLDER", _LEO),
    "tiered_leo": Known("data prepare features --store tiered_leo --from FOLDER", _LEO),
    "glyphs": Known("data prepare glyphs", "no source: it is drawn"),
    **{
        f"metadataset-{name}": Known(
            f"data prepare metadataset-{name} --from FOLDER", f"the records of the benchmark, or {home}"
        )
        for name, home in (METADATASET | FURTHER).items()
    },
}


def remedy(name: str) -> str:
    """Say in a sentence or two how a data set is made."""
    for net in PRETRAINED:
        if name.endswith(f"-{net}"):
            command = command_line("embed", name.removesuffix(f"-{net}"), "--backbone", net)
            return f"Features of a backbone are made with: {command}."
    image_set, _, net = name.rpartition("-")
    if net in ("conv4", "resnet12"):
        return f"Features of a backbone are made with: {command_line('embed', image_set, '--net', net)}."
    if name in KNOWN:
        return f"Make it with: {command_line(*KNOWN[name].words.split())} (needs {KNOWN[name].source})."
    folder = command_line(*"data prepare folder --from FOLDER --store NAME".split())
    return f"Your own pictures become one with: {folder}.{OF_A_PLUGIN}"
