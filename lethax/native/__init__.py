"""Native kernels: convolutions on CPUs in C++, which the machine's own compiler builds once and keeps beside compiled programs.

Where there is no compiler, or $LETHAX_NATIVE is 0, XLA computes the convolutions: slower, and the same to rounding.
"""

import ctypes
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lethax import hardware
from lethax.errors import EnvironmentFault, RunError
from lethax.files import write_atomic
from lethax.text import shown

_log = logging.getLogger("lethax")
_SOURCE = Path(__file__).with_name("convolution.cc")
_OPTIONS = ("-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-w")
_HANDLERS = ("conv", "correlation")
_SECONDS = 300  # that a compiler may take; it takes about four
_DIGEST = hashlib.sha256().digest_size
_VECTOR = 16  # outputs have to be a multiple of it, which is the longest vector of any processor

_off = ContextVar("off", default=False)


@contextmanager
def off() -> Iterator[None]:
    """Within it, functions are traced without native kernels, so that programs which read what JAX made of them know all of it."""
    token = _off.set(True)
    jax.clear_caches()  # of functions that were traced with them
    try:
        yield
    finally:
        _off.reset(token)
        jax.clear_caches()


def wanted() -> bool:
    """Whether there are to be kernels: on Linux, unless $LETHAX_NATIVE is 0."""
    return sys.platform.startswith("linux") and os.environ.get("LETHAX_NATIVE") != "0"


def allowed() -> bool:
    """Whether functions that are traced now may call native kernels."""
    return not _off.get()


def called_by(lowered: Any) -> bool:
    """Whether a lowered function calls native kernels, whose operations XLA does not count."""
    return any(f"lethax_{name}_" in lowered.as_text() for name in _HANDLERS)


def fits(given: Sequence[Any], made: Sequence[Any]) -> bool:
    """Whether kernels take arrays of these types and make these: of float32, none of them empty, and results of whole vectors."""
    taken = all(of.dtype == np.float32 and of.ndim == 4 and of.size for of in (*given, *made))
    return taken and made[0].shape[-1] % _VECTOR == 0


def state() -> str:
    """What the kernels are here, for the record: "declined", "built", "none" without a compiler, or "to be built"."""
    if not wanted():
        return "declined"
    return "built" if _whole(_place()) else "to be built" if hardware.compiler() else "none"


def target(handler: str) -> str | None:
    """The name by which XLA calls the kernel "conv" or "correlation", which is built now if it was not; None if it cannot be."""
    build_of = _registered() if wanted() else None
    return None if build_of is None else f"lethax_{handler}_{build_of}"


@cache
def _registered() -> str | None:
    """Build the kernels or say why not, once in a process: a compiler that fails takes as long every time."""
    place = _place()
    try:
        return register(place if _whole(place) else build(place))
    except EnvironmentFault as fault:
        _log.warning(
            "Training on images takes longer here, because the native kernels are missing: %s. "
            "The results are the same to rounding. To leave this message out, set LETHAX_NATIVE=0.",
            fault,
        )
        return None


@cache
def register(path: Path) -> str:
    """Make a build known to XLA. Returns what tells it from other builds, since programs that call it are kept.

    EnvironmentFault if it cannot be loaded; it is deleted then.
    """
    try:
        library = ctypes.CDLL(str(path))
        handlers = {name: getattr(library, f"lethax_{name}") for name in _HANDLERS}
    except (OSError, AttributeError) as error:
        path.unlink(missing_ok=True)
        raise EnvironmentFault(f"what the compiler made cannot be loaded ({error})") from None
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(f"lethax_{name}_{path.stem}", jax.ffi.pycapsule(handler), platform="cpu")
    return path.stem


def build(place: Path, *options: str) -> Path:
    """Compile the kernels to a file, with more options of the compiler, and add the file's SHA-256 at its end.

    EnvironmentFault if that fails.
    """
    compiler = hardware.compiler()
    if compiler is None:
        raise EnvironmentFault("no C++ compiler was found; install one, such as g++")
    content = _compiled(compiler, *options)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, content + hashlib.sha256(content).digest())
    except (OSError, RunError) as error:
        raise EnvironmentFault(f"{shown(place)} cannot be written ({error})") from None
    return place


def _compiled(compiler: str, *options: str) -> bytes:
    """The library as the compiler makes it."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "native.so"
            command = [compiler, *_OPTIONS, *options, f"-I{jax.ffi.include_dir()}", str(_SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
            if done.returncode == 0:
                return made.read_bytes()
    except OSError as error:
        raise EnvironmentFault(f"the compiler {compiler} made nothing ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"the compiler {compiler} did not end within {_SECONDS} seconds") from None
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    said = next((line for line in lines if "error" in line), lines[0])
    raise EnvironmentFault(f"the compiler {compiler} cannot build them ({shown(said, 200)})")


def _whole(place: Path) -> bool:
    """Whether there is a build with the SHA-256 that it was written with: to load a damaged one can end the process."""
    try:
        content = place.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def _place() -> Path:
    """A build is of one source, JAX and processor: machines of several kinds may share the folder."""
    of = [_SOURCE.read_text(encoding="utf-8"), *_OPTIONS, jax.__version__, hardware.instructions()]
    name = hashlib.sha256("\n".join(of).encode()).hexdigest()[:16]
    return hardware.cache_folder() / "native" / f"{name}.so"
