"""Other implementations of the steps that `lethax.benchmark` times: by hand in PyTorch, and with the packages for it.

A peer is a class that is made of a case and of flat weights "conv0/weight", as `problem.py` makes them. It has:

    call(), steps    one call takes that many outer steps, or judges that many episodes, which it draws itself
    answer(episodes) what `compare_peers.py --check` compares: the losses and the meta-gradient, or the outputs for queries
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lethax.benchmark import Case

# glibc keeps freed memory, which saves PyTorch up to 40 % of a step on large images. Threads may not share out more arenas.
_KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(32 << 30), "MALLOC_ARENA_MAX": "1"}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Implementation:
    """An implementation by its module and class, the variables of its process, and the cases that it does."""

    module: str
    name: str
    does: Callable[[Case], bool]
    environment: Mapping[str, str] = field(default_factory=lambda: _KEEPING)


def _curves(case: Case) -> bool:
    return case.net == "mlp"


def _trains(case: Case) -> bool:
    return not case.judged and case.net != "resnet12"


PEERS = {
    "PyTorch, all threads": Implementation("by_hand", "Eager", lambda case: True),
    "PyTorch, one thread a task": Implementation(
        "by_hand", "Threads", lambda case: case.batch > 1, _KEEPING | _ONE_THREAD
    ),
    "torch.func, loop": Implementation("by_func", "Loop", lambda case: case.net != "resnet12"),
    "torch.func, vmap": Implementation("by_func", "Vmap", _curves, _KEEPING | _ONE_THREAD),
    "higher": Implementation("by_package", "Higher", _trains),
    "TorchOpt": Implementation("by_package", "TorchOpt", _trains),
    "jax-meta": Implementation("by_jax_meta", "JaxMeta", _curves, {}),
}
