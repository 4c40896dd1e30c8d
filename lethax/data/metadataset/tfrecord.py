"""Read TFRecord files: payloads one after another, each with two checksums, both verified.

length (u64) | masked CRC-32C of these 8 bytes (u32) | payload | masked CRC-32C of the payload (u32)     little endian

masked(c) = ((c >> 15) | (c << 17)) + 0xa282ead8  mod 2^32
"""

import os
import struct
from collections.abc import Container, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np

from lethax.data.safe import open_file
from lethax.errors import DataError
from lethax.text import shown

RECORD_BYTES = 1 << 28  # of the largest payload
_HEAD, _TAIL = struct.Struct("<QI"), struct.Struct("<I")
LEAST_BYTES = _HEAD.size + _TAIL.size  # of a record
_POLYNOMIAL, _ONES = 0x82F63B78, 0xFFFFFFFF  # reflected, as all of this


def crc32c(content: bytes) -> int:
    """The CRC-32C (Castagnoli) of some bytes; 0xE3069283 of b"123456789".

    It is linear in the bits, so neighbours are combined in pairs, over and over, and NumPy does all pairs of a level at once:
    a level that combines blocks of n bytes shifts the left one by n zero bytes, which four small tables hold.
    """
    if len(content) < 4:
        return _plain(content)
    crcs = np.zeros(-(-len(content) // 4), "<u4")  # zeros in front of all else change nothing
    placed = crcs.view(np.uint8)[4 * len(crcs) - len(content) :]
    placed[:] = np.frombuffer(content, np.uint8)
    placed[:4] ^= 0xFF  # the initial value
    level = 2
    while len(crcs) > 1:
        if len(crcs) % 2:
            crcs = np.concatenate([np.zeros(1, "<u4"), crcs])
        crcs = _shifted(crcs[0::2], level) ^ crcs[1::2]
        level += 1
    return int(_shifted(crcs, 2)[0]) ^ _ONES


def _plain(content: bytes) -> int:
    table, crc = _tables(0)[0], _ONES
    for byte in content:
        crc = int(table[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return crc ^ _ONES


def _shifted(crcs: np.ndarray, level: int) -> np.ndarray:
    """The CRCs after 2^level zero bytes more."""
    tables, places = _tables(level), np.ascontiguousarray(crcs).view(np.uint8).reshape(-1, 4)
    found = tables[0][places[:, 0].astype(np.intp)]  # NumPy looks up by other types of integers much more slowly
    for byte in (1, 2, 3):
        found ^= tables[byte][places[:, byte].astype(np.intp)]
    return found.reshape(crcs.shape)


@cache
def _tables(level: int) -> np.ndarray:
    """What 2^level zero bytes make of each value of each of the four bytes of a CRC, uint32 [4, 256]."""
    values = np.arange(256, dtype="<u4")[None] << np.arange(0, 32, 8, dtype="<u4")[:, None]
    if level:
        return _shifted(_shifted(values, level - 1), level - 1)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(_POLYNOMIAL), values >> 1)
    return values


def _unmasked(masked: int) -> int:
    turned = (masked - 0xA282EAD8) & _ONES
    return ((turned >> 17) | (turned << 15)) & _ONES


def records(path: Path, wanted: Container[int] | None = None) -> Iterator[bytes | None]:
    """Yield the payloads of a file, and None in the place of those that are not wanted, which are passed over.

    DataError for a wrong checksum, a file that ends within a record, and a record of more than RECORD_BYTES.
    """
    with open_file(path) as file:
        left = os.fstat(file.fileno()).st_size
        for number in count():
            if not left:
                return
            try:
                length = _length(file.read(_HEAD.size), left)
                if wanted is None or number in wanted:
                    yield _payload(file.read(length), file.read(_TAIL.size))
                else:
                    file.seek(length + _TAIL.size, os.SEEK_CUR)
                    yield None
                left -= _HEAD.size + length + _TAIL.size
            except ValueError as error:
                raise DataError(f"record {number} of {shown(path)} {error}: copy or download the file again.") from None


def _length(head: bytes, left: int) -> int:
    """The length of a payload, whose record has no more than `left` bytes. ValueError says what is wrong with it."""
    if len(head) < _HEAD.size:
        raise ValueError(f"ends within its first {_HEAD.size} bytes")
    length: int
    length, masked = _HEAD.unpack(head)
    if _plain(head[:8]) != _unmasked(masked):
        raise ValueError("has a length whose checksum is wrong")
    room = max(left - LEAST_BYTES, 0)
    if length > min(RECORD_BYTES, room):
        there = f"where {room} are left" if length <= RECORD_BYTES else f"more than {RECORD_BYTES}"
        raise ValueError(f"claims {length} bytes, {there}")
    return length


def _payload(content: bytes, tail: bytes) -> bytes:
    if len(tail) < _TAIL.size or crc32c(content) != _unmasked(*_TAIL.unpack(tail)):
        raise ValueError("has a wrong checksum")
    return content
