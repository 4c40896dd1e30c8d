"""Outer steps of supervised learning: meta-batches, their meta-gradients, and Adam.

θ ← θ − η Adam(reduce_i ∇_θ L_i(θ)),  reduce = sum (released L2F code) or mean over the meta-batch
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from lethax import optimizer, processes, trees
from lethax.devices import TaskLoop, call, divided, everywhere, over_chunks, over_devices, over_tasks
from lethax.errors import RecipeError
from lethax.learner import HostFamily, Learner, read
from lethax.outer import TrainState, several, steps_of_call
from lethax.records import Episode, EpisodeShape, Info, Progress

_DRAWN_AHEAD = 8_000_000  # numbers in the meta-batches of a call, at most; more are drawn one by one


@dataclass(frozen=True)
class Plan:
    """How the outer loop of supervised learning runs.

        θ ← θ − η Adam(reduce_i ∇_θ L_i(θ)),   reduce = sum (released L2F code) or mean over the meta-batch

    Arguments:
        shape: the classes, support and query examples of an episode.
        total: the number of outer steps.
        batch: the number of episodes of an outer step, the meta-batch.
        rate, min_rate: Adam's rate η follows a cosine over `total` steps from the first to the second, in `stairs` equal stairs;
            without a second one, or where they are equal, it is constant. RecipeError where the second is above the first.
        epoch: the number of outer steps between validations.
        clamp: each entry of the weights' meta-gradient is cut to ± this bound, but the attenuator's never are; 0 is off.
        clip_norm: a meta-gradient of a larger norm is scaled down to this norm; 0 is off.
        clip_tensor_norm: the same for every tensor by itself; 0 is off.
        skip: True passes over an outer step whose meta-gradient, after the bounds, has a NaN, an Inf or an entry whose square is
            Inf: it only counts.
        reduction: the loss of a meta-batch is the "sum" or the "mean" over its episodes.
        task_loop: how a device goes through its episodes: "vmap" (all at once), "unroll" (one by one, written out in the
            program; fastest for convolutions on a CPU) or "scan" (one by one, in a loop).
        task_chunk: a device has at most this many of its episodes in memory at once, and adds up the meta-gradients of such
            chunks; 0 takes all its episodes at once. The sums are the same but for rounding.
        chunk: the largest number of outer steps in one compiled call. More than 1 pays for small nets.
        devices: the number of devices that share a meta-batch; it has to divide `batch`.
        weight_decay: λ of the penalty λ/2 Σ w² of weights but not of biases and norms, see `optimizer.kernels`; its gradient is
            added after the bounds.
        transform: an optax optimiser of your own in the place of Adam, which then ignores `rate`, `min_rate` and `stairs`.

    Example:
        >>> import lethax, optax
        >>> shape = lethax.EpisodeShape(way=5, shot=1, query=15)
        >>> lethax.Plan(shape, total=100, batch=2, rate=1e-3, min_rate=1e-5, clip_norm=10.0).batch
        2
        >>> own = lethax.Plan(shape, total=100, transform=optax.sgd(0.1))
    """

    shape: EpisodeShape
    total: int
    batch: int = 4
    rate: float = 1e-3
    min_rate: float | None = None
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
    weight_decay: float = 0.0
    transform: optax.GradientTransformation | None = None
    task_chunk: int = 0

    def optimizer(self) -> optax.GradientTransformation:
        """Adam with 0.9, 0.999 and 1e-8, or `transform`, after the bounds and the skipping that the plan asks for."""
        base = self.transform or optax.adam(self._rate())
        if self.weight_decay:
            base = optax.chain(optax.add_decayed_weights(self.weight_decay, optimizer.kernels), base)
        return optimizer.bounded(optimizer.skip_not_usable(base) if self.skip else base, self.bound)

    def bound(self, grads: Any) -> Any:
        """Apply the bounds on a meta-gradient that the plan asks for."""
        kinds = (optimizer.clamp, optimizer.clip_norm, optimizer.clip_tensor_norm)
        for kind, value in zip(kinds, (self.clamp, self.clip_norm, self.clip_tensor_norm), strict=True):
            grads = kind(value)(grads) if value else grads
        return grads

    def _rate(self) -> float | optax.Schedule:
        least = self.rate if self.min_rate is None else self.min_rate
        if least > self.rate:
            raise RecipeError(f"min_rate is {least}; the rate falls to it, so it has to be at most rate, {self.rate}.")
        return self.rate if least == self.rate else optimizer.annealed(self.rate, least, self.total, self.stairs)

    def several(
        self, learner: Learner, state: TrainState, tasks: Any, source: Any, steps: int
    ) -> tuple[TrainState, Info]:
        """Draw meta-batches, and take an outer step on each.

        The meta-batches of all steps are drawn before the loop, unless they are too large to keep. Within the loop, to draw small
        ones takes nearly half as long as to compute with them.
        """

        def draw(number: Any) -> tuple[Episode, Array]:
            return draw_batch(tasks, source, self, state._replace(step=number))

        numbers = state.step + jnp.arange(steps)
        draw_all = jax.vmap(draw)
        if trees.size(jax.eval_shape(draw_all, numbers)) <= _DRAWN_AHEAD:
            return jax.lax.scan(lambda at, batch: outer_step(learner, self, at, *batch), state, draw_all(numbers))
        return jax.lax.scan(lambda at, number: outer_step(learner, self, at, *draw(number)), state, numbers)

    def single(self, learner: Learner, state: TrainState, tasks: Any, source: Any) -> tuple[TrainState, Info]:
        """Draw and step in two programs. The images then stay on one device, and no loop surrounds the net."""
        mine = processes.here(TrainState((), (), state.step, state.key))
        drawn = _read(tasks, source, self, mine) if isinstance(tasks, HostFamily) else _draw(tasks, source, self, mine)
        return call(_step, learner, self, state, *divided(drawn, self.devices))


def meta_gradient(learner: Learner, plan: Plan, meta: Any, episodes: Episode, keys: Array, progress: Progress) -> Any:
    """Compute (loss of the meta-batch, its meta-gradient, info [B, ...])."""

    def one(task: tuple[Episode, Array], shared: tuple[Any, Progress]) -> Any:
        episode, key = task
        at, where = shared
        return jax.value_and_grad(lambda m: learner.loss(m, episode, key=key, progress=where), has_aux=True)(at)

    def local(shared: Any, tasks: Any) -> Any:
        """What a device has of its tasks: the losses and infos of each, and the sum of their gradients with a leading axis of 1."""

        def chunk(tasks: Any) -> Any:
            each, grads = over_tasks(lambda task: one(task, shared), tasks, plan.task_loop)
            return each, jax.tree.map(lambda g: jnp.sum(g, axis=0, keepdims=True), grads)

        zero = jax.tree.map(lambda w: jnp.zeros((1, *w.shape), w.dtype), shared[0])
        return over_chunks(chunk, tasks, plan.task_chunk, zero)

    (losses, infos), sums = over_devices(local, plan.devices)((meta, progress), (episodes, keys))
    share = 1 if plan.reduction == "sum" else plan.batch
    grads = jax.tree.map(lambda g: jnp.sum(g, axis=0) / share, sums)
    return jnp.sum(losses) / share, grads, {**infos, "loss": losses}


def outer_step(
    learner: Learner, plan: Plan, state: TrainState, episodes: Episode, keys: Array
) -> tuple[TrainState, Info]:
    """Update the meta-parameters once. Info has means over the tasks, and which meta-gradients are usable, as "finite"."""
    progress = Progress(state.step, jnp.asarray(plan.total))
    _, grads, infos = meta_gradient(learner, plan, state.meta, episodes, keys, progress)
    raw, finite = optimizer.usable(grads), optimizer.usable(plan.bound(grads))
    finite |= raw & ~jnp.all(raw)  # one NaN makes all NaN in a bound on the whole norm: what was usable is not to blame
    updates, optim = plan.optimizer().update(grads, state.optim, state.meta)
    meta = optax.apply_updates(state.meta, updates)
    seen = {name: jnp.mean(leaf, axis=0) for name, leaf in infos.items()}
    after = TrainState(meta, optim, state.step + 1, state.key)
    return everywhere((after, {**seen, "finite": finite}), plan.devices, jax.lax.with_sharding_constraint)


def draw_batch(tasks: Any, source: Any, plan: Plan, state: TrainState) -> tuple[Episode, Array]:
    """Draw the meta-batch of outer step `state.step`, which is a function of the key and the step alone."""
    for_episodes, for_tasks = _keys(plan, state)
    return jax.vmap(lambda key: tasks.draw(source, plan.shape, key))(for_episodes), for_tasks


def _keys(plan: Plan, state: TrainState) -> tuple[Array, Array]:
    """The keys of the episodes of an outer step, and of what a learner draws in each."""
    keys = _batch_keys(state.key, state.step * plan.batch, plan.batch)
    return keys[: plan.batch], keys[plan.batch :]


def _batch_keys(key: PRNGKeyArray, first: Any, count: int) -> Array:
    return jax.random.split(jax.random.fold_in(key, first // count), 2 * count)


def episode_keys(key: PRNGKeyArray, first: Any, count: int) -> Array:
    """The keys of the meta-batch of `count` episodes that begins with number `first`, a multiple of `count`."""
    return _batch_keys(key, first, count)[:count]


def _read(tasks: HostFamily, source: Any, plan: Plan, state: TrainState) -> tuple[Episode, Array]:
    """What `draw_batch` gives, of episodes that are read on the host."""
    first = int(state.step) * plan.batch
    return read(tasks, source, plan.shape, state.key, first, plan.batch, episode_keys), _keys(plan, state)[1]


_draw = jax.jit(draw_batch, static_argnums=(0, 2))
_step = jax.jit(outer_step, static_argnums=(0, 1))


def lowered(learner: Learner, state: TrainState, tasks: Any, source: Any, plan: Plan) -> Any:
    """The largest program of the next call of `fit`, not compiled yet: what it costs can be read from it."""
    learner = learner.at(int(state.step))
    if isinstance(tasks, HostFamily):
        return _step.lower(learner, plan, state, *_read(tasks, source, plan, state))
    if plan.chunk == 1:
        episodes, keys = jax.eval_shape(lambda s: draw_batch(tasks, source, plan, s), state)
        return _step.lower(learner, plan, state, episodes, keys)
    return several.lower(learner, plan, state, tasks, source, steps_of_call(plan, int(state.step)))
