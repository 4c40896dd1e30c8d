"""Prepare data sets by name. Importers are loaded only when they are used, so that other commands start quickly."""

import os
import re
import unicodedata
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from lethax.data.naming import own_name
from lethax.data.store import check_kind
from lethax.data.twins import MOST_BITS
from lethax.errors import DataError, RecipeError

IMPORTERS = {
    "cifar100": ("cifar", "prepare_cifar100"),
    "omniglot": ("omniglot", "prepare_omniglot"),
    "miniimagenet": ("miniimagenet", "prepare_miniimagenet"),
    "tieredimagenet": ("tieredimagenet", "prepare_tieredimagenet"),
    "folder": ("folder", "prepare_folder"),
    "features": ("embeddings", "prepare_features"),
    "metadataset": ("metadataset", "prepare_metadataset"),
}


LARGEST_IMAGE = 1024  # pixels of a side; no net here is made for more
# What an importer takes beside them; the rest is a RecipeError, not silently nothing.
OPTIONS: dict[str, tuple[str, ...]] = {
    "omniglot": ("split",),
    "miniimagenet": ("image",),
    "tieredimagenet": ("image",),
    "folder": ("store", "split", "image", "seed", "least", "duplicates", "near"),
    "features": ("store",),
    "metadataset": ("image", "per_class"),
}


def prepare(
    layout: str, source: Path | None, root: Path | None, progress: Callable[[str, float], None], **options: Any
) -> list[str]:
    """Turn a published layout into stores and return their names. DataError says what is missing or damaged.

    `options` are those of `lethax data prepare`; an option that is None was not given.
    """
    kind, _, part = layout.partition("-")  # the sources of Meta-Dataset are called metadataset-SOURCE
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - set(OPTIONS.get(kind, ())):
        takers = [other for other, known in OPTIONS.items() if name in known]
        do = "does" if len(takers) == 1 else "do"
        raise RecipeError(
            f"prepare {layout} takes no --{name.replace('_', '-')}, only {' and '.join(takers)} {do}: leave it out."
        )
    if layout == "glyphs":
        if source is not None:
            raise RecipeError("prepare glyphs takes no --from, because the glyphs are drawn: leave it out.")
        return [import_module("lethax.data.glyphs").build_glyphs(root, progress)]
    if source is None:
        what = {"folder": "with your pictures", "features": "with your features"}.get(
            layout, "with the published files"
        )
        raise RecipeError(f"prepare {layout} needs --from FOLDER_OR_ARCHIVE {what}.")
    if not 1 <= given.get("image", 1) <= LARGEST_IMAGE:
        raise RecipeError(f"--image is {given['image']}; pictures have a side of 1 to {LARGEST_IMAGE} pixels.")
    if given.get("least", 2) < 2:
        raise RecipeError(f"--least is {given['least']}; an episode takes two pictures of a class or more.")
    if not 0 <= given.get("near", 0) <= MOST_BITS:
        raise RecipeError(f"--near is {given['near']}; it is a number of bits from 0 to {MOST_BITS}.")
    if "store" in OPTIONS.get(kind, ()):
        store = given.pop("store", None)
        given["name"] = own_name(_store_name(source) if store is None else store, layout)
        check_kind(given["name"], root, features=layout == "features")
    if layout == "folder" and "split" in given:
        given["split"] = Path(given["split"])
    if part:
        given["of"] = part
    module, function = IMPORTERS[kind]
    names: list[str] = getattr(import_module(f"lethax.data.{module}"), function)(source, root, progress, **given)
    return names


def _store_name(source: Path) -> str:
    """Turn the name of a folder or file into the name of a store, which has fewer letters: "mes-images-ete" of "Mes images été"."""
    plain = (
        unicodedata.normalize("NFKD", Path(os.path.realpath(source)).name.partition(".")[0])
        .encode("ascii", "ignore")
        .decode()
    )
    name = re.sub(r"[^a-z0-9_-]+", "-", plain.lower()).strip("-_")
    if not name:
        raise DataError(f"{source} has no name that a data set can have: choose one with --store.")
    return name
