"""Data sets by name: what prepares them. Importers are loaded when used, so that a short command stays short."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from lethax.errors import DataError

IMPORTERS = {
    "cifar100": ("cifar", "prepare_cifar100"),
    "omniglot": ("omniglot", "prepare_omniglot"),
    "miniimagenet": ("miniimagenet", "prepare_miniimagenet"),
    "tieredimagenet": ("tieredimagenet", "prepare_tieredimagenet"),
    "folder": ("folder", "prepare_folder"),
    "features": ("embeddings", "prepare_features"),
}


def prepare(
    name: str, source: Path | None, root: Path | None, progress: Callable[[str, float], None], **options: Any
) -> list[str]:
    """Turn a published layout into stores and give their names; DataError says what is missing or damaged."""
    if name == "glyphs":
        return [import_module("lethax.data.glyphs").build_glyphs(root, progress)]
    if source is None:
        raise DataError(f"prepare {name} needs --from FOLDER_OR_ARCHIVE with the published files.")
    module, function = IMPORTERS[name]
    names: list[str] = getattr(import_module(f"lethax.data.{module}"), function)(source, root, progress, **options)
    return names
