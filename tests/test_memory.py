"""The memory of an import: small files that claim or unpack to much are refused before it is taken."""

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lethax.data import feature_files, split_files
from lethax.data.archives import Archive
from lethax.data.decode import PictureError, decode
from lethax.data.pickles import load_pickle
from lethax.errors import DataError

MIB = 1 << 20
LIMIT = 200  # MiB beside the interpreter; the whole budget is some thousand


def peak() -> int:
    """MiB of memory at most since the last call."""
    text = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) >> 10


def npy(descr: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def header(kind: bytes, size: int) -> bytes:
    """The first block of a tar's member."""
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = kind, size
    return entry.tobuf()


def lists(folder: Path) -> object:
    """Each holds the one before ten times."""
    return load_pickle(
        b"]" + b"".join(b"\x94](" + (b"h" + bytes([i])) * 10 + b"e" for i in range(30)) + b".", "a", values=64 * MIB
    )


def long_name(folder: Path) -> object:
    (folder / "a.tar.gz").write_bytes(gzip.compress(header(tarfile.GNUTYPE_LONGNAME, 1 << 30) + bytes(32 * MIB), 1))
    return Archive(folder / "a.tar.gz").names()


def many_headers(folder: Path) -> object:
    """Extended headers, each of which is kept for all later members."""
    size, blocks = 512 * 1024, []
    for number in range(40):
        start = b"%d k%d=" % (size, number)
        blocks.append(header(tarfile.XGLTYPE, size) + start + b"x" * (size - len(start) - 1) + b"\n")
    (folder / "b.tar.gz").write_bytes(gzip.compress(b"".join(blocks), 1))
    return Archive(folder / "b.tar.gz").names()


def bomb(folder: Path) -> object:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", bytes(65 * MIB))
    return list(Archive(folder / "a.zip").items(limit=64 * MIB))


def claim(folder: Path) -> object:
    """A member of ten bytes under a header that claims a gigabyte."""
    (folder / "c.tar").write_bytes(header(tarfile.REGTYPE, 1 << 30) + bytes(10))
    return list(Archive(folder / "c.tar").items())


def npz(folder: Path) -> object:
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name in ("features", "labels", "split"):
            archive.writestr(f"{name}.npy", npy("<f4", (1 << 38, 4)))
    return feature_files.read_features(folder / "a.npz")


def names_without_letters(folder: Path) -> object:
    (folder / "train_features.npy").write_bytes(npy("<f4", (4, 4)) + bytes(64))
    (folder / "train_labels.npy").write_bytes(npy("<U0", (10_000_000,)))
    return feature_files.read_features(folder)


def tensors(folder: Path) -> object:
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    return feature_files.read_features(folder / "a.safetensors")


def table(folder: Path) -> object:
    with (folder / "a.csv").open("wb") as file:
        file.truncate(1 << 32)
    return split_files.read_split(folder / "a.csv")


def empty_lists(folder: Path) -> object:
    (folder / "a.json").write_bytes(b"[" + b"[]," * (6 * MIB) + b"[]]")
    return split_files.read_split(folder / "a.json")


def picture(folder: Path) -> object:
    """A header that claims 3600 megapixels."""
    body = b"IHDR" + struct.pack(">II5B", 60_000, 60_000, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return decode(
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), 8
    )


TRIES: dict[Callable[[Path], object], str] = {
    lists: "the same lists within each other",
    long_name: "a header of",
    many_headers: "a header of",
    bomb: "of 68157440 bytes",
    claim: "damaged or truncated",
    npz: "cannot be read",
    names_without_letters: "an array of type '<U0'",
    tensors: "its header claims",
    table: "more than 67108864 bytes",
    empty_lists: "letters, more than",
    picture: "",
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_small_files_are_refused_before_they_take_memory(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert list(found) == [attempt.__name__ for attempt in TRIES]
    for attempt, says in TRIES.items():
        memory, said = found[attempt.__name__]
        assert said and says in said and "MemoryError" not in said and memory < LIMIT, (attempt.__name__, memory, said)


if __name__ == "__main__":
    results = {}
    for attempt in TRIES:
        peak()
        before, said = peak(), ""
        try:
            attempt(Path(sys.argv[1]))
        except (DataError, PictureError) as error:
            said = str(error)
        results[attempt.__name__] = peak() - before, said
    print(json.dumps(results))
