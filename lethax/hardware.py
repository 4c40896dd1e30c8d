"""What the kernel says of this machine, with the limits that a container sets. Nothing here imports JAX."""

import ctypes
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")  # of /proc and /sys
_SETS = ("avx512f", "avx2", "avx", "sse4_2")  # of x86, best first


class Memory(NamedTuple):
    """Bytes of memory: of the machine, of it free, and what a container allows; None where it is not known or not limited."""

    total: int | None
    free: int | None
    allowed: int | None

    @property
    def usable(self) -> int | None:
        """What a process can take now."""
        return min((size for size in self if size is not None), default=None)


def text(path: str) -> str:
    """The content of a file of the kernel; "" where there is none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def limits(controller: str, file: str) -> list[str]:
    """A file of the process's control group and of all groups above it; controller: "" for version 2 of control groups."""
    found = []
    for line in text("proc/self/cgroup").splitlines():
        _, names, group = (line.split(":", 2) + ["", ""])[:3]
        if controller not in names.split(","):
            continue
        at = Path(group.lstrip("/"))
        for folder in (at, *at.parents):
            found.append(text(str(Path("sys/fs/cgroup") / controller / folder / file)))
    return [one for one in found if one]


def memory() -> Memory:
    """The memory of this machine."""
    about = {}
    for line in text("proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if value.split()[:1] and value.split()[0].isdigit():
            about[name] = int(value.split()[0]) << 10
    total = about.get("MemTotal") or _physical()
    texts = [*limits("", "memory.max"), *limits("memory", "memory.limit_in_bytes")]
    allowed = [int(one) for one in texts if one.strip().isdigit() and (total is None or int(one) < total)]
    return Memory(total, about.get("MemAvailable"), min(allowed, default=None))


class Processor(NamedTuple):
    """The model of the processor, its kind such as "x86_64", and of an x86 its best known instruction set, or ""."""

    model: str
    kind: str
    best: str


def processor() -> Processor:
    """The processor of this machine."""
    kind = platform.machine() or "unknown"
    facts: dict[str, str] = {}
    for line in text("proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags", "").split()
    best = next((one for one in _SETS if one in flags), "no AVX") if flags else ""
    return Processor(facts.get("model name") or platform.processor() or kind, kind, best)


def instructions() -> str:
    """The model of the processor and all of its instructions, as the kernel names them; "" where it does not."""
    lines = text("proc/cpuinfo").partition("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.partition(":")[0].strip() in ("model name", "flags", "Features"))


def compiler() -> str | None:
    """The C++ compiler of this machine, if it has one."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def cache_folder() -> Path:
    """Where what was compiled is kept: $LETHAX_CACHE, or ~/.cache/lethax."""
    return Path(os.environ.get("LETHAX_CACHE") or Path.home() / ".cache" / "lethax")


def peak() -> int | None:
    """The most bytes of memory that this process has held at once; None where it is not known."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10  # Linux counts KiB


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def give_back() -> None:
    """Give the memory that was freed, but that the C library keeps for later, back to the system, where the library can."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # of glibc alone
        trim(0)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has none of it
        return None
