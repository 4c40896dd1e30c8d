"""Write a store: its parts and its manifest in a folder of their own, which then takes the place of an earlier store."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lethax import __version__
from lethax.data.naming import checked_name
from lethax.data.publish import MANIFEST, NO_ROOM, part_name, publish, reserve, workplace
from lethax.data.safe import sha256
from lethax.data.store import FORMAT, SPLITS, checksum, default_root, dtype_of
from lethax.errors import DataError
from lethax.files import sync


class StoreWriter:
    """A context manager that builds a store. Its `split` gives an array to fill.

    An exception leaves an earlier store as it was. A full disk is a DataError.
    """

    def __init__(
        self, root: Path | None, name: str, *, mean: Sequence[float], std: Sequence[float], source: dict[str, Any]
    ) -> None:
        self._target = (root or default_root()) / checked_name(name)
        self._manifest: dict[str, Any] = {
            "format": FORMAT, "name": name, "lethax": __version__, "mean": list(mean), "std": list(std),
            "source": source, "splits": {},
        }  # fmt: skip
        self._arrays: dict[str, np.memmap] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "StoreWriter":
        try:
            self._work = self._open.enter_context(workplace(self._target))
        except OSError as error:
            raise DataError(f"{self._target.parent} cannot be written: {error.strerror}.") from None
        return self

    def split(
        self,
        split: str,
        shape: tuple[int, ...],
        classes: Sequence[tuple[str, str, int]],
        relations: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Make an array to fill in class order, uint8 [n, H, W, C] or float32 [n, d]. Classes are (name, superclass, count).

        relations: what else is to be known of how episodes are drawn from the classes, see `variable_episodes.pool`.
        """
        total = sum(count for _, _, count in classes)
        if split not in SPLITS or split in self._arrays:
            raise DataError(
                f"split '{split}' of {self._target.name} is {'given twice' if split in SPLITS else 'none'}."
            )
        if total <= 0 or min(count for _, _, count in classes) < 0:
            raise DataError(f"split '{split}' of {self._target.name} has no images.")
        path = self._work / f"{split}.npy"
        try:
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype_of(shape), shape=(total, *shape))
            reserve(path)
        except OSError as error:
            raise self._unwritable(error) from None
        self._arrays[split] = array
        self._manifest["splits"][split] = {
            "shape": [total, *map(int, shape)], "classes": [[name, above, int(count)] for name, above, count in classes],
            **({"relations": relations} if relations else {}),
        }  # fmt: skip
        return array

    def report(self, name: str, content: bytes) -> None:
        """Put a file for people beside the parts. Nothing reads it, so no checksum guards it."""
        (self._work / name).write_bytes(content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            try:
                if error is None:
                    self._finish()
            except OSError as problem:
                raise self._unwritable(problem) from None
            finally:
                self._arrays.clear()
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise self._unwritable(error) from None

    def _finish(self) -> None:
        if not self._arrays:
            raise DataError(f"no split of {self._target.name} has images: nothing was written.")
        for split, array in self._arrays.items():
            array.flush()
            path = self._work / f"{split}.npy"
            digest = self._manifest["splits"][split]["sha256"] = sha256(path)
            sync(path)
            path.rename(path.with_name(part_name(FORMAT, split, digest)))
        self._manifest["sha256"] = checksum(self._manifest)
        manifest = self._work / MANIFEST
        manifest.write_text(json.dumps(self._manifest, indent=1), encoding="utf-8")
        sync(manifest)
        publish(self._work, self._target)

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self._target} cannot be written: {error.strerror or error}; free some space or choose another --root."
        )
