"""Read an array of numbers from a MATLAB file of version 5, packed or not."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from lethax.data.arrays import rebuilt
from lethax.errors import DataError
from lethax.text import shown

MAT_BYTES = 1 << 26
_HEADER, _MATRIX, _PACKED = 128, 14, 15
_COMPLEX = 0x800
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = range(6, 16)  # classes of arrays of numbers


def read_mat(content: bytes | bytearray, file: str, name: str) -> np.ndarray:
    """Read the array of that name. DataError if the file is of another form, or has no such array of real numbers."""
    try:
        if len(content) > MAT_BYTES:
            raise ValueError(f"it has more than {MAT_BYTES} bytes")
        order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:_HEADER]))
        if order is None:
            raise ValueError("it does not begin as a MATLAB file of version 5")
        for kind, part in _elements(memoryview(content)[_HEADER:], order):
            if kind == _PACKED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(part, MAT_BYTES)
                if not unpacker.eof:
                    raise ValueError(f"its packed array is cut off, or has more than {MAT_BYTES} bytes")
                kind, part = next(_elements(memoryview(unpacked), order))
            if kind == _MATRIX and (array := _matrix(part, order, name)) is not None:
                return array
        raise ValueError(f"it has no array '{name}'")
    except (ValueError, struct.error, zlib.error, StopIteration, DataError) as error:
        raise DataError(
            f"{shown(file)} cannot be read ({shown(error)}); expected a MATLAB file of version 5 with the numbers '{name}'."
        ) from None


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of each data element. Small ones have their type and size in one word."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        begin, end = at + 8, at + 8 + size
        after = end if kind == _PACKED else -(-end // 8) * 8
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            begin, end, after = at + 4, at + 4 + size, at + 8
            if size > 4:
                raise ValueError(f"a small element claims {size} bytes")
        if end > len(content):
            raise ValueError(f"an element claims {size} bytes where {max(len(content) - begin, 0)} are left")
        yield kind, content[begin:end]
        at = after


def _matrix(content: memoryview, order: str, name: str) -> np.ndarray | None:
    """The array of a matrix element; None if it has another name."""
    parts = _elements(content, order)
    _, flags = next(parts)
    kinds = struct.unpack_from(f"{order}I", flags)[0]
    _, sizes = next(parts)
    _, title = next(parts)
    if bytes(title) != name.encode():
        return None
    if kinds & 0xFF not in _NUMBERS or kinds & _COMPLEX:
        raise ValueError(f"its '{name}' holds no real numbers")
    kind, values = next(parts)
    if kind not in _TYPES:
        raise ValueError(f"its '{name}' has numbers of type {kind}")
    shape = np.frombuffer(sizes, np.dtype(f"{order}i4")).tolist()
    return rebuilt(np.dtype(order + _TYPES[kind]), shape, values, fortran=True)
