"""Pickles put together by hand, opcode by opcode, and files of tensors as PyTorch wrote them until 2020."""

import pickle
import struct

import numpy as np


def line(*names: str) -> bytes:
    return b"c" + b"".join(name.encode() + b"\n" for name in names)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HEAD = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
DICT, TENSOR = line("collections", "OrderedDict"), line("torch._utils", "_rebuild_tensor_v2")


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def several(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(
    key: str, array: np.ndarray, offset: int = 0, strides: tuple[int, ...] | None = None, count: int | None = None
) -> bytes:
    """Opcodes of one tensor, as PyTorch writes them."""
    kind = line("torch", "LongStorage" if array.dtype == np.int64 else "FloatStorage")
    storage = (
        b"("
        + text("storage")
        + kind
        + text(key)
        + text("cpu")
        + integer(array.size if count is None else count)
        + b"NtQ"
    )
    steps = tuple(step // array.itemsize for step in array.strides) if strides is None else strides
    return TENSOR + b"(" + storage + integer(offset) + several(array.shape) + several(steps) + b"\x89" + DICT + b")RtR"


def torch_file(tensors: dict[str, np.ndarray], state: bytes | None = None, keys: list[str] | None = None) -> bytes:
    """A file as `torch.save` wrote it; `state` in place of the pickle of its tensors."""
    if state is None:
        state = DICT + b")R(" + b"".join(text(name) + tensor(name, array) for name, array in tensors.items()) + b"u"
        state += b"}" + text("_metadata") + DICT + b")R" + text("") + b"}" + text("version") + b"K\x01sssb."
    names = list(tensors) if keys is None else keys
    content = b"".join(struct.pack("<q", tensors[n].size) + tensors[n].tobytes("A") for n in names if n in tensors)
    return HEAD + b"\x80\x02" + state + pickle.dumps(names, 2) + content
