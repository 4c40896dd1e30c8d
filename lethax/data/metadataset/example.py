"""Read the picture and the class number of a `tf.Example`, the protocol buffer that is the payload of a record.

    Example  {1: Features}    Features {1: entry {1: key, 2: Feature}, ...}
    Feature  {1: BytesList | 2: FloatList | 3: Int64List}, each of which has its values in field 1

Fields that are not of this form are passed over, as the format has it. Every length is checked against what is there.
"""

from collections.abc import Iterator
from typing import NamedTuple

FIELDS = 100  # of one message; an example of the benchmark has two entries
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5  # wire types; the others are of groups, which nobody writes any more


class LabelledPicture(NamedTuple):
    """The content of a picture's file, and the number of its class."""

    content: bytes
    label: int


def read_example(payload: bytes) -> LabelledPicture:
    """Read the entries `image` and `label`. ValueError says what is wrong: a part of a sentence about the record."""
    entries: dict[bytes, memoryview] = {}
    for features in _messages(memoryview(payload), 1):
        for entry in _messages(features, 1):
            keys, values = list(_messages(entry, 1)), list(_messages(entry, 2))
            entries[bytes(keys[-1]) if keys else b""] = values[-1] if values else memoryview(b"")
    missing = [key for key in ("image", "label") if key.encode() not in entries]
    if missing:
        raise ValueError(f"has no entry '{missing[0]}'")
    pictures = [one for found in _messages(entries[b"image"], 1) for one in _messages(found, 1)]
    if len(pictures) != 1:
        raise ValueError(f"has {len(pictures)} pictures, expected one")
    labels = [one for found in _messages(entries[b"label"], 3) for one in _integers(found)]
    if len(labels) != 1:
        raise ValueError(f"has {len(labels)} labels, expected one")
    return LabelledPicture(bytes(pictures[0]), labels[0])


def _messages(content: memoryview, wanted: int) -> Iterator[memoryview]:
    """The contents of a message's fields of this number that have a length."""
    for number, kind, value in _fields(content):
        if number == wanted and kind == _LENGTH:
            assert isinstance(value, memoryview)
            yield value


def _integers(content: memoryview) -> Iterator[int]:
    """The values of an Int64List, packed or one by one; negative ones have the sign bit of 64."""
    for number, kind, value in _fields(content):
        if number == 1 and isinstance(value, int) and kind == _VARINT:
            yield _signed(value)
        elif number == 1 and isinstance(value, memoryview):
            at = count = 0
            while at < len(value):
                found, at = _varint(value, at)
                count += 1
                if count > FIELDS:
                    raise ValueError(f"has a list of more than {FIELDS} numbers")
                yield _signed(found)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(content: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(number, wire type, value) of each field of a message; values of four or eight bytes are passed over."""
    at = count = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, kind = tag >> 3, tag & 7
        count += 1
        if not number or kind not in (_VARINT, _EIGHT, _LENGTH, _FOUR) or count > FIELDS:
            reason = f"more than {FIELDS} fields" if count > FIELDS else f"a field {number} of wire type {kind}"
            raise ValueError(f"is no tf.Example: it has {reason}")
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield number, kind, value
            continue
        size = {_EIGHT: 8, _FOUR: 4}.get(kind)
        if size is None:
            size, at = _varint(content, at)
        if size > len(content) - at:
            raise ValueError(f"is no tf.Example: a field claims {size} bytes where {len(content) - at} are left")
        if kind == _LENGTH:
            yield number, kind, content[at : at + size]
        at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of 64 bits, seven to a byte, and the place behind it."""
    value = shift = 0
    while at < len(content) and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError("is no tf.Example: a number in it has no end")
