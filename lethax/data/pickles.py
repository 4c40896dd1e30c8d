"""Pickles as data: a small machine that knows the opcodes of plain data, and in which nothing is called, looked up or set.

A pickle is a program. Python's own machine for it finds classes by name, calls them and fills their attributes, so even a short
list of admitted classes is a way to memory that is not the file's. Here names such as `numpy.dtype` are words without any object
behind them, arrays are built by `arrays.rebuilt`, and what memory the values take is counted before they are made.
"""

import codecs
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from lethax.data.arrays import element, rebuilt
from lethax.data.safe import mapped
from lethax.errors import DataError
from lethax.text import shown

VALUES = 1 << 30  # bytes that values may take beside the file itself
SHORT = 1 << 20  # bytes of the longest string; what is longer can only be the content of an array
DEPTH = 32
_SLOT, _OBJECT, _ENTRY = 8, 64, 128  # bytes counted for a place in a list, a small object, a pair in a dict


def load_pickle(source: bytes | Path, name: str, encoding: str = "bytes") -> Any:
    """Plain data of a pickle: dicts, lists, tuples, strings, numbers, and arrays and scalars of NumPy, read-only.

    `encoding`: what Python 2's strings become, "bytes" or "latin1". A file is mapped, and its arrays stay in it. DataError says
    what was found where something else than data was asked for, or more memory than VALUES.
    """
    try:
        return _Machine(mapped(source) if isinstance(source, Path) else source, encoding == "latin1").run()
    except DataError as error:
        raise DataError(
            f"{shown(name)} {error}: it was not read. Fetch it again from where it was published."
        ) from None
    except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, MemoryError) as error:
        raise DataError(f"{shown(name)} is damaged ({type(error).__name__}: {shown(error)}): fetch it again.") from None


class _Word(Enum):
    """The names that a pickle of arrays and bytes uses."""

    RECONSTRUCT = "_reconstruct"
    SCALAR = "scalar"
    FROMBUFFER = "_frombuffer"
    ARRAY = "ndarray"
    DTYPE = "dtype"
    ENCODE = "encode"
    BYTES = "bytes"


_WORDS = {
    **{(f"numpy.{core}.multiarray", w.value): w for core in ("core", "_core") for w in (_Word.RECONSTRUCT, _Word.SCALAR)},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Word.FROMBUFFER for core in ("core", "_core")},
    ("numpy", "ndarray"): _Word.ARRAY, ("numpy", "dtype"): _Word.DTYPE, ("_codecs", "encode"): _Word.ENCODE,
    ("__builtin__", "bytes"): _Word.BYTES, ("builtins", "bytes"): _Word.BYTES,
}  # fmt: skip


@dataclass(slots=True, eq=False)
class _Long:
    """A string over SHORT as it lies in the file."""

    content: memoryview
    text: bool  # UTF-8, of which `_codecs.encode` makes bytes


@dataclass(slots=True, eq=False)
class _Dtype:
    code: str
    order: str = "="

    def real(self) -> np.dtype:
        return element(self.order + self.code)


@dataclass(slots=True, eq=False)
class _Empty:
    """An array that is not filled yet, and the places of the memo that have to know when it is."""

    places: list[int] = field(default_factory=list)


_SMALL = (int, float, bool, type(None))
_PLAIN = (str, bytes, np.ndarray, np.generic)


