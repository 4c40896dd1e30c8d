"""The machine: processor, cores, memory and huge pages, with the limits that a container sets."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from lethax.doctor.rows import OK, WARNING, WRONG, Row, size

ROOT = Path("/")  # of /proc and /sys
LEAST_MEMORY = 2 << 30
_SETS = ("avx512f", "avx2", "avx", "sse4_2")  # of x86, best first
# Variables that change what is computed, or where files are.
_VARIABLES = (
    "JAX_PLATFORMS", "XLA_FLAGS", "JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES", "LETHAX_DATA", "LETHAX_CACHE",
    "LETHAX_PLUGINS", "LETHAX_DEBUG",
)  # fmt: skip


def rows() -> Iterator[Row]:
    """The rows on the machine."""
    yield processor()
    yield cores()
    yield memory()
    yield huge_pages()
    given = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    yield Row("variables", OK, ", ".join(given) or "none that lethax or JAX reads")


def _text(path: str) -> str:
    """The content of a file of the kernel; "" where there is none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def processor() -> Row:
    """The model and its best instruction set. JAX's programs for x86 need AVX."""
    kind = platform.machine() or "unknown"
    facts: dict[str, str] = {}
    for line in _text("proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or kind
    flags = facts.get("flags", "").split()
    if kind.lower() not in ("x86_64", "amd64") or not flags:
        return Row("processor", OK, f"{name}, {kind}")
    best = next((one for one in _SETS if one in flags), "")
    if "avx" not in flags:
        return Row(
            "processor", WRONG, f"{name}, {kind} without AVX", "JAX needs a processor with AVX: take another machine."
        )
    if "avx2" not in flags:
        return Row("processor", WARNING, f"{name}, {kind} with {best} but without AVX2", "Expect programs to be slow.")
    return Row("processor", OK, f"{name}, {kind} with {best}")


def cores() -> Row:
    """The cores, and how many of them this process may use."""
    count = os.cpu_count() or 1
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    quota = _quota()
    usable = min(may, quota or may)
    if usable >= count:
        return Row("cores", OK, str(count))
    why = "its container allows" if quota and quota < may else "the process may use"
    said = f"{count}, of which {why} {usable:g}"
    advice = (
        "lethax starts a thread for each core that the machine has, so expect it to be slower than the count suggests."
    )
    return Row("cores", WARNING, said, advice)


def _quota() -> float | None:
    """The number of cores that a control group allows; None without a limit."""
    found = []
    for text in _limits("", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            found.append(int(quota) / int(period))
    for quota, period in zip(_limits("cpu", "cpu.cfs_quota_us"), _limits("cpu", "cpu.cfs_period_us"), strict=False):
        if quota.strip().isdigit() and period.strip().isdigit():
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _limits(controller: str, file: str) -> list[str]:
    """A file of the process's control group and of all groups above it; controller: "" for version 2 of control groups."""
    found = []
    for line in _text("proc/self/cgroup").splitlines():
        _, names, group = (line.split(":", 2) + ["", ""])[:3]
        if controller not in names.split(","):
            continue
        at = Path(group.lstrip("/"))
        for folder in (at, *at.parents):
            found.append(_text(str(Path("sys/fs/cgroup") / controller / folder / file)))
    return [text for text in found if text]


def memory() -> Row:
    """The memory of the machine, what of it is free, and the limit of the control group."""
    about = {}
    for line in _text("proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if value.split()[:1] and value.split()[0].isdigit():
            about[name] = int(value.split()[0]) << 10
    total = about.get("MemTotal") or _physical()
    if not total:
        return Row("memory", OK, "not known on this system")
    texts = [*_limits("", "memory.max"), *_limits("memory", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text.strip().isdigit() and int(text) < total]
    usable = min([about.get("MemAvailable", total), *limits])
    said = size(total)
    said += f", {size(about['MemAvailable'])} of it free" if "MemAvailable" in about else ""
    said += f"; its container allows {size(min(limits))}" if limits else ""
    if usable < LEAST_MEMORY:
        return Row(
            "memory", WARNING, said, "End other programs, or train with small --batch and --filters and --memory lean."
        )
    return Row("memory", OK, said)


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has none of it
        return 0


def huge_pages() -> Row:
    """Whether Linux gives arrays pages of 2 MiB, without which a step on images takes a third longer."""
    said = _text("sys/kernel/mm/transparent_hugepage/enabled")
    if sys.platform != "linux" or not said:
        return Row("huge pages", OK, "not on this system")
    chosen = said.partition("[")[2].partition("]")[0]
    if chosen == "never":
        advice = "As root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        return Row("huge pages", WARNING, "never; training on images is slower without them", advice)
    return Row("huge pages", OK, chosen)
