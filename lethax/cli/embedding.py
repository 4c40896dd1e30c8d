"""The command `lethax embed`. JAX is imported by what needs it."""

import shlex
import sys
from pathlib import Path

from lethax.cli import arguments
from lethax.cli.data_sets import describe
from lethax.errors import RecipeError
from lethax.progress import bar, say
from lethax.recipe.record import check_seed
from lethax.text import command_line, shown


def embed_images(args: arguments.Embed) -> None:
    from lethax import embed
    from lethax.data import embeddings
    from lethax.devices import use_all_cores

    for name in ("filters", "steps", "batch"):
        if getattr(args, name) < 1:
            raise RecipeError(f"--{name} is {getattr(args, name)}; it has to be at least 1.")
    if not 0 < args.rate < float("inf"):
        raise RecipeError(f"--rate is {args.rate}; it has to be a finite number above 0.")
    check_seed(args.seed)
    use_all_cores()
    store = embed.images_of(args.data)
    name = args.store or f"{args.data}-{args.backbone.name.lower() if args.backbone else args.net}"
    if args.backbone:
        backbone = embed.from_run(args.backbone)
    else:
        net = embed.net_for(args.net, store, args.filters)
        how = embed.Schooling(
            args.steps, args.batch, args.rate, padding=max(store.splits["train"].images.shape[1] // 10, 1)
        )
        with bar("backbone", args.steps) as show:
            backbone = embed.school(store, net, how, args.seed, lambda done, _, note: show(done, note))
        say(f"The network classifies {backbone.accuracy:.1%} of the held-out images of the training classes correctly.")
    total = sum(len(split.images) for split in store.splits.values())
    with bar("features", total, "images") as show:
        splits = embed.features_of(store, backbone, lambda done, _, note: show(done, note))
    path = args.out or Path(f"{name}.safetensors")
    embed.write(path, splits)
    origin = {"kind": "features", "of": args.data, "command": shlex.join(["lethax", *sys.argv[1:]])}
    embeddings.write_features(name, splits, args.root, origin)
    describe(name, args.root)
    say(f"written: {shown(path)}. Next: {command_line('train', name, '--method', 'leo+l2f')}")
