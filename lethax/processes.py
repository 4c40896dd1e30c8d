"""Several processes that train one run together, on one machine or on many.

Each computes the same programs, on its own share of a meta-batch. The first one alone reads and writes the run folder, and speaks.
A process that is alone is the first of one, and everything here costs it nothing.
"""

import atexit
import itertools
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # there is no public way to what processes can tell each other
from jax.experimental import multihost_utils

from lethax import progress
from lethax.errors import LethaxError, RecipeError, RunError
from lethax.text import counted, shown
from lethax.trees import is_key

T = TypeVar("T")
COORDINATOR, PROCESSES, PROCESS = "LETHAX_COORDINATOR", "LETHAX_PROCESSES", "LETHAX_PROCESS"
FIND_SECONDS = 300  # in which the processes have to find each other
_WAIT_SECONDS = 3600  # for another process to read its data
_LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")  # the processes of a job step; JAX finds the rest
_numbers = itertools.count()  # of what was said between processes


class Lost(RunError):
    """Another process of the run has ended or cannot be reached."""


def join(asked: bool) -> None:
    """Become one of several processes, if that is asked for or the environment says so. Call it before anything else of JAX runs.

    $LETHAX_COORDINATOR is HOST:PORT of the first process, $LETHAX_PROCESSES their number, $LETHAX_PROCESS the own number from 0.
    Without them JAX asks the launcher. $LETHAX_PROCESSES=1 keeps a process alone. RecipeError for variables that cannot be,
    RunError where the processes do not find each other.
    """
    given = {name: os.environ[name] for name in (COORDINATOR, PROCESSES, PROCESS) if os.environ.get(name)}
    if given.get(PROCESSES) == "1" or not (asked or given or any(os.environ.get(n, "1") != "1" for n in _LAUNCHED)):
        return
    place = _place(given) if given else {}
    if given and not place["process_id"]:
        others = counted(place["num_processes"] - 1, "other process")
        progress.say(f"waiting for {others} at {shown(given[COORDINATOR], 200)}, at most {FIND_SECONDS} seconds")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**place, initialization_timeout=FIND_SECONDS)
    except (RuntimeError, ValueError) as error:
        where = given.get(COORDINATOR, "the address that the launcher gave")
        what = f"set {COORDINATOR}, {PROCESSES} and {PROCESS}" if not given else "check that all run and can reach it"
        raise RunError(
            f"the processes did not find each other at {shown(where, 200)} ({shown(error, 200)}): {what}."
        ) from None
    _name_address()
    progress.console.quiet = not first()


def _place(given: dict[str, str]) -> dict[str, Any]:
    """What `jax.distributed.initialize` takes, from the variables of the environment."""
    missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in given]
    if missing:
        raise RecipeError(
            f"{', '.join(given)} is set, but not {' and '.join(missing)}: several processes need all three."
        )
    if not all(given[name].isdecimal() for name in (PROCESSES, PROCESS)) or not int(given[PROCESS]) < int(
        given[PROCESSES]
    ):
        raise RecipeError(
            f"{PROCESSES} is {shown(given[PROCESSES], 40)} and {PROCESS} is {shown(given[PROCESS], 40)}: the processes of a run "
            "are numbered from 0 to one less than their number."
        )
    host, _, port = given[COORDINATOR].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
        raise RecipeError(
            f"{COORDINATOR} is {shown(given[COORDINATOR], 200)}; it has to be HOST:PORT of the first process, with a port from 1 "
            "to 65535."
        )
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": int(given[PROCESSES]),
        "process_id": int(given[PROCESS]),
        "cluster_detection_method": "deactivate",
    }


def _name_address() -> None:
    """Let Gloo tell the others the address that this machine has on the way to the first process.

    It would tell what the machine's own name stands for, which on many machines is 127.0.1.1, and JAX has no setting for that.
    """
    from jax._src.lib import _jax

    host, _, port = str(distributed.global_state.coordinator_address).rpartition(":")
    family, kind, _, _, there = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)  # which sends nothing
        own = probe.getsockname()[0]
    if make := getattr(_jax, "make_gloo_tcp_collectives", None):
        _jax.make_gloo_tcp_collectives = partial(make, hostname=own)


def count() -> int:
    """The number of processes. To ask JAX of one that is alone would fix its devices."""
    return jax.process_count() if distributed.global_state.client else 1


def first() -> bool:
    """Whether this process is the first one."""
    return count() == 1 or jax.process_index() == 0


@contextmanager
def waiting() -> Iterator[None]:
    """Within, processes wait for each other's results. `Lost` if one of them is lost."""
    try:
        yield
    except RuntimeError as error:  # of JAX, whose error has several names
        if count() == 1 or isinstance(error, LethaxError) or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise Lost(f"one of {counted(count(), 'process')} was lost") from error


@waiting()
def _said(text: str | None, name: str) -> str:
    """Say a text to all processes under a name, or hear what another one says."""
    store: Any = distributed.global_state.client
    if text is None:
        return bytes(store.blocking_key_value_get_bytes(name, _WAIT_SECONDS * 1000)).decode()[1:]
    store.key_value_set_bytes(name, f".{text}".encode())  # no value may be empty
    return text


def told(text: str) -> str:
    """The text of the first process, in all processes."""
    return text if count() == 1 else _said(text if first() else None, f"lethax/{next(_numbers)}")


@contextmanager
def agreed() -> Iterator[None]:
    """Within, an error of one process is one of all of them: no process goes on and waits for one that has failed."""
    if count() == 1:
        yield
        return
    mine: LethaxError | None = None
    try:
        yield
    except LethaxError as error:
        mine = error
    number, me = next(_numbers), jax.process_index()
    said = _said(str(mine or ""), f"lethax/{number}/{me}")
    if first():
        every = [said, *(_said(None, f"lethax/{number}/{i}") for i in range(1, count()))]
        said = next((f"process {i} has ended: {text}" for i, text in enumerate(every) if text), "")
    said = _said(said if first() else None, f"lethax/{number}")
    if mine or said:
        raise mine or RunError(said)


@waiting()
def of_first(tree: T) -> T:
    """The arrays of the first process, in all processes; keys stay keys. All trees have the same shapes."""
    if count() == 1:
        return tree
    heard = multihost_utils.broadcast_one_to_all(jax.tree.map(_plain, tree))
    return jax.tree.map(_as, tree, heard)


def here(tree: T) -> T:
    """The arrays of a tree that every process has whole, in this one alone, so that it can compute with them by itself."""
    return tree if count() == 1 else jax.tree.map(lambda leaf: _as(leaf, _plain(leaf)), tree)


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _as(leaf: Any, array: np.ndarray) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf)) if is_key(leaf) else array


@contextmanager
def bound() -> Iterator[None]:
    """Within, an error ends this process at once: an orderly end would wait for the others, and they for this one."""
    try:
        yield
    except BaseException:
        if count() > 1:
            atexit.register(_leave)
        raise


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