class _Machine:
    def __init__(self, data: bytes | mmap.mmap, latin1: bool) -> None:
        self.data, self.view, self.latin1 = data, memoryview(data), latin1
        self.at, self.left = 0, VALUES
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the open marks
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := self.data[self.at]) != _STOP:
            self.at += 1
            step = _STEPS.get(code)
            if step is None:
                raise DataError(f"has the opcode {bytes([code])!r}, which no data file needs")
            step(self)
        result = self.stack.pop()
        self._check(result)
        return result

    # Reading

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise DataError(f"holds values that take more than {VALUES >> 20} MiB of memory")

    def take(self, count: int) -> memoryview:
        begin, self.at = self.at, self.at + count
        if self.at > len(self.view):
            raise ValueError(f"it ends within a value of {count} bytes")
        return self.view[begin : self.at]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> memoryview:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise ValueError("it ends within a line")
        found = self.take(end - self.at)
        self.at += 1
        return found

    def digits(self) -> str:
        found = self.line()
        if len(found) > 40:
            raise DataError(f"holds a number of {len(found)} digits")
        return str(found, "ascii")

    # Values

    def push(self, value: Any) -> None:
        self.spend(_OBJECT)
        self.stack.append(value)

    def pushed_bytes(self, length: int) -> None:
        content = self.take(length)
        self.push(_Long(content, text=False) if length > SHORT else self._bytes(content))

    def pushed_string(self, length: int) -> None:
        """A `str` of Python 2."""
        self.pushed_bytes(length)
        if self.latin1 and isinstance(self.stack[-1], bytes):
            self.stack[-1] = self.stack[-1].decode("latin1")

    def pushed_text(self, length: int) -> None:
        content = self.take(length)
        if length > SHORT:
            self.push(_Long(content, text=True))
        else:
            self.spend(4 * length)
            self.push(str(content, "utf-8"))

    def pushed_line(self, text: bool) -> None:
        """A string of protocol 0: between quotes, or `text` as it is but for escapes."""
        line = self.line()
        self.spend(5 * len(line))
        if text:
            self.push(str(line, "raw-unicode-escape"))
            return
        raw = bytes(line)
        if len(raw) < 2 or raw[:1] not in b"'\"" or raw[-1:] != raw[:1]:
            raise ValueError("a string without quotes")
        found = codecs.escape_decode(raw[1:-1])[0]
        self.push(found.decode("latin1") if self.latin1 and len(found) <= SHORT else found)

    def pushed_long(self, size: int) -> None:
        if size > 16:
            raise DataError(f"holds a number of {size} bytes")
        self.push(self.number(size, signed=True))

    def pushed_int_line(self) -> None:
        text = self.digits()
        self.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text.removesuffix("L")))

    def _bytes(self, content: memoryview) -> bytes:
        self.spend(len(content))
        return bytes(content)

    # Containers

    def mark(self) -> None:
        self.spend(_OBJECT)
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError(f"a tuple of {count} where {len(self.stack)} values are")
        self.spend(_SLOT * count)
        found = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.push(found)

    def tuple_of_marked(self) -> None:
        found = self.marked()
        self.spend(_SLOT * len(found))
        self.push(tuple(found))

    def extend(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is not list:
            raise ValueError(f"it appends to a {type(into).__name__}")
        self.spend(2 * _SLOT * len(items))
        into.extend(items)

    def update(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is not dict or len(items) % 2:
            raise ValueError(f"it sets an item of a {type(into).__name__}")
        self.spend(_ENTRY * (len(items) // 2))
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes, int) or type(key) is int and not -(1 << 63) <= key < 1 << 63:
                raise DataError(f"has a {type(key).__name__} as key, where strings and numbers were expected")
            into[key] = value

    def pushed_list(self) -> None:
        items = self.marked()
        self.push([])
        self.extend(items)

    def pushed_dict(self) -> None:
        items = self.marked()
        self.push({})
        self.update(items)

    # The memo: places are keys of a dict, so that a large one takes no more than a small one

    def put(self, place: int) -> None:
        if not 0 <= place < 1 << 32:
            raise ValueError(f"{place} is no place of its memo")
        self.spend(_ENTRY)
        value = self.memo[place] = self.stack[-1]
        if type(value) is _Empty:
            value.places.append(place)

    def get(self, place: int) -> None:
        self.spend(_SLOT)
        self.stack.append(self.memo[place])

    def again(self) -> None:
        self.spend(_SLOT)
        self.stack.append(self.stack[-1])

    # Words

    def word(self, module: Any, name: Any) -> None:
        found = _WORDS.get((module, name)) if type(module) is type(name) is str else None
        if found is None:
            raise DataError(f"asks for {shown(module, 80)}.{shown(name, 80)}, which no data file needs")
        self.push(found)

    def word_of_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.word(module, name)

    def reduce(self) -> None:
        given, word = self.stack.pop(), self.stack.pop()
        if type(word) is not _Word or type(given) is not tuple:
            raise ValueError("it applies what is no word of an array")
        match (word, *given):
            case (_Word.RECONSTRUCT, _Word.ARRAY, (0,), _):
                self.push(_Empty())
            case (_Word.DTYPE, str() | bytes() as code, *_):
                self.push(_Dtype(_text(code)))
                self.stack[-1].real()
            case (_Word.SCALAR, _Dtype() as dtype, content):
                self.push(self._array(dtype, (), content, False)[()])
            case (_Word.FROMBUFFER, content, _Dtype() as dtype, tuple() as shape, "C" | "F" | b"C" | b"F" as order):
                self.push(self._array(dtype, shape, content, _text(order) == "F"))
            case (_Word.ENCODE, str() | _Long() as text, "latin1" | "latin-1" | b"latin1" | b"latin-1"):
                self.push(self._encoded(text))
            case (_Word.BYTES,):
                self.push(b"")
            case _:
                raise DataError(f"uses {word.value} for something else than numbers or strings, which were expected")

    def build(self) -> None:
        """Fill an array or complete a type; nothing else can be."""
        state, into = self.stack.pop(), self.stack[-1]
        match into, state:
            case _Empty(places), (int(), tuple() as shape, _Dtype() as dtype, int() as fortran, content):
                array = self._array(dtype, shape, content, bool(fortran))
                self.stack[-1] = array
                for place in places:
                    if self.memo[place] is into:
                        self.memo[place] = array
            case _Dtype(), (int(), str() | bytes() as order, None, None, None, *_) if len(order) == 1:
                into.order = _text(order)
                into.real()
            case _:
                raise DataError("holds an array of objects, where numbers or strings were expected")

    def _array(self, dtype: _Dtype, shape: tuple[Any, ...], content: Any, fortran: bool) -> np.ndarray:
        if type(content) is str:
            self.spend(len(content))
            content = content.encode("latin1")
        elif type(content) is _Long and not content.text:
            content = content.content
        elif type(content) is not bytes:
            raise DataError("holds an array of objects, where numbers or strings were expected")
        array = rebuilt(dtype.real(), shape, content, fortran=fortran)
        if array.dtype.isnative:
            return array
        self.spend(array.nbytes)
        return array.astype(array.dtype.newbyteorder("="))

    def _encoded(self, text: str | _Long) -> bytes:
        """latin1 of a text; of a long one piece by piece, so that it is never whole as a string."""
        if isinstance(text, str):
            self.spend(len(text))
            return text.encode("latin1")
        self.spend(2 * len(text.content))
        decoder, found = codecs.getincrementaldecoder("utf-8")(), bytearray()
        for begin in range(0, len(text.content), SHORT):
            found += decoder.decode(text.content[begin : begin + SHORT]).encode("latin1")
        decoder.decode(b"", final=True)
        return bytes(found)

    def _check(self, result: Any) -> None:
        """That only plain data are left, and that lists which share others do not grow without bound when they are walked."""
        todo, left = [(result, 0)], VALUES + len(self.view)
        while todo:
            value, depth = todo.pop()
            kind = type(value)
            if kind in (list, tuple, dict):
                if depth > DEPTH:
                    raise DataError(f"holds lists within lists more than {DEPTH} deep")
                items = value.values() if kind is dict else value
                left -= _OBJECT * (1 + len(items))
                todo += [(item, depth + 1) for item in items if type(item) not in _SMALL] if left >= 0 else []
            elif isinstance(value, _PLAIN):
                left -= len(value) if isinstance(value, str | bytes) else value.nbytes
            elif type(value) is _Long:
                raise DataError(f"holds a string of {len(value.content)} bytes, where at most {SHORT} were expected")
            elif kind not in _SMALL:
                raise DataError(f"holds {_noun(value)}, where data were expected")
            if left < 0:
                raise DataError("holds the same lists within each other so often that they cannot be read")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _noun(value: Any) -> str:
    return f"the name {value.value}" if isinstance(value, _Word) else "half of an array"


def _unpacked(form: str, size: int) -> Callable[[_Machine], None]:
    return lambda m: m.push(struct.unpack(form, m.take(size))[0])


_STOP = ord(".")
_OPCODES: dict[str | int, Callable[[_Machine], Any]] = {
    0x80: lambda m: m.take(1), 0x95: lambda m: m.take(8),  # protocol and frame
    "(": _Machine.mark, "0": lambda m: m.stack.pop() if m.stack else m.marked(), "1": _Machine.marked, "2": _Machine.again,
    "N": lambda m: m.push(None), 0x88: lambda m: m.push(True), 0x89: lambda m: m.push(False),
    "I": _Machine.pushed_int_line, "L": _Machine.pushed_int_line, "F": lambda m: m.push(float(m.digits())),
    "J": _unpacked("<i", 4), "K": lambda m: m.push(m.number(1)), "M": lambda m: m.push(m.number(2)), "G": _unpacked(">d", 8),
    0x8A: lambda m: m.pushed_long(m.number(1)), 0x8B: lambda m: m.pushed_long(m.number(4)),
    "S": lambda m: m.pushed_line(text=False), "V": lambda m: m.pushed_line(text=True),
    "T": lambda m: m.pushed_string(m.number(4)), "U": lambda m: m.pushed_string(m.number(1)),
    "X": lambda m: m.pushed_text(m.number(4)), 0x8C: lambda m: m.pushed_text(m.number(1)),
    0x8D: lambda m: m.pushed_text(m.number(8)),
    "B": lambda m: m.pushed_bytes(m.number(4)), "C": lambda m: m.pushed_bytes(m.number(1)),
    0x8E: lambda m: m.pushed_bytes(m.number(8)), 0x96: lambda m: m.pushed_bytes(m.number(8)),
    "]": lambda m: m.push([]), "l": _Machine.pushed_list, "a": lambda m: m.extend([m.stack.pop()]),
    "e": lambda m: m.extend(m.marked()),
    ")": lambda m: m.push(()), "t": _Machine.tuple_of_marked,
    0x85: lambda m: m.tuple_of(1), 0x86: lambda m: m.tuple_of(2), 0x87: lambda m: m.tuple_of(3),
    "}": lambda m: m.push({}), "d": _Machine.pushed_dict, "s": lambda m: m.update([m.stack.pop(-2), m.stack.pop()]),
    "u": lambda m: m.update(m.marked()),
    "p": lambda m: m.put(int(m.digits())), "q": lambda m: m.put(m.number(1)), "r": lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),
    "g": lambda m: m.get(int(m.digits())), "h": lambda m: m.get(m.number(1)), "j": lambda m: m.get(m.number(4)),
    "c": lambda m: m.word(str(m.line(), "utf-8"), str(m.line(), "utf-8")), 0x93: _Machine.word_of_stack,
    "R": _Machine.reduce, "b": _Machine.build,
}  # fmt: skip
_STEPS = {ord(code) if isinstance(code, str) else code: step for code, step in _OPCODES.items()}
