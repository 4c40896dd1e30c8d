"""The outer loop of meta-reinforcement learning: MAML-TRPO, with or without L2F's start.

    D_i ~ π_θ,   θ'_i = adapt(θ, D_i),   D'_i ~ π_θ'_i,   then a trust-region step of θ (and of L2F's φ) on
    J(θ) = −mean_i mean_t π_θ'_i(a|o) / [π_θ'_i(a|o)] A'   under   mean_i mean_t KL([π_θ'_i] ‖ π_θ'_i) ≤ δ

brackets: held constant. The learner is the one of supervised learning with a policy for its net and `PolicyGradient` for its
objective. Finn et al. 2017; Baik et al. 2020, supplement D.
"""

from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from lethax.devices import TaskLoop, over_tasks
from lethax.gaussian import Normal, divergence, log_density
from lethax.outer import TrainState
from lethax.records import Info, Split
from lethax.rl.objective import as_split, mean_over
from lethax.rl.rollouts import Rollouts, collect_batch, draw_tasks
from lethax.rl.trpo import Product, TrustRegion, line_search, natural_step


@dataclass(frozen=True)
class PolicyPlan:
    """How the outer loop runs. total: outer steps. batch: tasks an outer step. rollouts: of a task before every update and after.

    discount, smoothing: γ, λ of the advantages. share: of the tasks, those whose curvature the conjugate gradients see; the length
    of the step is measured on all.
    resample: L2F's attenuated policy draws the rollouts of the first update itself; they are counted. task_loop, epoch,
    chunk: as in `meta_batch.Plan`; a loop over the tasks keeps what the curvature products read in a core's cache.
    """

    total: int
    batch: int = 20
    rollouts: int = 20
    discount: float = 0.99
    smoothing: float = 1.0
    region: TrustRegion = TrustRegion()
    share: float = 1.0
    resample: bool = False
    epoch: int = 10
    chunk: int = 1
    devices: int = 1
    skip: bool = False
    task_loop: TaskLoop = "vmap"

    def optimizer(self) -> optax.GradientTransformation:
        """An optimiser that does nothing, because a trust-region step has no state."""
        return optax.identity()

    def advance(self, learner: Any, state: TrainState, environment: Any, source: Any) -> tuple[TrainState, Info]:
        """Take one outer step."""
        for_tasks, for_actions = jax.random.split(jax.random.fold_in(state.key, state.step))
        tasks = draw_tasks(environment, for_tasks, self.batch)
        trip = travel(learner, self, state.meta, environment, tasks, for_actions, learner.steps)
        meta, info = improve(learner, self, state.meta, trip.supports, trip.last)
        seen = {"before": trip.returns[:, 0], "score": trip.returns[:, -1], "env_steps": trip.steps, **trip.info}
        after = TrainState(meta, state.optim, state.step + 1, state.key)
        return after, {**{name: jnp.mean(leaf, axis=0) for name, leaf in seen.items()}, **info}

    def several(
        self, learner: Any, state: TrainState, environment: Any, source: Any, steps: int
    ) -> tuple[TrainState, Info]:
        """Take outer steps one after another within a program."""
        return jax.lax.scan(lambda at, _: self.advance(learner, at, environment, source), state, None, length=steps)

    def single(self, learner: Any, state: TrainState, environment: Any, source: Any) -> tuple[TrainState, Info]:
        """One outer step: one program, or, with a simulator of the host, its parts."""
        return (self.advance if environment.on_host else partial(_single, self))(learner, state, environment, source)


@partial(jax.jit, static_argnums=(0, 1, 3))
def _single(plan: PolicyPlan, learner: Any, state: TrainState, environment: Any, source: Any) -> Any:
    return plan.advance(learner, state, environment, source)


class Trip(NamedTuple):
    """What B tasks saw: support sets, the last rollouts as one, returns [B, updates + 1], steps taken [B], what to look at.

    firsts: the first rollout of each of those returns, [B, T, …] each.
    """

    supports: list[Split]
    last: Split
    firsts: list[Rollouts]
    returns: Float[Array, "B u"]
    steps: Float[Array, " B"]
    info: Info


def travel(
    learner: Any, plan: PolicyPlan, meta: Any, environment: Any, tasks: Any, key: PRNGKeyArray, updates: int
) -> Trip:
    """Roll out, update and roll out again, `updates` times, in each of the tasks [B, task].

    Stage 0 is π_θ; stage u the policy after u inner steps, each on the rollouts before it; with `plan.resample` and L2F a stage
    of π_θ̄ in between. DivergedError from a simulator of the host that is given actions that are not finite.
    Finn et al. 2017, algorithm 3; Baik et al. 2020, supplement D.
    """
    supports: list[Split] = []
    returns, firsts, info = [], [], {}  # type: list[Array], list[Rollouts], Info
    steps: Any = 0
    gated = plan.resample and learner.start is not None
    for stage in range(updates + 1 + gated):
        weights = meta["weights"]
        if stage:
            weights, info = adapted(replace(learner, steps=stage - gated), meta, supports)
        rollouts = collect_batch(
            environment, learner.net, weights, tasks, jax.random.fold_in(key, stage), plan.rollouts, shared=not stage
        )
        supports = [*supports, _as_splits(learner.net, plan, weights, rollouts, not stage)]
        steps += jnp.sum(rollouts.alive, axis=(1, 2))
        if not (gated and stage == 1):
            returns.append(rollouts.returns())
            firsts.append(jax.tree.map(lambda leaf: leaf[:, :, 0], rollouts))
    seen = {"gates": info["gates"]} if "gates" in info else {}
    return Trip(supports[:-1], supports[-1], firsts, jnp.stack(returns, axis=1), steps, seen)


