"""The command `lethax embed`. JAX is imported by what needs it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lethax.cli import data_arguments
from lethax.cli.data_sets import describe
from lethax.cli.usage import check_output
from lethax.errors import RecipeError
from lethax.names import PRETRAINED, PRETRAINED_SIZE
from lethax.progress import bar, say
from lethax.recipe.record import check_seed
from lethax.text import command_line, shown

if TYPE_CHECKING:
    from lethax import embed
    from lethax.data.origin import Origin
    from lethax.data.store import Store

_TRAINED = ("net", "filters", "steps", "batch", "rate", "seed")  # options of a network that is trained here


def embed_images(args: data_arguments.Embed) -> None:
    from lethax import embed
    from lethax.data import embeddings
    from lethax.devices import use_all_cores

    path = args.out or Path(f"{_name(args)}.safetensors")
    _check(args)
    use_all_cores()
    store = embed.images_of(args.data, trains=args.backbone not in PRETRAINED)
    _check_targets(args, path)
    read, origin = _pretrained(args, store) if args.backbone in PRETRAINED else (_own(args, store), None)
    total = sum(len(split.images) for split in store.splits.values())
    with bar("features", total, "images") as show:
        splits = embed.features_of(store, read, lambda done, _, note: show(done, note))
    embed.write(path, splits, origin)
    source = {"kind": "features", "of": args.data, "command": shlex.join(["lethax", *sys.argv[1:]])}
    embeddings.write_features(_name(args), splits, args.root, source | ({"origin": origin.record()} if origin else {}))
    describe(_name(args), args.root)
    method = "anil" if origin else "leo+l2f"
    say(f"written: {shown(path)}. Next: {command_line('train', _name(args), '--method', method)}")


def _check(args: data_arguments.Embed) -> None:
    given = {name: value for name in _TRAINED if (value := getattr(args, name)) is not None}
    if args.backbone is not None and given:
        both = " and ".join(f"--{name}" for name in given)
        raise RecipeError(f"--backbone takes a network that is trained already: leave {both} out.")
    if args.net == "resnet12" and args.filters is not None:
        raise RecipeError("--filters is of conv4, and --net is resnet12: leave --filters out.")
    for name in ("filters", "steps", "batch"):
        if given.get(name, 1) < 1:
            raise RecipeError(f"--{name} is {given[name]}; it has to be at least 1.")
    if not 0 < given.get("rate", 1) < float("inf"):
        raise RecipeError(f"--rate is {args.rate}; it has to be a finite number above 0.")
    if args.size is not None and args.backbone not in PRETRAINED:
        raise RecipeError(
            f"--size is of a pretrained network: name it with --backbone {PRETRAINED[0]}, or leave it out."
        )
    check_seed(given.get("seed", 0))


def _check_targets(args: data_arguments.Embed, path: Path) -> None:
    """Raise an error, before anything is computed, if the features cannot be written or would replace pictures."""
    from lethax.data.naming import own_name
    from lethax.data.store import check_kind

    check_kind(own_name(_name(args)), args.root, features=True)
    check_output("out", path, ".safetensors")


def _name(args: data_arguments.Embed) -> str:
    """The name of the data set of features."""
    made_by = Path(args.backbone).name.lower() if args.backbone else args.net or "conv4"
    return f"{args.data}-{made_by}" if args.store is None else args.store


def _pretrained(args: data_arguments.Embed, store: Store) -> tuple[embed.Reading, Origin]:
    from lethax import embed, pretrained

    embedder = pretrained.load(str(args.backbone), PRETRAINED_SIZE if args.size is None else args.size)
    origin = embed.origin_of(store, embedder)
    judged = store.splits.get("test") or next(iter(store.splits.values()))
    say(pretrained.caution(embedder.name, judged.classes))
    return embedder.parts, origin


def _own(args: data_arguments.Embed, store: Store) -> embed.Reading:
    """The network of a run, or one that is trained now."""
    from lethax import embed

    if args.backbone and not Path(args.backbone).exists():
        raise RecipeError(
            f"--backbone is '{shown(args.backbone, 80)}', which is neither a run nor a pretrained network: expected the folder of "
            f"a run, or {' or '.join(PRETRAINED)}."
        )
    if args.backbone:
        return embed.from_run(Path(args.backbone)).reading(store)
    net = embed.net_for(args.net or "conv4", store, 64 if args.filters is None else args.filters)
    padding = max(store.splits["train"].images.shape[1] // 10, 1)
    given = {name: value for name in ("steps", "batch", "rate") if (value := getattr(args, name)) is not None}
    how = embed.Schooling(**given, padding=padding)
    with bar("backbone", how.steps) as show:
        backbone = embed.school(store, net, how, args.seed or 0, lambda done, _, note: show(done, note))
    say(f"The network classifies {backbone.accuracy:.1%} of the held-out images of the training classes correctly.")
    return backbone.reading(store)
