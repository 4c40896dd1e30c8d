"""Change a store on the disk by one rename, that of its manifest: before it everything is old, after it everything is new.

The parts of a store have their content's SHA-256 in their names, so old and new ones lie in one folder side by side until the
manifest that names the new ones is there; then the old ones go. Who has an old part open goes on reading it.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lethax import signals
from lethax.files import sync
from lethax.lock import InUse, locked

MANIFEST = "manifest.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PART = re.compile(r"(train|val|test)(-[0-9a-f]{16})?\.npy")


def part_name(form: int, split: str, sha256: str) -> str:
    """The file name of a split: `train-0123456789abcdef.npy`, or `train.npy` in stores of format 1."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"the SHA-256 of {split} is '{sha256[:80]}'")
    return f"{split}.npy" if form == 1 else f"{split}-{sha256[:16]}.npy"


@contextlib.contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Make a folder beside `target` to write in, and delete it at the end. Remains of killed imports are deleted too."""
    beside = target.resolve().parent
    beside.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as running:
        with _alone(beside) as alone:
            if alone:
                _sweep(beside, f".{target.name}.")
            work = Path(tempfile.mkdtemp(dir=beside, prefix=f".{target.name}."))
            running.callback(shutil.rmtree, work, ignore_errors=True)
            running.enter_context(_alone(work))  # says to others that its import runs
        yield work


def publish(work: Path, target: Path) -> None:
    """Move all from `work`, complete and on the disk, to `target`: the parts, the manifest, then the reports for people.

    An OSError leaves the store that was there. Its reports go before the manifest, so that a kill leaves none beside other data.
    """
    written = [path for path in work.glob("[!.]*") if path.name != MANIFEST]  # not its lock
    parts = [path for path in written if _PART.fullmatch(path.name)]
    reports = [path for path in written if path not in parts]
    with _alone(target.resolve().parent) as alone:
        target.mkdir(exist_ok=True)
        try:
            for part in parts:
                os.replace(part, target / part.name)
            for report in reports:
                (target / report.name).unlink(missing_ok=True)
            sync(target)
            os.replace(work / MANIFEST, target / MANIFEST)
            signals.say(f"data set {target.name} is written, what was to follow is unchanged")
            for report in reports:
                os.replace(report, target / report.name)
            sync(target)
            sync(target.parent)
        finally:
            if alone:
                _tidy(target)


def _tidy(target: Path) -> None:
    """Delete the parts that the manifest does not name, and the folder if there is no manifest."""
    try:
        manifest: dict[str, Any] = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        entries = manifest["splits"].items()
        named = {part_name(manifest["format"], split, entry["sha256"]) for split, entry in entries}
    except FileNotFoundError:
        named = set()
    except Exception:  # not ours, or damaged: nobody can say what is old
        return
    for path in target.iterdir():
        if _PART.fullmatch(path.name) and path.name not in named:
            path.unlink()
    with contextlib.suppress(OSError):  # it holds something
        target.rmdir()


def _sweep(beside: Path, prefix: str) -> None:
    """Delete the folders of imports that were killed. The folder of an import that still runs is locked, and stays."""
    for path in [path for path in beside.iterdir() if path.name.startswith(prefix)]:
        try:
            with locked(path):
                killed = True
        except (InUse, OSError):  # it runs, or has just ended
            killed = False
        if killed:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """One process at a time; False on a file system without locks, where nothing is deleted that another may have made."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder, wait=True))
            alone = True
        except OSError:
            alone = False
        yield alone


def reserve(path: Path) -> None:
    """Allocate the file now, because a disk that fills up under a memory map would kill the process without a message."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