@partial(jax.jit, static_argnums=0)
def adapted(learner: Any, meta: Any, supports: list[Split]) -> tuple[Any, Info]:
    """The weights of every task after one inner step on each of its support sets."""
    fast, info = jax.vmap(lambda mine: learner.adapt(meta, mine))(supports)
    return fast.weights, info


@partial(jax.jit, static_argnums=(0, 1, 4))
def _as_splits(policy: Any, plan: PolicyPlan, weights: Any, rollouts: Rollouts, shared: bool) -> Split:
    one = lambda w, r: as_split(policy, w, r, plan.discount, plan.smoothing)  # noqa: E731
    return jax.vmap(one, (None if shared else 0, 0))(weights, rollouts)


@partial(jax.jit, static_argnums=(0, 1))
def improve(
    learner: Any, plan: PolicyPlan, meta: Any, supports: list[Split], query: Split
) -> tuple[Any, dict[str, Array]]:
    """The trust-region step of the meta-parameters on stored rollouts, and what it did.

    `supports`: one set an inner step, arrays [B, n, …]; `query`: the rollouts of the adapted policies, the same. A gradient that is
    not finite moves nothing and shows in "finite". Schulman et al. 2015; Finn et al. 2017, code: constants and order of operations.
    """
    start, tree = ravel_pytree(meta)

    def policy(vector: Array, mine: list[Split], x: Array) -> Normal:
        return learner.net.apply(learner.adapt(tree(vector), mine)[0].weights, x)

    def policies(vector: Array, tasks: tuple[list[Split], Split]) -> Normal:
        return over_tasks(lambda task: policy(vector, task[0], task[1].x), tasks, plan.task_loop)

    def at_start(tasks: tuple[list[Split], Split]) -> tuple[Normal, Any, Product]:
        """The policies of some tasks at θ, their derivative transposed, and v ↦ H v of their divergence."""
        old, forward = jax.linearize(lambda v: policies(v, tasks), start)
        backward = jax.linear_transpose(forward, start)
        return old, backward, lambda v: backward(fisher(old, tasks[1], forward(v)))[0]

    tasks = (supports, query)
    old, backward, product = at_start(tasks)
    gradient = backward(jax.grad(surrogate)(old, old, query))[0]
    count, exact = ceil(plan.share * plan.batch), None
    if count < plan.batch:
        exact, (_, _, product) = product, at_start(jax.tree.map(lambda leaf: leaf[:count], tasks))

    def judge(vector: Array) -> tuple[Array, Array]:
        new = policies(vector, tasks)
        return surrogate(new, old, query), mean_divergence(new, old, query)

    step = natural_step(plan.region, product, gradient, exact)
    vector, outcome = line_search(plan.region, judge, start, step, surrogate(old, old, query))
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree(gradient))])
    moved = {f"moved_{name}": jnp.linalg.norm(ravel_pytree(part)[0])
             for name, part in tree(vector - start).items() if jax.tree.leaves(part)}  # fmt: skip
    info = {
        "loss": -outcome.gain, "kl": outcome.kl, "accepted": outcome.accepted.astype(start.dtype),
        "backtracks": outcome.backtracks.astype(start.dtype), "std": jnp.mean(jnp.exp(meta["weights"]["log_std"])),
        **moved, "finite": finite,
    }  # fmt: skip
    return tree(vector), info


def loss_of(new: Normal, old: Normal, steps: Any) -> Float[Array, ""]:
    """−mean over the steps of one task of π_new/π_old A'."""
    ratio = jnp.exp(log_density(new, steps.actions) - log_density(old, steps.actions))
    return -mean_over(ratio * steps.advantages, steps.alive)


def surrogate(new: Normal, old: Normal, query: Split) -> Float[Array, ""]:
    """J: the mean over tasks of `loss_of`."""
    return jnp.mean(jax.vmap(loss_of)(new, old, query.y))


def mean_divergence(new: Normal, old: Normal, query: Split) -> Float[Array, ""]:
    """C: the mean over tasks of the mean over steps of KL(old ‖ new)."""
    one = lambda p, q, alive: mean_over(divergence(p, q), alive)  # noqa: E731
    return jnp.mean(jax.vmap(one)(old, new, query.y.alive))


def fisher(old: Normal, query: Split, tangent: Normal) -> Normal:
    """F dy: the second derivative of `mean_divergence` in the outputs [B, n, a], 1/σ² for means and 2 for log σ, times dy."""

    def one(old: Normal, alive: Array, tangent: Normal) -> Normal:
        share = alive / jnp.sum(alive)
        return Normal(share[:, None] * tangent.mean * jnp.exp(-2 * old.log_std), 2 * tangent.log_std)

    changed = jax.vmap(one)(old, query.y.alive, tangent)
    return jax.tree.map(lambda leaf: leaf / leaf.shape[0], changed)
