"""The command `lethax data`: list, prepare and verify data sets."""

from collections import Counter
from pathlib import Path
from typing import Any

from lethax import signals
from lethax.cli import data_arguments
from lethax.cli.commands import DataCommand
from lethax.errors import DataError
from lethax.names import MADE, METADATASET
from lethax.progress import bar, say
from lethax.recipe.record import check_seed
from lethax.text import command_line, counted, shown

_OPTIONS = ("store", "split", "image", "seed", "least", "duplicates", "near", "per_class")
LISTED = 20  # lines about what an import did not take; the manifest has all


def data_sets(args: DataCommand) -> None:
    """Run `lethax data list`, `prepare` or `verify`."""
    action = args.action
    if isinstance(action, data_arguments.DataPrepare):
        _prepare(action)
    elif isinstance(action, data_arguments.DataVerify):
        _verify(action)
    else:
        _list(action)


def _list(args: data_arguments.DataList) -> None:
    from lethax.data.store import default_root, list_stores

    root = args.root or default_root()
    if args.root and not root.is_dir():
        raise DataError(f"{shown(root)} is not a folder: give --root the folder that holds the data sets.")
    names = list_stores(root)
    for name in names:
        try:
            describe(name, args.root)
        except DataError as error:  # an error of one data set must not hide the others
            say(f"{name}: {error}")
    if not names:
        say(f"There is no data set in {shown(root)} yet: see lethax data prepare --help.")
    say(f"Lethax makes these tasks itself, so nothing has to be prepared for them: {', '.join(MADE)}.")


def _verify(args: data_arguments.DataVerify) -> None:
    from lethax.data.store import verify_store

    store = verify_store(args.name, args.root)
    old = " (its manifest, of format 1, has no checksum: prepare it again for one)"
    say(f"{store.name}: every part is as it was written{old if store.manifest['format'] == 1 else ''}")


def _prepare(args: data_arguments.DataPrepare) -> None:
    from lethax import data
    from lethax.cli import imported

    if args.seed is not None:
        check_seed(args.seed)
    options = {name: getattr(args, name) for name in _OPTIONS}
    signals.say("what was there is unchanged")
    with signals.raising(), bar(f"preparing {args.name}", 1.0) as show:
        names = data.prepare(args.name, args.source, args.root, lambda what, share: show(share, what), **options)
    for name in names:
        describe(name, args.root)
        _not_taken(name, args.root)
        imported.tell(name, args.root)
        _next(name, args.root)


def describe(name: str, root: Path | None) -> None:
    """Print a line about a data set: its splits, their classes and images or features, and its folder."""
    from lethax.data.store import open_store

    store = open_store(name, root)
    one, of = ("feature", f" of {store.features:,} entries") if store.features else ("image", "")
    parts = (
        f"{split} {counted(len(s.classes), 'class')}, {counted(len(s.images), one)}{of}"
        for split, s in store.splits.items()
    )
    say(f"{name}: {'; '.join(parts)}  ({shown(store.folder)})")


def _not_taken(name: str, root: Path | None) -> None:
    """Print what the import of a user's own folder left out, rare reasons first, and class names that are nearly equal."""
    from lethax.data.folder import left_out, skipped
    from lethax.data.store import open_store

    store = open_store(name, root)
    found = [(entry, why, why) for entry, why in left_out(store)]
    found += [(file, f"it is broken: {why}", "they are broken") for file, why in skipped(store)]
    of_kind = Counter(kind for _, _, kind in found)
    found.sort(key=lambda entry: (of_kind[entry[2]], entry[2], entry[0]))
    if found:
        say(f"These were not taken ({shown(store.folder / 'manifest.json')} lists all of them):")
    for entry, why, _ in found[:LISTED]:
        say(f"  {shown(entry, 100)}: {shown(why, 100)}")
    if found[LISTED:]:
        kinds = Counter(kind for _, _, kind in found[LISTED:]).most_common(5)
        say(f"  and {len(found) - LISTED} more: {'; '.join(f'{count} ({shown(kind, 60)})' for kind, count in kinds)}")
    alike = store.manifest["source"].get("alike", [])
    if alike:
        groups = "; ".join(", ".join(shown(one, 40) for one in names) for names in alike[:LISTED])
        more = f" and {len(alike) - LISTED} more" if alike[LISTED:] else ""
        say(f"Class names that differ only in upper and lower case stay separate classes: {groups}{more}.")


def _next(name: str, root: Path | None) -> None:
    """Print the largest episodes that fit, the classes that are too small for the usual ones, and a command that trains."""
    from lethax.data.fits import QUERY, SHOT, WAY, enough, nearest, room, too_small
    from lethax.data.folder import at_random
    from lethax.data.store import open_store

    store = open_store(name, root)
    if store.manifest["source"].get("kind") == METADATASET:
        _next_of_a_source(store)
        return
    say(f"Episodes that fit all splits: {room(store.splits)}.")
    small = too_small(store.splits, SHOT + QUERY)
    if small:
        some = ", ".join(f"{shown(one, 40)} ({split}, {count})" for split, one, count in small[:LISTED])
        more = f" and {len(small) - LISTED} more" if small[LISTED:] else ""
        episode = f"{counted(SHOT, 'shot')} and {counted(QUERY, 'query')}"
        say(
            f"{counted(len(small), 'class')} {'is' if len(small) == 1 else 'are'} too small for {episode}: {some}{more}."
        )
        if store.manifest["source"].get("kind") == "folder":
            without = f"To leave such classes out, add --least {SHOT + QUERY}. If they stay, all classes give smaller episodes."
            few = "All classes give smaller episodes, because without such classes too few would be left: add pictures to them."
            say(without if enough(store.splits, SHOT + QUERY, at_random(store)) else few)
    lacks = " and no ".join(split for split in ("train", "val") if split not in store.splits)
    if lacks:
        say(
            f"lethax train needs a train and a val split; this has no {lacks}. Runs on other data can be evaluated on it. Your own "
            "pictures: prepare them again from folders, or with a --split file, that have these splits."
        )
        return
    if nearest(store.splits, WAY, SHOT, QUERY) is None:
        say(
            "lethax train needs two classes in every split, with two examples each: add some, or leave small classes out."
        )
        return
    # Way, shot and query fit themselves where they are not given, and the first line of `train` says how.
    say(f"Next: {command_line('train', name, *(['--method', 'leo+l2f'] if store.features else []))}")


def _next_of_a_source(store: Any) -> None:
    """Print what to do with a source of Meta-Dataset, whose episodes draw their own sizes."""
    if "train" in store.splits:
        say(f"Next: {command_line('train', METADATASET)}")
        return
    say("It has no training classes. Runs on other sources are judged on it: lethax evaluate RUN")
