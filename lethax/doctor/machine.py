"""The machine: processor, cores, memory, huge pages and compiler, with the limits that a container sets."""

import os
import sys
from collections.abc import Iterator

from lethax import hardware
from lethax.doctor.rows import OK, WARNING, WRONG, Row
from lethax.hardware import limits, text
from lethax.text import in_bytes

LEAST_MEMORY = 2 << 30
# Variables that change what is computed, or where files are.
_VARIABLES = (
    "JAX_PLATFORMS", "XLA_FLAGS", "JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES", "LETHAX_DATA", "LETHAX_CACHE",
    "LETHAX_NATIVE", "LETHAX_PLUGINS", "LETHAX_DEBUG",
)  # fmt: skip


def rows() -> Iterator[Row]:
    """The rows on the machine."""
    yield processor()
    yield cores()
    yield memory()
    yield huge_pages()
    yield compiler()
    given = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    yield Row("variables", OK, ", ".join(given) or "none that lethax or JAX reads")


def processor() -> Row:
    """The model and its best instruction set. JAX's programs for x86 need AVX."""
    name, kind, best = hardware.processor()
    if kind.lower() not in ("x86_64", "amd64") or not best:
        return Row("processor", OK, f"{name}, {kind}")
    if not best.startswith("avx"):
        return Row(
            "processor", WRONG, f"{name}, {kind} without AVX", "JAX needs a processor with AVX: take another machine."
        )
    if best == "avx":
        return Row("processor", WARNING, f"{name}, {kind} with {best} but without AVX2", "Expect programs to be slow.")
    return Row("processor", OK, f"{name}, {kind} with {best}")


def cores() -> Row:
    """The cores, and how many of them this process may use."""
    count, may = os.cpu_count() or 1, hardware.cores()
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
    for one in limits("", "cpu.max"):
        quota, _, period = one.partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            found.append(int(quota) / int(period))
    for quota, period in zip(limits("cpu", "cpu.cfs_quota_us"), limits("cpu", "cpu.cfs_period_us"), strict=False):
        if quota.strip().isdigit() and period.strip().isdigit():
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory() -> Row:
    """The memory of the machine, what of it is free, and the limit of the control group."""
    found = hardware.memory()
    if not found.total or not found.usable:
        return Row("memory", OK, "not known on this system")
    said = in_bytes(found.total)
    said += f", {in_bytes(found.free)} of it free" if found.free is not None else ""
    said += f"; its container allows {in_bytes(found.allowed)}" if found.allowed is not None else ""
    if found.usable < LEAST_MEMORY:
        return Row(
            "memory", WARNING, said, "End other programs, or train with small --batch and --filters and --memory lean."
        )
    return Row("memory", OK, said)


def compiler() -> Row:
    """The C++ compiler, which builds the native kernels of convolutions."""
    if not sys.platform.startswith("linux"):
        return Row("compiler", OK, "native kernels are built on Linux alone")
    found = hardware.compiler()
    if found is None:
        advice = "Install one, for example with apt-get install g++."
        return Row("compiler", WARNING, "none; training on images takes longer without native kernels", advice)
    return Row("compiler", OK, found)


def huge_pages() -> Row:
    """Whether Linux gives arrays pages of 2 MiB, without which a step on images takes a third longer."""
    said = text("sys/kernel/mm/transparent_hugepage/enabled")
    if sys.platform != "linux" or not said:
        return Row("huge pages", OK, "not on this system")
    chosen = said.partition("[")[2].partition("]")[0]
    if chosen == "never":
        advice = "As root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        return Row("huge pages", WARNING, "never; training on images is slower without them", advice)
    return Row("huge pages", OK, chosen)
