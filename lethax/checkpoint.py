"""Checkpoints: a safetensors file with an array for each path of a tree, and a JSON header with format and checksum. No pickle."""

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize

from lethax import trees
from lethax.errors import CheckpointError
from lethax.files import open_plain, write_atomic
from lethax.text import shown

T = TypeVar("T")
_log = logging.getLogger("lethax")
FORMAT = 1
HEADER_LIMIT = 1 << 24  # bytes; the header of ten thousand arrays takes about one million
_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "U8": np.uint8,
    "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "F16": np.float16, "BF16": jnp.bfloat16,
    "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def path_of(folder: Path, kind: str, step: int) -> Path:
    """The file of an outer step: its state ("step"), or the meta-parameters of a validation ("best")."""
    return folder / f"{kind}-{step:08d}.safetensors"


def numbered(folder: Path, kind: str) -> dict[int, Path]:
    """The files that `path_of` names, sorted by outer step. Files with other names are ignored."""
    found = {}
    for path in folder.glob(f"{kind}-*.safetensors"):
        number = re.fullmatch(r"[0-9]+", path.stem.removeprefix(f"{kind}-"))
        if number and path == path_of(folder, kind, int(number[0])) and path.is_file():
            found[int(number[0])] = path
    return dict(sorted(found.items()))


def save(path: Path, tree: Any, info: dict[str, Any]) -> None:
    """Write a tree of arrays and an `info` that JSON can hold, atomically."""
    arrays = {name: _stored(name, leaf) for name, leaf in _named(tree).items()}
    text = json.dumps(info)
    header = {"format": str(FORMAT), "info": text, "sha256": _digest(arrays, text)}
    write_atomic(path, _serialize(arrays, header))


def _serialize(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Make a safetensors file whose bytes are a function of its content. The library's own writer shuffles the metadata."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end, parts = 0, []
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):  # so that each is aligned
        array = arrays[name]
        kind = next(kind for kind, dtype in _DTYPES.items() if array.dtype == dtype)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
        parts.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()  # no space that could be another one unnoticed
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def load(path: Path, like: T) -> tuple[T, dict[str, Any]]:
    """Load a tree in the structure of `like`, and its info. CheckpointError names what is damaged, missing, extra or misshapen."""
    arrays, info = _read(path)
    return _restore(path, arrays, like), info


def read_info(path: Path) -> dict[str, Any]:
    """Load the info alone. The whole file is checked all the same."""
    return _read(path)[1]


def is_good(path: Path) -> bool:
    """Whether a checkpoint can be read. The whole file is checked."""
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def newest(folder: Path, like: T, up_to: int | None = None) -> tuple[T, dict[str, Any], Path] | None:
    """The newest good state of a folder; damaged ones are skipped and named in a warning. None where there is no file.

    `up_to` leaves out the states of later steps.

    A good file of another net is an error rather than skipped: an older one would not fit either.
    """
    damaged: list[str] = []
    first: CheckpointError | None = None
    for step, path in reversed(numbered(folder, "step").items()):
        if up_to is not None and step > up_to:
            continue
        try:
            arrays, info = _read(path)
        except CheckpointError as error:
            first = first or error
            damaged.append(path.name)
            continue
        if damaged:
            _log.warning("%s: %s damaged and passed over, %s used", folder, ", ".join(damaged), path.name)
        return _restore(path, arrays, like), info, path
    if first:
        raise CheckpointError(
            f"no checkpoint in {folder} can be read ({', '.join(damaged)}); the newest: {first} Without a "
            "copy, train the run again with --overwrite."
        )
    return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest states, and what interrupted writes left."""
    states = list(numbered(folder, "step").values())
    for path in states[: max(len(states) - keep, 0)]:
        path.unlink()
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their paths, in the order of leaves."""
    found: dict[str, Any] = {}
    for name, leaf in zip(trees.names(tree), jax.tree.leaves(tree), strict=True):
        if name in found:
            raise CheckpointError(f"two arrays have the path {name}; rename the key that contains a slash.")
        found[name] = leaf
    return found


def _stored(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if trees.is_key(leaf) else leaf)
    if not any(array.dtype == dtype for dtype in _DTYPES.values()):
        raise CheckpointError(
            f"{name} is {array.dtype}, which a checkpoint cannot hold; convert it to float32, for example."
        )
    return np.asarray(array, order="C")  # safetensors copies memory as it lies, whatever the strides


