"""The command `lethax bench`."""

import json
import tempfile
from pathlib import Path

from lethax import benchmark, signals
from lethax.benchmark import Case, Measured
from lethax.cli import arguments
from lethax.cli.usage import check_range
from lethax.progress import duration, figure, say
from lethax.text import in_bytes, shown

_HEAD = ("", "one step", "steps/s", "first step", "peak memory")
_MOST = 1000  # calls


def bench(args: arguments.Bench) -> None:
    """Run the command `lethax bench`: print a line for each case as soon as it is measured. LethaxError if one fails."""
    check_range("calls", args.calls, 1, _MOST)
    machine, cases, rows = benchmark.machine(), benchmark.ALL if args.all else benchmark.QUICK, []
    widest = max(len(case.name) for case in cases)
    if not args.json:
        pages = "with" if "hugetlb" in machine["allocator"].get("GLIBC_TUNABLES", "") else "without"
        processor, cores = shown(machine["processor"], 60), machine["cores"]
        say(f"{processor}, {cores} cores, jax {machine['jax']}, {pages} huge pages")
        say(_line(_HEAD, widest))
    # A cache of its own lets the first step say what compilation takes. A signal is raised, which ends the process of the case.
    with signals.raising(), tempfile.TemporaryDirectory() as cache:
        for case in cases:
            measured = benchmark.apart(case, args.calls, Path(cache))
            rows.append(benchmark.row(case, measured))
            if not args.json:
                say(_line(_cells(case, measured), widest))
    if args.json:
        print(json.dumps({**machine, "rows": rows}, indent=1))


def _cells(case: Case, measured: Measured) -> tuple[str, ...]:
    step = f"{figure(1e3 * measured.median)} ms"
    peak = "not known" if measured.peak is None else in_bytes(measured.peak)
    return case.name, step, figure(1 / measured.median), duration(measured.first), peak


def _line(cells: tuple[str, ...], widest: int) -> str:
    """The first cell to the left, the others to the right."""
    return f"{cells[0]:{widest}}" + "".join(f"{cell:>13}" for cell in cells[1:])
