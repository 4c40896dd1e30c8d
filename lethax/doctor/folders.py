"""The folders: prepared data sets with their checksums, the cache of compiled programs, and the space on the disks."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lethax import hardware
from lethax.doctor.rows import OK, WARNING, WRONG, Row
from lethax.text import counted, in_bytes, shown

LARGE_CACHE = 10 << 30
LITTLE, NONE = 2 << 30, 200 << 20  # bytes that are free on a disk


def rows(quick: bool, numpy: bool) -> Iterator[Row]:
    """The rows on folders. quick: the contents of data sets are not read. numpy: whether NumPy can be imported."""
    data, cache = _data(), _cache()
    yield _writable("data folder", data, "Name another folder in $LETHAX_DATA, or change its permissions.")
    if numpy:
        yield from _stores(data, quick)
    else:
        yield Row("data sets", WARNING, "not looked at, because NumPy cannot be imported")
    yield of_cache(cache)
    yield from _space(
        {"runs": Path.cwd(), "data folder": data, "cache": cache, "temporary files": Path(tempfile.gettempdir())}
    )


def _data() -> Path:
    return Path(os.environ.get("LETHAX_DATA") or Path.home() / ".local" / "share" / "lethax")


def _cache() -> Path:
    return hardware.cache_folder() / "programs"


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path("/"))


def _writable(what: str, path: Path, advice: str) -> Row:
    there = _existing(path)
    if not there.is_dir():
        return Row(what, WRONG, f"{path} is not a folder", advice)
    if not os.access(there, os.W_OK):
        return Row(what, WARNING, f"{path} cannot be written", advice)
    return Row(what, OK, f"{path}{'' if path.is_dir() else ', which is made when it is needed'}")


def _stores(root: Path, quick: bool) -> Iterator[Row]:
    from lethax.data.store import list_stores

    try:
        names = list_stores(root)
    except OSError as error:
        yield Row("data sets", WRONG, f"{root} cannot be read ({error.strerror})", "Change its permissions.")
        return
    if not names:
        yield Row(
            "data sets",
            OK,
            "none is prepared yet",
            "lethax data prepare --help says how. lethax data prepare glyphs needs no files, and sinusoid no preparation.",
        )
    for name in names:
        yield of_store(name, root, quick)


def of_store(name: str, root: Path, quick: bool) -> Row:
    """The row of a data set, whose files are compared with their checksums unless it has to be quick."""
    from lethax.data.store import open_store, verify_store

    what = f"data {shown(name, 40)}"
    try:
        store = open_store(name, root) if quick else verify_store(name, root)
        held = sum(split.images.nbytes for split in store.splits.values())
    except Exception as error:  # of a damaged one, whatever is wrong with it
        return Row(what, WRONG, str(error), "Prepare it again: the other data sets can be used meanwhile.")
    if store.manifest["format"] == 1:
        return Row(what, WARNING, "its manifest is of format 1 and has no checksum", "Prepare it again for one.")
    said = "its checksums were not compared" if quick else "its checksums are right"
    return Row(what, OK, f"{', '.join(store.splits)}, {in_bytes(held)}; {said}")


def of_cache(path: Path) -> Row:
    """The row of the cache of compiled programs."""
    row = _writable("cache", path, "Programs are compiled anew at every start. Name another folder in $LETHAX_CACHE.")
    if row.state != OK or not path.is_dir():
        return row
    count = held = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                held += os.stat(os.path.join(folder, name)).st_size
                count += 1
            except OSError:  # another process has just deleted it
                continue
    said = f"{path}, {counted(count, 'file')}, {in_bytes(held)}"
    if held > LARGE_CACHE:
        return Row(
            "cache", WARNING, said, "Delete the folder if you need the space: programs are then compiled anew once."
        )
    return Row("cache", OK, said)


def _space(wanted: dict[str, Path]) -> Iterator[Row]:
    """A row for each disk that files are written to."""
    disks: dict[int, tuple[list[str], Path]] = {}
    for what, path in wanted.items():
        there = _existing(path)
        disks.setdefault(there.stat().st_dev, ([], there))[0].append(what)
    for names, path in disks.values():
        free = shutil.disk_usage(path).free
        state = WRONG if free < NONE else WARNING if free < LITTLE else OK
        said = f"{in_bytes(free)} free at {path}, for {', '.join(names)}"
        yield Row("disk space", state, said, "" if state == OK else "Free some space there, or name other folders.")
