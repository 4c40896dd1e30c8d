"""Read the tensors of a PyTorch file as data, in the form that `torch.save` wrote until 2020. Nothing in it is run.

    pickle of a magic number, of the version, of the machine; the state; the names of the storages; the storages

The state is a dict of tensors. Each names its storage by a persistent id, and its place there by an offset, a size and strides. A
storage is its number of entries, as 8 bytes, and the entries themselves.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lethax.data.arrays import element, rebuilt
from lethax.data.machine import OBJECT
from lethax.data.pickles import Pickle
from lethax.data.safe import mapped
from lethax.errors import DataError
from lethax.text import shown

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_VALUES = 1 << 26  # bytes that the values of the pickles may take; the tensors stay in the file
_TENSORS, _AXES = 100_000, 8


class _Torch(Enum):
    """The names that a pickle of tensors uses; of storages, the type of their entries."""

    DICT = "OrderedDict"
    TENSOR = "_rebuild_tensor_v2"
    FLOAT = "<f4"
    LONG = "<i8"


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage by its name in the file, with the type and the number of its entries."""

    key: str
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor whose storage is not read yet: its first entry there, its shape and its strides in entries."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, flat: np.ndarray) -> np.ndarray:
        """The tensor in the entries of its storage. ValueError unless it lies within, and no entry is in two places."""
        axes = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])
        step = 1
        for axis in reversed(axes):
            if self.shape[axis] != 1 and self.strides[axis] != step:
                raise ValueError(f"a tensor of strides {list(self.strides)}, which leave gaps or overlap")
            step *= self.shape[axis]
        if self.offset + step > len(flat):
            raise ValueError(f"a tensor that ends at entry {self.offset + step} of {len(flat)}")
        packed = flat[self.offset : self.offset + step].reshape([self.shape[axis] for axis in axes])
        return packed.transpose(np.argsort(axes)) if axes else packed


class _Tensors(Pickle):
    """The machine with the words of tensors in place of those of NumPy."""

    words: ClassVar[Mapping[tuple[str, str], Enum]] = {
        ("collections", "OrderedDict"): _Torch.DICT, ("torch._utils", "_rebuild_tensor_v2"): _Torch.TENSOR,
        ("torch", "FloatStorage"): _Torch.FLOAT, ("torch", "LongStorage"): _Torch.LONG,
    }  # fmt: skip

    def persistent(self) -> None:
        match self.stack.pop():
            case ("storage", _Torch.FLOAT | _Torch.LONG as kind, str() as key, str(), int() as count, None) if (
                count >= 0
            ):
                self.push(_Storage(key, kind.value, count))
            case _:
                raise DataError("names a storage that is none of float32 or int64")

    def reduce(self) -> None:
        given, word = self.stack.pop(), self.stack.pop()
        match word, given:
            case _Torch.DICT, ():
                self.push({})
            case _Torch.TENSOR, (
                _Storage() as storage,
                int() as offset,
                tuple() as shape,
                tuple() as strides,
                _,
                dict(),
            ):
                if not len(shape) == len(strides) <= _AXES or not _natural((offset, *shape, *strides)):
                    raise DataError("holds a tensor of a shape or strides which none can have")
                self.push(_Tensor(storage, offset, shape, strides))
            case _:
                raise DataError("applies a name to something else than the parts of a tensor")

    def build(self) -> None:
        """Pass over what is set on the dict of tensors, which is the version of each module."""
        state, into = self.stack.pop(), self.stack[-1]
        if type(into) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise DataError("sets something else than the versions of modules")

    def _size(self, value: Any) -> int:
        return OBJECT if type(value) is _Tensor else super()._size(value)

    def storage(self, count: int, code: str) -> np.ndarray:
        """Read the storage at `at`, whose entries stay in the file. ValueError unless it has `count` of them."""
        if (found := self.number(8)) != count:
            raise ValueError(f"a storage of {found} entries where {count} were announced")
        kind = element(code)
        return rebuilt(kind, (count,), self.take(count * kind.itemsize))


def _natural(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 40 for value in values)


def read_tensors(source: bytes | Path, name: str) -> dict[str, np.ndarray]:
    """Read a flat dict of tensors of float32 or int64, as read-only arrays that stay in the file. DataError for anything else."""
    data = mapped(source) if isinstance(source, Path) else source
    try:
        return _read(data)
    except (DataError, IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{shown(name)} is no file of tensors as PyTorch wrote them ({shown(error)}): install it again."
        ) from None


def _read(data: bytes | mmap.mmap) -> dict[str, np.ndarray]:
    machine = _Tensors(data, False, _VALUES)
    found = [machine.run() for _ in range(2)]
    if found != [_MAGIC, _VERSION]:
        raise ValueError("it does not begin with the mark of such a file")
    about, state, keys = machine.run(), machine.run(), machine.run()
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("it is of a machine with another order of bytes")
    if not isinstance(state, dict) or len(state) > _TENSORS or not all(type(t) is _Tensor for t in state.values()):
        raise ValueError("it holds something else than a dict of tensors")
    wanted = {tensor.storage.key: tensor.storage for tensor in state.values()}
    if not isinstance(keys, list) or len(keys) != len(wanted) or set(keys) != set(wanted):
        raise ValueError("its list of storages is not that of its tensors")
    storages = {key: machine.storage(wanted[key].count, wanted[key].code) for key in keys}
    if machine.at != machine.length:
        raise ValueError(f"{machine.length - machine.at} bytes follow its last storage")
    return {str(name): tensor.of(storages[tensor.storage.key]) for name, tensor in state.items()}
