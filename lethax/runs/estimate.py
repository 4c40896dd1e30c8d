"""What a run will cost, before it starts: parameters, operations, memory and time."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from lethax import hardware, native, trees
from lethax.domains import domain_of
from lethax.domains.supervised import Supervised
from lethax.errors import RecipeError
from lethax.learner import HostFamily
from lethax.meta_batch import Plan, lowered
from lethax.outer import begin, fit, steps_of_call
from lethax.recipe import Resolved

_TIMED = 2  # calls of the program
_STEPS = 50  # outer steps in a timed call, at most


class Cost(NamedTuple):
    """The cost of a run.

    weights, moved, learned: the numbers of the network, those that the inner loop moves, and all that the outer loop learns.
    operations: floating-point operations of an outer step, as XLA counts them, or None. memory: bytes that the compiled program of
    an outer step takes, its arguments included. usable: bytes that a process can take, or None. seconds: of an outer step.
    """

    weights: int
    moved: int
    learned: int
    operations: float | None
    memory: int
    usable: int | None
    seconds: float | None

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as it is known."""
        return self.usable is None or self.memory <= self.usable


def cost(recipe: Resolved, timed: bool = True, clock: Callable[[], float] = time.monotonic) -> Cost:
    """Compile the most expensive phase of training, read what it takes, and if it fits, time a few outer steps.

    RecipeError for control, whose outer steps are several programs with rollouts between them.
    """
    domain = domain_of(recipe)
    if not isinstance(domain, Supervised):
        raise RecipeError(
            f"the cost of {recipe.data} cannot be estimated, because an outer step of control is several programs."
        )
    learner, plan, family = (
        domain.learner(recipe, domain.inputs(recipe)),
        domain.plan(recipe),
        domain.family(recipe, "train"),
    )
    state = begin(learner, plan, jax.random.key(recipe.seed))
    start = latest(recipe, plan)
    state = state._replace(step=state.step + start)
    program = lowered(learner, state, family.tasks, family.source, plan)
    counted: Any = program.cost_analysis() or {}
    if native.called_by(program):
        with native.off():
            counted = lowered(learner, state, family.tasks, family.source, plan).cost_analysis() or {}
    memory = _memory(program.compile().memory_analysis())
    weights = state.meta["weights"]
    moving = trees.partition(weights, learner.mask(weights))[0] if hasattr(learner, "mask") else weights
    steps = 1 if isinstance(family.tasks, HostFamily) else steps_of_call(plan, start)
    operations = counted.get("flops", 0.0) / steps
    usable = hardware.memory().usable if jax.default_backend() == "cpu" else _of_device()
    found = Cost(
        trees.size(weights), trees.size(moving), trees.size(state.meta), operations or None, memory, usable, None
    )
    if not timed or not found.fits:
        return found
    short = brief(plan)
    steps = 1 if isinstance(family.tasks, HostFamily) else steps_of_call(short, start)
    return found._replace(
        seconds=seconds_of(lambda: next(fit(learner, state, family.tasks, family.source, short)), clock) / steps
    )


def seconds_of(call: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> float:
    """The mean time of two calls of a program, after one that compiles it."""
    jax.block_until_ready(call())
    begun = clock()
    for _ in range(_TIMED):
        jax.block_until_ready(call())
    return (clock() - begun) / _TIMED


def latest(recipe: Resolved, plan: Plan) -> int:
    """The outer step where the most expensive phase of training begins; at the latest the one before the last call."""
    late = max(recipe.inner.first_order_steps, recipe.inner.multi_step_steps)
    return max(min(late, plan.total - plan.chunk), 0)


def brief(plan: Plan) -> Plan:
    """The plan with at most 50 outer steps in a call: calls of 500 steps of a slow method would take minutes to time."""
    return replace(plan, chunk=max(n for n in range(1, _STEPS + 1) if plan.chunk % n == 0))


def _memory(found: Any) -> int:
    """Arguments, results and what lies between them, of one device; on a CPU all devices share one memory."""
    if found is None:
        return 0
    size = (
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )
    return int(size) * (len(jax.devices()) if jax.default_backend() == "cpu" else 1)


def _of_device() -> int | None:
    known = jax.devices()[0].memory_stats() or {}
    return known.get("bytes_limit")
