"""The outer loop: meta-gradients of a meta-batch, Adam, many steps a compiled call. No files, no printing.

θ ← θ − η Adam(reduce_i ∇_θ L_i(θ)),  reduce = sum (released L2F code) or mean over the meta-batch
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from lethax import optimizer, trees
from lethax.devices import TaskLoop, divided, everywhere, over_devices, over_tasks
from lethax.learner import Learner
from lethax.records import Episode, EpisodeShape, Info, Progress
from lethax.streams import Stream, stream


class TrainState(NamedTuple):
    """Everything that training goes on from: the same state gives the same future bits."""

    meta: Any
    optim: Any
    step: Int[Array, ""]
    key: PRNGKeyArray


class OuterPlan(Protocol):
    """What `fit` asks of a plan: supervised learning's is `Plan`, reinforcement learning's `rl.outer.PolicyPlan`."""

    @property
    def total(self) -> int:
        """Outer steps."""

    @property
    def epoch(self) -> int:
        """Outer steps between validations."""

    @property
    def chunk(self) -> int:
        """Outer steps in one compiled call."""

    @property
    def devices(self) -> int:
        """Devices that share a meta-batch."""

    @property
    def skip(self) -> bool:
        """Whether a step whose meta-gradient is not finite is passed over."""

    def optimizer(self) -> optax.GradientTransformation:
        """Its state is part of `TrainState`."""

    def advance(self, learner: Any, state: TrainState, tasks: Any, source: Any) -> tuple[TrainState, Info]:
        """One outer step, within a program."""

    def single(self, learner: Any, state: TrainState, tasks: Any, source: Any) -> tuple[TrainState, Info]:
        """One outer step as a call of its own."""


@dataclass(frozen=True)
class Plan:
    """How the outer loop runs. total: outer steps. batch: tasks B an outer step.

    rate, min_rate: Adam's rate is annealed by a cosine over `total`, in `stairs` equal stairs, from the one towards the other.
    epoch: outer steps between validations. clamp: the weights' meta-gradients are cut to ±clamp; the attenuator's never are; 0 is
    off. clip_norm: a meta-gradient of a larger norm is scaled down to it; 0 is off. clip_tensor_norm: the same for every tensor by
    itself. skip: a step whose meta-gradient is NaN or Inf changes nothing but the count. task_loop: how a device goes through its
    tasks. chunk: outer steps in one compiled call, at most. devices: the meta-batch is divided among so many. transform: an
    optimiser of your own in Adam's place; `rate`, `min_rate` and `stairs` are then its own matter.
    """

    shape: EpisodeShape
    total: int
    batch: int = 4
    rate: float = 1e-3
    min_rate: float = 1e-3
    stairs: int = 100
    epoch: int = 500
    clamp: float = 0.0
    clip_norm: float = 0.0
    clip_tensor_norm: float = 0.0
    skip: bool = False
    reduction: Literal["sum", "mean"] = "sum"
    task_loop: TaskLoop = "vmap"
    chunk: int = 1
    devices: int = 1
    transform: optax.GradientTransformation | None = None

    def optimizer(self) -> optax.GradientTransformation:
        """Adam with 0.9, 0.999, 1e-8, or `transform`, behind the bounds and the skipping that the plan asks for."""
        rate = optimizer.annealed(self.rate, self.min_rate, self.total, self.stairs)
        base = self.transform or optax.adam(rate if self.min_rate != self.rate else self.rate)
        kinds = (optimizer.clamp, optimizer.clip_norm, optimizer.clip_tensor_norm)
        values = (self.clamp, self.clip_norm, self.clip_tensor_norm)
        whole = optimizer.bounded(base, *[kind(value) for kind, value in zip(kinds, values, strict=True) if value])
        return optimizer.skip_not_finite(whole) if self.skip else whole

    def advance(self, learner: Learner, state: TrainState, tasks: Any, source: Any) -> tuple[TrainState, Info]:
        """One outer step on a meta-batch drawn for it."""
        return outer_step(learner, self, state, *draw_batch(tasks, source, self, state))

    def single(self, learner: Learner, state: TrainState, tasks: Any, source: Any) -> tuple[TrainState, Info]:
        """The same in programs of its own, one for the draw: the images then stay on one device, no loop surrounds the net."""
        return _step(learner, self, state, *_draw(tasks, source, self, state))


@partial(jax.jit, static_argnums=(0, 1))
def begin(learner: Learner, plan: OuterPlan, key: PRNGKeyArray) -> TrainState:
    """The state before the first outer step."""
    meta = learner.init(stream(key, Stream.WEIGHTS))
    return TrainState(meta, plan.optimizer().init(meta), jnp.zeros((), jnp.int32), stream(key, Stream.TRAINING))


def meta_gradient(learner: Learner, plan: Plan, meta: Any, episodes: Episode, keys: Array, progress: Progress) -> Any:
    """(loss of the meta-batch, its meta-gradient, what to look at: [B, ...])."""

    def one(task: tuple[Episode, Array], shared: tuple[Any, Progress]) -> Any:
        episode, key = task
        at, where = shared
        return jax.value_and_grad(lambda m: learner.loss(m, episode, key=key, progress=where), has_aux=True)(at)

    def local(shared: Any, tasks: Any) -> Any:
        return over_tasks(lambda task: one(task, shared), tasks, plan.task_loop)

    (losses, infos), grads = over_devices(local, plan.devices)((meta, progress), (episodes, keys))
    reduce = jnp.sum if plan.reduction == "sum" else jnp.mean
    return reduce(losses), jax.tree.map(lambda g: reduce(g, axis=0), grads), {**infos, "loss": losses}


def outer_step(
    learner: Learner, plan: Plan, state: TrainState, episodes: Episode, keys: Array
) -> tuple[TrainState, Info]:
    """One update of the meta-parameters; info has means over the tasks, and which meta-gradients are finite."""
    progress = Progress(state.step, jnp.asarray(plan.total))
    _, grads, infos = meta_gradient(learner, plan, state.meta, episodes, keys, progress)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(grads)])
    updates, optim = plan.optimizer().update(grads, state.optim, state.meta)
    meta = optax.apply_updates(state.meta, updates)
    seen = {name: jnp.mean(leaf, axis=0) for name, leaf in infos.items()}
    after = TrainState(meta, optim, state.step + 1, state.key)
    return everywhere(after, plan.devices, jax.lax.with_sharding_constraint), {**seen, "finite": finite}


def draw_batch(tasks: Any, source: Any, plan: Plan, state: TrainState) -> tuple[Episode, Array]:
    """The meta-batch of outer step `state.step`: a function of the key and the step alone."""
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), 2 * plan.batch)
    episodes = jax.vmap(lambda key: tasks.draw(source, plan.shape, key))(keys[: plan.batch])
    return episodes, keys[plan.batch :]


def _scan(
    learner: Learner, plan: OuterPlan, state: TrainState, source: Any, tasks: Any, steps: int
) -> tuple[TrainState, Info]:
    def body(state: TrainState, _: None) -> tuple[TrainState, Info]:
        return plan.advance(learner, state, tasks, source)

    return jax.lax.scan(body, state, None, length=steps)


@partial(jax.jit, static_argnums=(0, 1, 4, 5, 6))
def _scan_together(
    learner: Learner, plan: OuterPlan, states: TrainState, sources: Any, tasks: Any, devices: int, steps: int
) -> tuple[TrainState, Info]:
    def local(_: None, runs: tuple[TrainState, Any]) -> tuple[TrainState, Info]:
        return jax.vmap(lambda state, source: _scan(learner, plan, state, source, tasks, steps))(*runs)

    return over_devices(local, devices)(None, (states, sources))


_steps = jax.jit(_scan, static_argnums=(0, 1, 4, 5))
_draw = jax.jit(draw_batch, static_argnums=(0, 2))
_step = jax.jit(outer_step, static_argnums=(0, 1))


def steps_of_call(plan: OuterPlan, done: int) -> int:
    """Outer steps of the call after step `done`: `plan.chunk`, but calls end at multiples of it and at `plan.total`."""
    return min(plan.chunk - done % plan.chunk, plan.total - done)


def fit(
    learner: Learner, state: TrainState, tasks: Any, source: Any, plan: OuterPlan
) -> Iterator[tuple[TrainState, Info]]:
    """Yields (state, info) after every compiled call, until `plan.total`; every array of info leads with the call's steps.

    The learner's switch of order has to come at a multiple of `plan.chunk`.
    """
    done = int(state.step)
    state = everywhere(state, plan.devices)
    while done < plan.total:
        now, steps = learner.at(done), steps_of_call(plan, done)
        if plan.chunk == 1:
            state, info = plan.single(now, state, tasks, source)
            info = jax.tree.map(lambda leaf: leaf[None], info)
        else:
            state, info = _steps(now, plan, state, source, tasks, steps)
        done += steps
        yield state, info


def fit_together(
    learner: Learner, states: TrainState, tasks: Any, sources: Any, plan: OuterPlan, devices: int = 1
) -> Iterator[tuple[TrainState, Info]]:
    """`fit` for several runs of one shape, at the same step, in one program.

    Every array of `states`, `sources` and info leads with the run, then, in info, with the call's steps. The runs are spread
    over `devices`, a divisor of their number, instead of each one's tasks: the plan's own `devices` has to be 1.
    """
    done = int(states.step[0])
    states, sources = divided((states, sources), devices)  # placed otherwise, they would compile the steps twice
    while done < plan.total:
        steps = steps_of_call(plan, done)
        states, info = _scan_together(learner.at(done), plan, states, sources, tasks, devices, steps)
        done += steps
        yield states, info


def not_finite(info: Info, meta: Any, before: int) -> tuple[int, str] | None:
    """(outer step, tensor) of the first meta-gradient of a call that is NaN or Inf, None where all are finite."""
    finite = np.asarray(info["finite"])
    if finite.all():
        return None
    row, column = np.argwhere(~finite)[0]
    return before + int(row), trees.names(meta)[int(column)]
