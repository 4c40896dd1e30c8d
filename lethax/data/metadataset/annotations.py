"""Read the lists of large JSON files, such as those of COCO, item by item: memory holds one item at a time."""

import codecs
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lethax.data.safe import open_file
from lethax.data.tree import Blob
from lethax.errors import DataError
from lethax.text import shown

ITEMS = 10_000_000
ITEM_LETTERS = 1 << 22
_PIECE = 1 << 20
_AHEAD = 3  # letters behind a number that tell whether it goes on: "e+1"
_DECODER = json.JSONDecoder()


def annotations(blob: Blob, name: str, wanted: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (key, item) of every object in the lists of a file {key: [item, ...], ...} whose keys are wanted.

    DataError names the file if it is of another form, or an item is larger than anybody writes.
    """
    try:
        for count, (key, item) in enumerate(_Letters(_pieces(blob)).items()):
            if count >= ITEMS:
                raise ValueError(f"it has more than {ITEMS} items")
            if key in wanted:
                if not isinstance(item, dict):
                    raise ValueError(f"an item of its '{shown(key, 40)}' is no object")
                yield key, item
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(name)} is no list of annotations ({shown(error)}): copy or download it again."
        ) from None


def _pieces(blob: Blob) -> Iterator[bytes]:
    if isinstance(blob, Path):
        with open_file(blob) as file:
            while piece := file.read(_PIECE):
                yield piece
    else:
        yield from (bytes(blob[begin : begin + _PIECE]) for begin in range(0, len(blob), _PIECE))


class _Letters:
    """The text of a file, of which only what is not read yet is held."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._decode = pieces, codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._at = "", 0

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield (key, item) of all lists of the outermost object; values that are no lists are passed over."""
        self._expect("{")
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise ValueError("a key is no string")
            self._expect(":")
            if self._peek() == "[":
                self._at += 1
                while self._peek() != "]":
                    yield key, self._value()
                    if self._peek() == ",":
                        self._at += 1
                self._at += 1
            else:
                self._value()
            if self._peek() == "}":
                return
            self._expect(",")

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._text, self._at = self._text[self._at :] + self._decode(piece), 0
        return True

    def _peek(self) -> str:
        """The next letter that is no space."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                raise ValueError("it ends too early")

    def _expect(self, letter: str) -> None:
        if self._peek() != letter:
            raise ValueError(f"'{self._peek()}' stands where '{letter}' was expected")
        self._at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end + _AHEAD <= len(self._text) or not self._more():
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > ITEM_LETTERS:
                    raise ValueError(f"an item has more than {ITEM_LETTERS} letters") from None
                if not self._more():
                    raise ValueError(error.msg) from None
