"""Rebuild arrays from the type, shape and bytes that a file gives. Types are of a closed list; lengths are checked first."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lethax.errors import DataError
from lethax.text import shown

Content = bytes | bytearray | memoryview
CHUNK = 1 << 24  # bytes that are looked at in one go

_CODE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,5})")
_DIMENSIONS, _LENGTH = 32, 1 << 40


def element(code: Any) -> np.dtype:
    """The type of an array's elements, such as `<f4`. DataError unless it is one of numbers, truth values or strings."""
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise DataError(f"holds an array of type '{shown(code, 40)}', where numbers or strings were expected")
    return np.dtype(code)


def rebuilt(dtype: np.dtype, shape: Sequence[Any], content: Content, *, fortran: bool = False) -> np.ndarray:
    """Make a read-only array over `content` without a copy. ValueError unless that has exactly the bytes of the shape."""
    if len(shape) > _DIMENSIONS or not all(type(n) is int and 0 <= n <= _LENGTH for n in shape):
        raise DataError("holds an array of a shape which none can have")  # not shown: it may be anything
    if math.prod(n for n in shape if n) > _LENGTH:
        raise DataError(f"holds an array of shape {list(shape)}, which none can have")
    count, found = math.prod(shape), memoryview(content).nbytes
    if count * dtype.itemsize != found:
        raise ValueError(f"{found} bytes for an array {dtype}{shown(list(shape), 80)} of {count * dtype.itemsize}")
    if not count:
        empty = np.zeros(shape, dtype)
        empty.flags.writeable = False
        return empty
    flat = np.frombuffer(content, dtype)
    _check_values(flat)
    return flat.reshape(shape, order="F" if fortran else "C")


def _check_values(flat: np.ndarray) -> None:
    """Check truth values and characters here, because a wrong one would cause an error far from its origin."""
    if flat.dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise ValueError("a truth value that is neither true nor false")
    if flat.dtype.kind == "U":
        codes = flat.view(np.dtype(np.uint32).newbyteorder(flat.dtype.byteorder))
        for begin in range(0, len(codes), CHUNK // 4):
            part = codes[begin : begin + CHUNK // 4]
            if part.max() > 0x10FFFF or ((part >= 0xD800) & (part < 0xE000)).any():
                raise ValueError("a string of what are no characters")


def whole_numbers(value: Any) -> np.ndarray:
    """Convert an array or a list of whole numbers to int64 [n]. ValueError if it is neither."""
    if (
        isinstance(value, np.ndarray)
        and value.ndim == 1
        and value.dtype.kind in "iu"
        and value.max(initial=0) < 1 << 63
    ):
        return value.astype(np.int64)
    if isinstance(value, list | tuple) and all(type(n) is int and abs(n) < 1 << 63 for n in value):
        return np.array(value, np.int64)
    raise ValueError("no list of whole numbers")


def texts(value: Any) -> list[str]:
    """The strings of a list or an array. ValueError if it holds anything else."""
    found = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if not isinstance(found, list | tuple) or not all(isinstance(text, str | bytes) for text in found):
        raise ValueError("no list of strings")
    return [text.decode("latin1") if isinstance(text, bytes) else str(text) for text in found]