def _restore(path: Path, arrays: dict[str, np.ndarray], like: T) -> T:
    wanted = _named(like)
    for name in wanted:
        if name not in arrays:
            raise CheckpointError(f"{path} lacks {name}: it is of another net or method; open it with its own recipe.")
    for name in arrays:
        if name not in wanted:
            raise CheckpointError(
                f"{path} has {name}, which this net or method lacks: it is of another one; open it with its own recipe."
            )
    values = [_fit(f"{path}: {name}", arrays[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _fit(where: str, array: np.ndarray, leaf: Any) -> Any:
    """Convert the array to the kind of `leaf`: a typed key, a NumPy array or a JAX array."""
    kind = jax.random.key_data(leaf) if trees.is_key(leaf) else leaf
    if array.shape == kind.shape and {str(array.dtype), str(kind.dtype)} == {"float32", "float64"}:
        how = "with" if array.dtype == np.float64 else "without"
        raise CheckpointError(f"{where} is {array.dtype}: it was trained {how} JAX_ENABLE_X64=1; go on {how} it.")
    if array.shape != kind.shape or array.dtype != kind.dtype:
        raise CheckpointError(
            f"{where} is {array.dtype}{list(array.shape)}, expected {kind.dtype}{list(kind.shape)}: "
            "it is of another net or method; open it with its own recipe."
        )
    if trees.is_key(leaf):
        return jax.random.wrap_key_data(jnp.array(array), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, np.ndarray | np.generic):
        return array.copy() if isinstance(leaf, np.ndarray) else array[()]
    value = jnp.array(array)
    if value.dtype != array.dtype:
        raise CheckpointError(f"{where} is {array.dtype}, which JAX would round; set JAX_ENABLE_X64=1.")
    return value


def _digest(arrays: dict[str, np.ndarray], info: str) -> str:
    """Of info, paths, dtypes, shapes and bytes. A scalar counts as [1] here; `load` compares shapes anyway."""
    digest = hashlib.sha256(info.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _damaged(path: Path, why: object) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or no checkpoint: {shown(why)}; go on from another one.")


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and the info of a file, and check every byte of it."""
    blob, meta = _split(path)
    try:
        arrays = {name: _array(view) for name, view in deserialize(blob)}
    except (ValueError, KeyError, SafetensorError) as error:
        raise _damaged(path, error) from None
    if _digest(arrays, meta.get("info", "")) != meta.get("sha256"):
        raise _damaged(path, "its checksum differs from what was written")
    try:
        info = json.loads(meta["info"])
    except (ValueError, KeyError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(info, dict):
        raise _damaged(path, f"its info is a {type(info).__name__}, expected an object")
    return arrays, info


def _split(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read a whole file, and the metadata of its header. What is no checkpoint is told by its header: it may be of any size."""
    try:
        with open_plain(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER_LIMIT:
                raise _damaged(path, f"its header claims {length} bytes, expected at most {HEADER_LIMIT}")
            meta, end = _header(path, file.read(length))
            if (size := os.fstat(file.fileno()).st_size) != 8 + length + end:
                raise _damaged(path, f"it has {size} bytes, expected {8 + length + end}")
            file.seek(0)
            return file.read(), meta
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; name a checkpoint that does.") from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; check that it is a file and may be read."
        ) from None


def _header(path: Path, text: bytes) -> tuple[dict[str, Any], int]:
    """The metadata of a header, and the number of bytes of the arrays behind it."""
    text = text.rstrip(b" ")  # padded with spaces, the only bytes that neither parser looks at
    if not text.endswith(b"}"):
        raise _damaged(path, "its header does not end as it was written")
    try:
        header = json.loads(text)
        meta = header.pop("__metadata__", None) or {}
        form = meta.get("format")
        end = int(max((view["data_offsets"][1] for view in header.values()), default=0))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path, error) from None
    if form != str(FORMAT):
        raise CheckpointError(
            f"{path} has checkpoint format {shown(form, 40)}, expected {FORMAT}; open it with the version that wrote it."
        )
    return meta, end


def _array(view: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(view["data"], dtype=_DTYPES[view["dtype"]]).reshape(view["shape"])
