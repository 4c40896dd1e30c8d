"""The outer loop, whatever its steps are: one run or several together, many steps a compiled call. No files, no printing."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from lethax import trees
from lethax.devices import call, divided, everywhere, over_devices
from lethax.learner import HostFamily, Learner
from lethax.records import Info
from lethax.streams import Stream, stream


class TrainState(NamedTuple):
    """The state of training. The same state gives the same bits from then on."""

    meta: Any
    optim: Any
    step: Int[Array, ""]
    key: PRNGKeyArray


@runtime_checkable
class OuterPlan(Protocol):
    """What `fit` asks of a plan: supervised learning's is `meta_batch.Plan`, control's `rl.outer.PolicyPlan`."""

    @property
    def total(self) -> int:
        """The number of outer steps."""

    @property
    def epoch(self) -> int:
        """The number of outer steps between validations."""

    @property
    def chunk(self) -> int:
        """The largest number of outer steps in one compiled call."""

    @property
    def devices(self) -> int:
        """The number of devices that share a meta-batch."""

    @property
    def skip(self) -> bool:
        """Whether a step whose meta-gradient is not finite is passed over."""

    def optimizer(self) -> optax.GradientTransformation:
        """The outer optimiser, whose state is part of `TrainState`."""

    def several(
        self, learner: Learner, state: TrainState, tasks: Any, source: Any, steps: int
    ) -> tuple[TrainState, Info]:
        """Take outer steps one after another within a program. Info leads with the step."""

    def single(self, learner: Learner, state: TrainState, tasks: Any, source: Any) -> tuple[TrainState, Info]:
        """Take one outer step as a call of its own. Only here can the host have a part in it: a simulator, or files."""


@partial(jax.jit, static_argnums=(0, 1))
def begin(learner: Learner, plan: OuterPlan, key: PRNGKeyArray) -> TrainState:
    """The state of training before the first outer step.

    Arguments:
        learner: the method, such as `L2F(net)`.
        plan: how the outer loop runs.
        key: a JAX key. First weights and training episodes come from streams of their own, derived from it.

    Returns:
        A `TrainState`: meta-parameters `meta`, the optimiser's state `optim`, the outer step `step` (0) and the key of the
        training episodes. Everything that follows is a function of the state: equal states give equal bits.

    Example: see `fit`.
    """
    meta = learner.init(stream(key, Stream.WEIGHTS))
    return TrainState(meta, plan.optimizer().init(meta), jnp.zeros((), jnp.int32), stream(key, Stream.TRAINING))


@partial(jax.jit, static_argnums=(0, 1, 3, 5))
def several(
    learner: Learner, plan: OuterPlan, state: TrainState, tasks: Any, source: Any, steps: int
) -> tuple[TrainState, Info]:
    """Take the outer steps of a call as one program."""
    return plan.several(learner, state, tasks, source, steps)


@partial(jax.jit, static_argnums=(0, 1, 4, 5, 6))
def _several_together(
    learner: Learner, plan: OuterPlan, states: TrainState, sources: Any, tasks: Any, devices: int, steps: int
) -> tuple[TrainState, Info]:
    def local(_: None, runs: tuple[TrainState, Any]) -> tuple[TrainState, Info]:
        return jax.vmap(lambda state, source: plan.several(learner, state, tasks, source, steps))(*runs)

    return over_devices(local, devices)(None, (states, sources))


def steps_of_call(plan: OuterPlan, done: int) -> int:
    """The number of outer steps of the call after step `done`. Calls end at multiples of `plan.chunk` and at `plan.total`."""
    return min(plan.chunk - done % plan.chunk, plan.total - done)


def _until_switch(learner: Learner, done: int, steps: int) -> int:
    """The number of outer steps from `done` on, at most `steps`, that are all of one learner; switches go one way alone."""
    now = learner.at(done)
    if learner.at(done + steps - 1) == now:
        return steps
    return next(i for i in range(1, steps) if learner.at(done + i) != now)


def fit(
    learner: Learner, state: TrainState, tasks: Any, source: Any, plan: OuterPlan
) -> Iterator[tuple[TrainState, Info]]:
    """Meta-train: take outer steps from a state until `plan.total`.

        θ ← θ − η Adam(reduce_i ∇_θ L_i(θ))

    Arguments:
        learner: the method. A call ends where it switches from first to second order, or to another loss.
        state: where to go on from: `begin(learner, plan, key)`, or any state that an earlier `fit` yielded.
        tasks: a task family: `tasks.draw(source, shape, key)` gives an `Episode`. Of a `HostFamily` every step is a call.
        source: the family's arrays on the device.
        plan: how the outer loop runs.

    Returns:
        An iterator of (state, info), one for each compiled call. Every array in info leads with the outer steps of that call:
        "loss" and "score" [steps], "gates" [steps, L] with L2F, and "finite" [steps, tensors], which says whether each tensor's
        meta-gradient, after the bounds, and its squares were finite.

    Raises:
        DataError: before anything compiles, where the data do not allow episodes of `plan.shape`.

    Example:
        >>> import jax, lethax
        >>> from lethax.data.curves import family
        >>> tasks, ranges, _ = family("sinusoid")
        >>> learner = lethax.MAML(lethax.MLP(hidden=(8,)), lethax.SquaredError(), steps=1)
        >>> plan = lethax.Plan(lethax.EpisodeShape(way=1, shot=5, query=10), total=4, batch=2, chunk=2)
        >>> state = lethax.begin(learner, plan, jax.random.key(0))
        >>> for state, info in lethax.fit(learner, state, tasks, ranges, plan):
        ...     print(int(state.step), info["loss"].shape)
        2 (2,)
        4 (2,)
    """
    done = int(state.step)
    state, hosted = everywhere(state, plan.devices), isinstance(tasks, HostFamily)
    if plan.chunk > 1 and not hosted:  # the whole program runs on all devices; else episodes are drawn on one
        source = everywhere(source, plan.devices)
    while done < plan.total:
        now, steps = learner.at(done), 1 if hosted else _until_switch(learner, done, steps_of_call(plan, done))
        if hosted or plan.chunk == 1:
            state, info = plan.single(now, state, tasks, source)
            info = jax.tree.map(lambda leaf: leaf[None], info)
        else:
            state, info = call(several, now, plan, state, tasks, source, steps)
        done += steps
        yield state, info


def fit_together(
    learner: Learner, states: TrainState, tasks: Any, sources: Any, plan: OuterPlan, devices: int = 1
) -> Iterator[tuple[TrainState, Info]]:
    """Meta-train several runs of one shape, which are at the same outer step, in one program.

    Every array of `states`, `sources` and info leads with the run, then, in info, with the call's steps. The runs are spread
    over `devices`, a divisor of their number, instead of each one's tasks: the plan's own `devices` has to be 1.
    """
    done = int(states.step[0])
    states, sources = divided((states, sources), devices)  # placed otherwise, they would compile the steps twice
    while done < plan.total:
        steps = _until_switch(learner, done, steps_of_call(plan, done))
        states, info = _several_together(learner.at(done), plan, states, sources, tasks, devices, steps)
        done += steps
        yield states, info


def not_finite(info: Info, meta: Any, before: int) -> tuple[int, str] | None:
    """Find (outer step, tensor) of the first meta-gradient of a call that is not `optimizer.usable`. None if all are."""
    finite = np.asarray(info["finite"])
    if finite.all():
        return None
    row, column = np.argwhere(~finite)[0]
    return before + int(row), trees.names(meta)[int(column)]
