"""Read pickles as data, by a small machine that knows the opcodes of plain data. Nothing is called, looked up or set.

A pickle is a program. Python's own machine for it finds classes by name, calls them and fills their attributes, so even a short
list of admitted classes is a way to memory that is not the file's. Here names such as `numpy.dtype` are words without any object
behind them, arrays are built by `arrays.rebuilt`, and what memory the values take is counted before they are made.
"""

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lethax.data.arrays import element, rebuilt
from lethax.data.machine import OBJECT, SHORT, SLOT, VALUES, Long, Machine
from lethax.data.safe import mapped
from lethax.errors import DataError
from lethax.text import counted, shown

DEPTH = 32  # lists within lists
SCALAR = 1 << 16  # bytes of one number or string of NumPy
ARRAY = 12 * OBJECT  # bytes counted for an array beside its content, without its shape


def load_pickle(source: bytes | bytearray | Path, name: str, encoding: str = "bytes", values: int = VALUES) -> Any:
    """Read the plain data of a pickle: dicts, lists, tuples, strings, numbers, and NumPy's arrays and scalars, read-only.

    `encoding`: what Python 2's strings become, "bytes" or "latin1". A file is mapped, and its arrays stay in it. DataError says
    what was found where something else than data was asked for, or more memory than `values` bytes.
    """
    data = mapped(source) if isinstance(source, Path) else source
    try:
        return Pickle(data, encoding == "latin1", values).run()
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
class _Dtype:
    code: str
    order: str = ""

    def real(self) -> np.dtype:
        return element(self.order + self.code)


@dataclass(slots=True, eq=False)
class _Empty:
    """An array that is not filled yet, and the places of the memo to put it when it is."""

    places: set[int] = field(default_factory=set)


class Pickle(Machine):
    """The machine with the words of arrays. `words`: what stands for each name that a pickle may ask for."""

    words: ClassVar[Mapping[tuple[str, str], Enum]] = _WORDS

    def run(self) -> Any:
        """Read the pickle at `at`, and go to its end. Where a file holds several, each begins with an empty stack and memo."""
        self.stack, self.below, self.memo = [], [], []
        while (code := self.data[self.at]) != _STOP:
            self.at += 1
            step = _STEPS.get(code)
            if step is None:
                raise _strange(code)
            step(self)
        self.at += 1
        result = self.stack.pop()
        self._check(result)
        return result

    def put(self, place: int) -> None:
        super().put(place)
        if type(self.stack[-1]) is _Empty:
            self.stack[-1].places.add(place)

    def word(self, module: Any, name: Any) -> None:
        asked = [shown(part, 80) if isinstance(part, str) else type(part).__name__ for part in (module, name)]
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in self.words:
            raise DataError(f"asks for {'.'.join(asked)}, which no data file needs")
        self.push(self.words[module, name])

    def word_of_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.word(module, name)

    def reduce(self) -> None:
        given, word = self.stack.pop(), self.stack.pop()
        if type(word) is not _Word or type(given) is not tuple:
            raise ValueError("it applies what is no word of an array")
        if len(given) > 6:  # before they are copied
            raise DataError(f"uses {word.value} with {counted(len(given), 'value')}, where at most 6 were expected")
        match (word, *given):
            case (_Word.RECONSTRUCT, _Word.ARRAY, (0,), _):
                self.push(_Empty())
            case (_Word.DTYPE, str() | bytes() as code, *_):
                self.push(_Dtype(_text(code)))
                self.stack[-1].real()
            case (_Word.SCALAR, _Dtype() as dtype, content):
                if (size := dtype.real().itemsize) > SCALAR:
                    raise DataError(f"holds a string of {size} bytes, where at most {SCALAR} were expected")
                self.push(self._array(dtype, (), content)[()])
            case (_Word.FROMBUFFER, content, _Dtype() as dtype, tuple() as shape, "C" | "F" | b"C" | b"F" as order):
                self.push(self._array(dtype, shape, content, _text(order) == "F"))
            case (_Word.FROMBUFFER, content, _Dtype() as dtype, tuple() as shape, "K" | b"K", tuple() as axes):
                self.push(self._array(dtype, shape, content, axes=axes))
            case (_Word.ENCODE, str() | Long() as text, "latin1" | "latin-1" | b"latin1" | b"latin-1"):
                self.push(self._encoded(text))
            case (_Word.BYTES,):
                self.push(b"")
            case _:
                raise DataError(f"uses {word.value} for something else than numbers or strings, which were expected")

    def build(self) -> None:
        """Fill an array or complete a type. Nothing else can be built."""
        state, into = self.stack.pop(), self.stack[-1]
        match into, state:
            case _Empty(places), (int(), tuple() as shape, _Dtype() as dtype, int() as fortran, content):
                array = self._array(dtype, shape, content, bool(fortran))
                self.stack[-1] = array
                for place in places:
                    if self.memo[place] is into:
                        self.memo[place] = array
                places.clear()
            case _Dtype(), (int(), str() | bytes() as order, None, None, None, *_) if len(order) == 1:
                into.order = _text(order)
                into.real()
            case _:
                raise DataError("holds an array of objects, where numbers or strings were expected")

    def persistent(self) -> None:
        """Push what a name outside of the pickle stands for. Plain data have none."""
        raise _strange(ord("Q"))

    def _array(
        self, dtype: _Dtype, shape: tuple[Any, ...], content: Any, fortran: bool = False, axes: tuple[Any, ...] = ()
    ) -> np.ndarray:
        """Make a read-only array. `axes` is the order that NumPy's `transpose` gives its axes afterwards."""
        real = dtype.real()
        self.spend(ARRAY + SLOT * 8 * len(shape) + real.itemsize)  # NumPy takes one element also for an empty array
        if type(content) is str:
            self.spend(len(content))
            content = content.encode("latin1")
        elif type(content) is Long and not content.text:
            content = content.content
        elif type(content) is not bytes:
            raise DataError("holds an array of objects, where numbers or strings were expected")
        self.toil(len(content))  # its values are looked at, in every array over the same content
        array = rebuilt(real, shape, content, fortran=fortran)
        if not array.dtype.isnative:
            self.spend(array.nbytes)
            array = array.astype(array.dtype.newbyteorder("="))
        if axes:
            if len(axes) != len(shape) or not all(type(axis) is int and 0 <= axis < len(shape) for axis in axes):
                raise ValueError("an order of axes that its array does not have")
            array = array.transpose(axes)
        array.flags.writeable = False
        return array

    def _encoded(self, text: str | Long) -> bytes:
        """Encode a text as latin1. A long text is encoded piece by piece, so that it is never a whole string in memory."""
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
        open_, lists, content = [iter((result,))], self.values, self.values + self.length
        while open_:
            for value in open_[-1]:
                holds = isinstance(value, list | tuple | dict)
                size = self._size(value)
                lists, content = (lists - size, content) if holds else (lists, content - size)
                if lists < 0 or content < 0:
                    raise DataError("holds the same lists within each other so often that they cannot be read")
                if holds:
                    open_.append(iter(value.values() if isinstance(value, dict) else value))
                    break
            else:
                open_.pop()
            if len(open_) > DEPTH:
                raise DataError(f"holds lists within lists more than {DEPTH} deep")

    def _size(self, value: Any) -> int:
        """The bytes that a value takes in its place. DataError for what is not plain data."""
        if isinstance(value, list | tuple | dict):
            return OBJECT * (1 + len(value))
        if isinstance(value, np.ndarray | np.generic):
            return int(value.nbytes)
        if isinstance(value, str | bytes | Long):
            if (length := len(value)) > SHORT:
                raise DataError(f"holds a string of {length} bytes, where at most {SHORT} were expected")
            return length
        if value is not None and not isinstance(value, int | float):
            raise DataError("holds a name or a part of an array, where data were expected")
        return 0


