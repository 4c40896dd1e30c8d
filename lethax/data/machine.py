"""The machine below `pickles`: a stack and a memo of values, each of which is counted before it is made."""

import codecs
import mmap
from dataclasses import dataclass
from typing import Any

from lethax.errors import DataError
from lethax.text import counted

VALUES = 1 << 30  # bytes that the values of a pickle may take beside its file
SHORT = 1 << 20  # bytes of the longest string; what is longer can only be the content of an array
FILE = 1 << 35  # bytes of a file that count: one full of holes may seem to have any number
SLOT, OBJECT, ENTRY = 8, 64, 128  # bytes counted for a place in a list, a small object, a pair in a dict


_NOTHING = object()


@dataclass(slots=True, eq=False)
class Long:
    """A string longer than SHORT, as its bytes in the file."""

    content: memoryview
    text: bool  # UTF-8, of which `_codecs.encode` makes bytes

    def __len__(self) -> int:
        return len(self.content)


class Machine:
    """The stack, the marks and the memo of a pickle's program, and its bytes. It makes only plain data and `Long`."""

    def __init__(self, data: bytes | bytearray | mmap.mmap, latin1: bool, values: int) -> None:
        self.data, self.view, self.latin1 = data, memoryview(data).toreadonly(), latin1
        self.length = min(len(self.view), FILE)
        self.at, self.left, self.values, self.work = 0, values, values, values + self.length
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the open marks
        self.memo: list[Any] = []

    # Reading

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise DataError(f"holds values that take more than {self.values >> 20} MiB of memory")

    def toil(self, count: int) -> None:
        """Count the bytes that are looked at, because a short file may point to the same bytes again and again."""
        self.work -= count
        if self.work < 0:
            raise DataError("uses the same values so often that they cannot be read")

    def take(self, count: int) -> memoryview:
        begin, self.at = self.at, self.at + count
        if self.at > len(self.view):
            raise ValueError(f"it ends within a value of {counted(count, 'byte')}")
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

    def short_line(self) -> str:
        found = self.line()
        if len(found) > 200:
            raise ValueError(f"a name of {counted(len(found), 'byte')}")
        return str(found, "utf-8")

    def digits(self) -> str:
        found = self.line()
        if len(found) > 40:
            raise DataError(f"holds a number of {counted(len(found), 'digit')}")
        return str(found, "ascii")

    # Values

    def push(self, value: Any) -> None:
        self.spend(OBJECT)
        self.stack.append(value)

    def pushed_bytes(self, length: int) -> None:
        content = self.take(length)
        self.push(Long(content, text=False) if length > SHORT else self._bytes(content))

    def pushed_string(self, length: int) -> None:
        """Push a `str` of Python 2."""
        self.pushed_bytes(length)
        if self.latin1 and isinstance(self.stack[-1], bytes):
            self.stack[-1] = self.stack[-1].decode("latin1")

    def pushed_text(self, length: int) -> None:
        content = self.take(length)
        if length > SHORT:
            self.push(Long(content, text=True))
        else:
            self.spend(4 * length)
            self.push(str(content, "utf-8"))

    def pushed_line(self, text: bool) -> None:
        """Push a string of protocol 0: one in quotes, or a `text` with escapes."""
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
            raise DataError(f"holds a number of {counted(size, 'byte')}")
        self.push(self.number(size, signed=True))

    def pushed_int_line(self) -> None:
        text = self.digits()
        self.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text.removesuffix("L")))

    def _bytes(self, content: memoryview) -> bytes:
        self.spend(len(content))
        return bytes(content)

    # Containers

    def mark(self) -> None:
        self.spend(OBJECT)
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError(f"a tuple of {count} where the stack holds {counted(len(self.stack), 'value')}")
        self.spend(SLOT * count)
        found = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.push(found)

    def tuple_of_marked(self) -> None:
        found = self.marked()
        self.spend(SLOT * len(found))
        self.push(tuple(found))

    def extend(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is not list:
            raise ValueError(f"it appends to a {type(into).__name__}")
        self.spend(2 * SLOT * len(items))
        into.extend(items)

    def update(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if type(into) is not dict or len(items) % 2:
            raise ValueError(f"it sets an item of a {type(into).__name__}")
        self.spend(ENTRY * (len(items) // 2))
        pairs = iter(items)
        for key, value in zip(pairs, pairs, strict=True):
            if type(key) not in (str, bytes, int) or type(key) is int and not -(1 << 63) <= key < 1 << 63:
                raise DataError(f"has a {type(key).__name__} as key, where strings and numbers were expected")
            if type(key) is int:  # whoever chooses numbers can make each collide with all before
                self.toil(SLOT * len(into))
            into[key] = value

    def pushed_list(self) -> None:
        items = self.marked()
        self.push([])
        self.extend(items)

    def pushed_dict(self) -> None:
        items = self.marked()
        self.push({})
        self.update(items)

    # The memo: picklers number its places one after the other; what a gap takes is counted

    def put(self, place: int) -> None:
        if not 0 <= place < 1 << 32:
            raise ValueError(f"{place} is no place of its memo")
        gap = max(0, place + 1 - len(self.memo))
        self.spend(2 * SLOT * gap + SLOT)
        self.memo.extend([_NOTHING] * gap)
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        self.spend(SLOT)
        if place < 0 or self.memo[place] is _NOTHING:
            raise ValueError(f"nothing is in the place {place} of its memo")
        self.stack.append(self.memo[place])

    def again(self) -> None:
        self.spend(SLOT)
        self.stack.append(self.stack[-1])
