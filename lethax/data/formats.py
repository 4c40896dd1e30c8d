"""Read arrays from .npy, .npz and .safetensors files. Headers are read here, and `arrays.rebuilt` makes the arrays."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.archives import Archive
from lethax.data.arrays import Content, element, rebuilt
from lethax.data.safe import mapped
from lethax.errors import DataError
from lethax.text import shown

NPZ_BYTES = 1 << 29  # of an array in an .npz, which is unpacked into memory
HEADER_BYTES = 1 << 24  # of a .safetensors

_NPY = re.compile(
    r"""\{\s*['"]descr['"]:\s*['"]([^'"]{1,20})['"],\s*['"]fortran_order['"]:\s*(True|False),\s*"""
    r"""['"]shape['"]:\s*\(([0-9L, ]*)\),?\s*\}\s*"""
)
_DTYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "U16": "<u2",
    "U32": "<u4", "U64": "<u8",
}  # fmt: skip


def read_npy(path: Path) -> np.ndarray:
    """Map the array of a .npy file. DataError unless it has numbers or strings."""
    try:
        return _npy(memoryview(mapped(path)))
    except (ValueError, DataError) as error:
        raise _unreadable(path, error, "an array of numbers or strings") from None


def read_npz(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Read the arrays of an .npz file by name. DataError if one is missing, too large, or not of numbers or strings."""
    wanted = {f"{name}.npy" for name in names}
    try:
        found = dict(Archive(path).items(wanted.__contains__, NPZ_BYTES))
        if missing := [name for name in names if f"{name}.npy" not in found]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return [_npy(memoryview(found[f"{name}.npy"])) for name in names]
    except (ValueError, DataError) as error:
        raise _unreadable(path, error, f"the arrays {', '.join(names)}") from None


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Map the arrays of a .safetensors file, and read its metadata. Arrays of types that NumPy lacks are left out."""
    view = memoryview(mapped(path))
    try:
        length = int.from_bytes(view[:8], "little")
        if not 2 <= length <= min(len(view) - 8, HEADER_BYTES):
            raise ValueError(f"its header claims {length} bytes")
        header = json.loads(str(view[8 : 8 + length], "utf-8"))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no object")
        content = view[8 + length :]
        return {n: _tensor(e, content) for n, e in header.items() if not _is_foreign(e)}, metadata
    except (ValueError, RecursionError, DataError) as error:
        raise _unreadable(path, error, "SPLIT/features and SPLIT/labels") from None


def _npy(content: memoryview) -> np.ndarray:
    if bytes(content[:6]) != b"\x93NUMPY" or content[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError("it does not begin as a .npy file")
    size = 2 if content[6] == 1 else 4
    begin = 8 + size
    end = begin + int.from_bytes(content[8:begin], "little")
    header = _NPY.fullmatch(str(content[begin : min(end, begin + 10_000)], "utf-8"))
    if header is None or end > len(content):
        raise ValueError("its header is not as NumPy writes it for numbers or strings")
    shape = tuple(int(n.rstrip("L")) for n in header[3].replace(" ", "").split(",") if n)
    return rebuilt(element(header[1]), shape, content[end:], fortran=header[2] == "True")


def _is_foreign(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("dtype"), str) and entry["dtype"] not in _DTYPES


def _tensor(entry: Any, content: Content) -> np.ndarray:
    match entry:
        case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [int() as begin, int() as end]}:
            if 0 <= begin <= end <= len(content):
                return rebuilt(element(_DTYPES[dtype]), shape, content[begin:end])
    raise ValueError(f"its header places an array at {shown(entry, 120)}")


def _unreadable(path: Path, error: Exception, expected: str) -> DataError:
    return DataError(f"{shown(path)} cannot be read ({shown(error)}); expected {expected}.")