def _strange(code: int) -> DataError:
    return DataError(f"has the opcode {bytes([code])!r}, which no data file needs")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _unpacked(form: str, size: int) -> Callable[[Pickle], None]:
    return lambda m: m.push(struct.unpack(form, m.take(size))[0])


_STOP = ord(".")
_OPCODES: dict[str | int, Callable[[Pickle], Any]] = {
    0x80: lambda m: m.take(1), 0x95: lambda m: m.take(8),  # protocol and frame
    "(": Pickle.mark, "0": lambda m: m.stack.pop() if m.stack else m.marked(), "1": Pickle.marked, "2": Pickle.again,
    "N": lambda m: m.push(None), 0x88: lambda m: m.push(True), 0x89: lambda m: m.push(False),
    "I": Pickle.pushed_int_line, "L": Pickle.pushed_int_line, "F": lambda m: m.push(float(m.digits())),
    "J": _unpacked("<i", 4), "K": lambda m: m.push(m.number(1)), "M": lambda m: m.push(m.number(2)), "G": _unpacked(">d", 8),
    0x8A: lambda m: m.pushed_long(m.number(1)), 0x8B: lambda m: m.pushed_long(m.number(4)),
    "S": lambda m: m.pushed_line(text=False), "V": lambda m: m.pushed_line(text=True),
    "T": lambda m: m.pushed_string(m.number(4)), "U": lambda m: m.pushed_string(m.number(1)),
    "X": lambda m: m.pushed_text(m.number(4)), 0x8C: lambda m: m.pushed_text(m.number(1)),
    0x8D: lambda m: m.pushed_text(m.number(8)),
    "B": lambda m: m.pushed_bytes(m.number(4)), "C": lambda m: m.pushed_bytes(m.number(1)),
    0x8E: lambda m: m.pushed_bytes(m.number(8)), 0x96: lambda m: m.pushed_bytes(m.number(8)),
    "]": lambda m: m.push([]), "l": Pickle.pushed_list, "a": lambda m: m.extend([m.stack.pop()]),
    "e": lambda m: m.extend(m.marked()),
    ")": lambda m: m.push(()), "t": Pickle.tuple_of_marked,
    0x85: lambda m: m.tuple_of(1), 0x86: lambda m: m.tuple_of(2), 0x87: lambda m: m.tuple_of(3),
    "}": lambda m: m.push({}), "d": Pickle.pushed_dict, "s": lambda m: m.update([m.stack.pop(-2), m.stack.pop()]),
    "u": lambda m: m.update(m.marked()),
    "p": lambda m: m.put(int(m.digits())), "q": lambda m: m.put(m.number(1)), "r": lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),
    "g": lambda m: m.get(int(m.digits())), "h": lambda m: m.get(m.number(1)), "j": lambda m: m.get(m.number(4)),
    "c": lambda m: m.word(m.short_line(), m.short_line()), 0x93: Pickle.word_of_stack,
    "R": lambda m: m.reduce(), "b": lambda m: m.build(), "Q": lambda m: m.persistent(),
}  # fmt: skip
_STEPS = {ord(code) if isinstance(code, str) else code: step for code, step in _OPCODES.items()}
