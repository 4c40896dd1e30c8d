"""The devices of a run, and how work is divided among tasks and devices. With several processes they are those of all."""

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lethax import hardware, processes
from lethax.errors import RecipeError
from lethax.text import shown

_log = logging.getLogger("lethax")
# Trees of arrays.
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
TaskLoop = Literal["vmap", "unroll", "scan"]
_compiled: set[Any] = set()  # programs with the shapes of their arguments; JAX does not say what it has compiled


def use_all_cores() -> None:
    """Give JAX a host device for each core of this process, and a cache of compiled programs. Call it before anything of JAX runs.

    If the cache cannot be written, a warning says so, and programs are compiled anew. Products of float32 are of float32 also on
    GPUs, where JAX's own default is TF32, unless JAX_DEFAULT_MATMUL_PRECISION says something else.
    """
    if jax.config.jax_default_matmul_precision is None:  # type: ignore[attr-defined]  # made when JAX starts
        jax.config.update("jax_default_matmul_precision", "float32")
    try:
        jax.config.update("jax_num_cpu_devices", hardware.cores())
    except RuntimeError:
        pass  # JAX already runs: it keeps the devices it has
    cache = hardware.cache_folder() / "programs"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        why = f"{shown(cache)} cannot be written ({error.strerror})"
        _log.warning("%s: programs are compiled anew at every start; $LETHAX_CACHE names another folder.", why)
        return
    # A disk that fills up later costs the cache alone: not worth JAX's warning for every program.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def call(program: Any, *arguments: Any) -> Any:
    """Call a function made by `jax.jit`. It is compiled before its first call with arguments of these shapes.

    XLA's compiler leaves some hundred MiB freed, but in the hands of the C library. Given back before the program asks for its own
    memory, they do not count in the peak of the process.
    """
    key = (program, *[getattr(leaf, "shape", leaf) for leaf in jax.tree.leaves(arguments)])
    if key not in _compiled:
        program.lower(*arguments).compile()
        hardware.give_back()
        _compiled.add(key)
    return program(*arguments)


def use_cpu() -> None:
    """Compute on the CPU alone: JAX would take most of a GPU's memory, which others need. Call it before anything of JAX runs."""
    jax.config.update("jax_platforms", "cpu")


def over_tasks(function: Callable[[A], B], items: A, how: TaskLoop) -> B:
    """`function` of every item along the leading axis: a `vmap`, a loop in the program ("scan"), or written out ("unroll")."""
    if how == "vmap":
        return jax.vmap(function)(items)
    if how == "scan":
        return jax.lax.map(function, items)
    count = jax.tree.leaves(items)[0].shape[0]
    once = jax.jit(function, inline=True)  # traced once, and written into the program for each item
    results = [once(jax.tree.map(lambda leaf, i=i: leaf[i], items)) for i in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def over_chunks(function: Callable[[A], tuple[B, C]], items: A, size: int, zero: C) -> tuple[B, C]:
    """(a, Σ b) of `function(chunk) = (a, b)` over chunks of the leading axis, one after another: the a's in a row, the b's added.

    A chunk is the largest divisor of the number of items that is at most `size`; 0 takes all items at once. zero: the b of nothing.
    """
    count = jax.tree.leaves(items)[0].shape[0]
    size = max(n for n in range(1, (size or count) + 1) if count % n == 0)
    if size == count:
        return function(items)

    def body(total: C, chunk: A) -> tuple[C, B]:
        kept, more = function(chunk)
        return jax.tree.map(jnp.add, total, more), kept

    chunks = jax.tree.map(lambda leaf: leaf.reshape(count // size, size, *leaf.shape[1:]), items)
    total, kept = jax.lax.scan(body, zero, chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), kept), total


def in_calls(function: Callable[[np.ndarray], Any], rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield `function` of so many rows a call, part by part. The last call is filled up with zeros.

    One program then serves all, and what is made of a row does not depend on how many there are.
    """
    for first in range(0, len(rows), size):
        part = np.asarray(rows[first : first + size])
        filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
        yield np.asarray(function(filled))[: len(part)]


def each_has() -> int:
    """The number of devices that every process has at least."""
    return min(Counter(device.process_index for device in jax.devices()).values())


def devices_for(count: int, each: int | None = None) -> int:
    """The largest number of devices that can share `count` equal pieces of work evenly: as many of every process, at most `each`.

    RecipeError where the pieces are no multiple of the processes.
    """
    of_all = processes.count()
    if count % of_all:
        raise RecipeError(
            f"{count} episodes cannot be divided among {of_all} processes: take a --batch that is a multiple of {of_all}."
        )
    return max(of_all * own for own in range(1, (each or each_has()) + 1) if count % (of_all * own) == 0)


@cache
def _mesh(devices: int) -> Mesh:
    """The first devices of every process, in the order of processes."""
    own = devices // processes.count()
    chosen = [[d for d in jax.devices() if d.process_index == p][:own] for p in range(processes.count())]
    return Mesh(np.array(sum(chosen, [])), ("task",))


@cache
def _placing(where: NamedSharding) -> Callable[[Any], Any]:
    """A program that places a tree which every process has whole. `device_put` would compare what they have, array by array."""
    return jax.jit(lambda tree: tree, out_shardings=where)


def _placed(tree: A, where: NamedSharding) -> A:
    return jax.device_put(tree, where) if processes.count() == 1 else _placing(where)(tree)


def everywhere(tree: A, devices: int, place: Callable[[Any, Any], Any] = _placed) -> A:
    """Copy the tree to each device. A state that is placed otherwise would compile the step a second time."""
    return tree if devices == 1 else place(tree, NamedSharding(_mesh(devices), P()))


def divided(tree: A, devices: int) -> A:
    """Divide the leading axis of every array among the devices, as `over_devices` does."""
    return tree if devices == 1 else _placed(tree, NamedSharding(_mesh(devices), P("task")))


def over_devices(function: Callable[[A, B], C], devices: int) -> Callable[[A, B], C]:
    """`function(replicated, per_task)` with the tasks' leading axis divided among devices; results keep that axis."""
    if devices == 1:
        return function
    return jax.shard_map(function, mesh=_mesh(devices), in_specs=(P(), P("task")), out_specs=P("task"), check_vma=False)


def part(tree: A, i: int) -> A:
    """Take entry i of every array.

    Arrays that are divided among devices are gathered first: to index them would be a collective program for each, and many of
    those at once can wait for each other without end on a CPU.
    """
    here = jax.devices()[0]
    return jax.tree.map(lambda x: (x if isinstance(x, np.ndarray) else jax.device_put(x, here))[i], tree)
