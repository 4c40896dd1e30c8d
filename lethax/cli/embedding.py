"""The command `lethax embed`. JAX is imported by what needs it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lethax.cli import data_arguments
from lethax.cli.data_sets import describe
from lethax.errors import RecipeError
from lethax.names import PRETRAINED, PRETRAINED_SIZE
from lethax.progress import bar, say
from lethax.recipe.record import check_seed
from lethax.text import command_line, shown

if TYPE_CHECKING:
    from lethax import embed
    from lethax.data.origin import Origin
    from lethax.data.store import Store


def embed_images(args: data_arguments.Embed) -> None:
    from lethax import embed
    from lethax.data import embeddings
    from lethax.devices import use_all_cores

    _check(args)
    use_all_cores()
    store = embed.images_of(args.data, trains=args.backbone not in PRETRAINED)
    path = args.out or Path(f"{_name(args)}.safetensors")
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
    for name in ("filters", "steps", "batch"):
        if getattr(args, name) < 1:
            raise RecipeError(f"--{name} is {getattr(args, name)}; it has to be at least 1.")
    if not 0 < args.rate < float("inf"):
        raise RecipeError(f"--rate is {args.rate}; it has to be a finite number above 0.")
    if args.size is not None and args.backbone not in PRETRAINED:
        raise RecipeError(
            f"--size is of a pretrained network: name it with --backbone {PRETRAINED[0]}, or leave it out."
        )
    check_seed(args.seed)


def _name(args: data_arguments.Embed) -> str:
    """The name of the data set of features."""
    made_by = Path(args.backbone).name.lower() if args.backbone else args.net
    return args.store or f"{args.data}-{made_by}"


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
    net = embed.net_for(args.net, store, args.filters)
    padding = max(store.splits["train"].images.shape[1] // 10, 1)
    how = embed.Schooling(args.steps, args.batch, args.rate, padding=padding)
    with bar("backbone", args.steps) as show:
        backbone = embed.school(store, net, how, args.seed, lambda done, _, note: show(done, note))
    say(f"The network classifies {backbone.accuracy:.1%} of the held-out images of the training classes correctly.")
    return backbone.reading(store)
