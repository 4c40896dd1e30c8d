"""Checkpoints: one safetensors file, an array a tree path, a JSON header with format number and checksum. No pickle, ever."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from lethax import trees
from lethax.errors import CheckpointError
from lethax.files import write_atomic

T = TypeVar("T")
FORMAT = 1


def step_path(folder: Path, step: int) -> Path:
    """The file of an outer step's state."""
    return folder / f"step-{step:08d}.safetensors"


def save(path: Path, tree: Any, info: dict[str, Any]) -> None:
    """Write a tree of arrays and a JSON-able `info`, atomically."""
    arrays = _named(tree)
    header = {"format": str(FORMAT), "info": json.dumps(info), "sha256": _digest(arrays, json.dumps(info))}
    write_atomic(path, safetensors.numpy.save(arrays, header))


def load(path: Path, like: T) -> tuple[T, dict[str, Any]]:
    """The tree, in the structure of `like`, and its info; CheckpointError names what is damaged, missing, extra or misshapen."""
    arrays, info = _read(path)
    wanted = _named(jax.tree.map(_shape, like))
    for name in wanted:
        if name not in arrays:
            raise CheckpointError(f"{path} lacks {name}: it is of another net or method.")
    for name in arrays:
        if name not in wanted:
            raise CheckpointError(f"{path} has {name}, which this net or method lacks: it is of another one.")
    for name, value in wanted.items():
        found = arrays[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            raise CheckpointError(
                f"{path}: {name} is {found.dtype}{list(found.shape)}, expected {value.dtype}{list(value.shape)}."
            )
    leaves, structure = jax.tree.flatten(like)
    values = [
        jax.random.wrap_key_data(jnp.asarray(arrays[name])) if _is_key(leaf) else jnp.asarray(arrays[name])
        for name, leaf in zip(trees.names(like), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, values), info


def newest(folder: Path, like: T) -> tuple[T, dict[str, Any], Path] | None:
    """The newest good state of a folder; damaged ones are skipped and named in info["damaged"]. None where there is no file."""
    damaged: list[str] = []
    paths = sorted(folder.glob("step-*.safetensors"), reverse=True)
    for path in paths:
        try:
            _read(path)
        except CheckpointError:
            damaged.append(path.name)
            continue
        tree, info = load(path, like)
        return tree, info | ({"damaged": damaged} if damaged else {}), path
    if paths:
        raise CheckpointError(f"every checkpoint in {folder} is damaged: {', '.join(damaged)}.")
    return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest states, and what interrupted writes left."""
    for path in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        path.unlink()
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shape(leaf: Any) -> Any:
    return leaf if _is_key(leaf) else np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _named(tree: Any) -> dict[str, np.ndarray]:
    leaves = [np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]
    return dict(zip(trees.names(tree), leaves, strict=True))


def _digest(arrays: dict[str, np.ndarray], info: str) -> str:
    digest = hashlib.sha256(info.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        blob = path.read_bytes()
        arrays = safetensors.numpy.load(blob)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")]).get("__metadata__", {})
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error}.") from None
    if header.get("format") != str(FORMAT):
        raise CheckpointError(f"{path} has checkpoint format {header.get('format')}; this version reads {FORMAT}.")
    if _digest(arrays, header.get("info", "")) != header.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its checksum differs from what was written.")
    return arrays, json.loads(header["info"])
