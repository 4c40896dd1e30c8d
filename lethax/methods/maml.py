"""MAML: learn an initialisation from which a few gradient steps solve a task.

    w_0 = start(θ),   w_{j+1} = w_j − α ∇L_D(w_j),   outer objective L_D'(w_J)

The start is θ itself, or L2F's attenuated θ; the step is a rule of `rules.py`; the mask says which tensors move.
Finn, Abbeel, Levine 2017.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import inner, trees
from lethax.learner import Net
from lethax.objectives import CrossEntropy, Objective
from lethax.records import Episode, Info, Progress, Split, Weights
from lethax.rules import SGD, Rule

NormMode = Literal["batch", "support", "support+1"]


class Start(Protocol):
    """Where the inner loop starts, given the support gradient at θ."""

    @property
    def detached(self) -> bool:
        """Whether that gradient counts as a constant."""

    @property
    def every_step(self) -> bool:
        """Whether it is applied again before every inner step."""

    def init(self, key: PRNGKeyArray, like: Weights) -> Any:
        """Meta-parameters of the start."""

    def apply(self, params: Any, gradient: Weights, weights: Weights) -> tuple[Weights, Info]:
        """Weights to start from; `gradient` and `weights` are trees of the tensors that move."""


class Fast(NamedTuple):
    """One task's model: its weights, the inner steps taken, and the support inputs where the norms need them."""

    weights: Weights
    step: Any
    support: Any


@dataclass(frozen=True)
class MAML:
    """A gradient-based learner of an initialisation; the parts make the other methods.

    steps: inner steps J, in training and evaluation. order: 2, or 1 for first-order MAML. second_order_from: outer steps
    before this one are first-order. moved: tensors that the inner loop moves. norm: whose moments batch norm uses for
    queries: "batch" the query batch's own (transductive, as released), "support" the support set's, "support+1" those of
    the support set and the query alone. loop: see `inner.descend`.
    """

    net: Net
    objective: Objective = CrossEntropy()
    rule: Rule = field(default_factory=SGD)
    start: Start | None = None
    steps: int = 5
    order: int = 2
    second_order_from: int = 0
    moved: Literal["all", "head", "body"] = "all"
    norm: NormMode = "batch"
    loop: inner.Loop = "unroll"

    def init(self, key: PRNGKeyArray) -> dict[str, Any]:
        """{"weights": θ, "rule": …, "start": …}; a part without meta-parameters is empty."""
        of_net, of_rule, of_start = jax.random.split(key, 3)
        weights = self.net.init(of_net)
        moving, _ = trees.partition(weights, self.mask(weights))
        return {
            "weights": weights,
            "rule": self.rule.init(of_rule, moving, self.steps),
            "start": self.start.init(of_start, moving) if self.start else {},
        }

    def mask(self, weights: Weights) -> Any:
        """A tree of booleans: which weights the inner loop moves."""
        adapted = self.net.adapted(weights)
        if self.moved == "all":
            return adapted
        wanted = self.moved == "head"
        return jax.tree.map(lambda moves, head: moves and head == wanted, adapted, self.net.head(weights))

    def support_loss(self, moving: Weights, fixed: Weights, data: tuple[Split, Any]) -> Float[Array, ""]:
        """L_D at weights split into what moves and what does not."""
        support, step = data
        outputs = self.net.apply(trees.combine(moving, fixed), support.x, step=step)
        return self.objective.loss(outputs, support.y)

    def _descend(self, meta: Any, support: Split, steps: int, stops: bool) -> tuple[inner.Path, Weights, Info]:
        moving, fixed = trees.partition(meta["weights"], self.mask(meta["weights"]))
        info: Info = {}

        def begin(weights: Weights, step: Any) -> tuple[Weights, Info]:
            assert self.start is not None
            order = 1 if self.start.detached else 2
            loss, grads = inner.gradient(self.support_loss, weights, fixed, (support, step), order=order)
            weights, seen = self.start.apply(meta["start"], grads, weights)
            return weights, {**seen, "support_loss_at_theta": loss}

        def update(weights: Weights, step: Any) -> tuple[Weights, Array]:
            if self.start and self.start.every_step:
                weights, _ = begin(weights, step)
            loss, grads = inner.gradient(self.support_loss, weights, fixed, (support, step), order=self.order)
            return self.rule.apply(meta["rule"], weights, grads, step), loss

        if self.start and not self.start.every_step:
            moving, info = begin(moving, 0)
        path = inner.descend(update, moving, steps, loop=self.loop, stops=stops)
        return path, fixed, {**info, "support_losses": path.losses}

    def _fast(self, moving: Weights, fixed: Weights, step: Any, support: Split) -> Fast:
        return Fast(trees.combine(moving, fixed), step, None if self.norm == "batch" else support.x)

    def adapt(self, meta: Any, support: Split, *, key: PRNGKeyArray | None = None) -> tuple[Fast, Info]:
        """Weights after J inner steps on `support`; info has the support loss before every step, and L2F's gates."""
        path, fixed, info = self._descend(meta, support, self.steps, stops=False)
        return self._fast(path.last, fixed, max(self.steps - 1, 0), support), info

    def predict(self, fast: Fast, x: Array) -> Array:
        """Outputs [n, out]; what an input gets depends on its neighbours only under the norm mode "batch"."""
        if self.norm == "batch":
            return self.net.apply(fast.weights, x, step=fast.step)
        count = fast.support.shape[0]
        if self.norm == "support":
            joined = jnp.concatenate([fast.support, x])
            return self.net.apply(fast.weights, joined, step=fast.step, reference=count)[count:]

        def alone(example: Array) -> Array:
            joined = jnp.concatenate([fast.support, example[None]])
            return self.net.apply(fast.weights, joined, step=fast.step)[count]

        return jax.lax.map(alone, x)

    def loss(
        self, meta: Any, episode: Episode, *, key: PRNGKeyArray | None = None, progress: Progress | None = None
    ) -> tuple[Float[Array, ""], Info]:
        """L_D'(w_J)."""
        fast, info = self.adapt(meta, episode.support, key=key)
        outputs = self.predict(fast, episode.query.x)
        score = self.objective.score(outputs, episode.query.y)
        return self.objective.loss(outputs, episode.query.y), {**info, "score": jax.lax.stop_gradient(score)}

    def path(self, meta: Any, episode: Episode, steps: int) -> tuple[Array, Info]:
        """Query outputs [steps + 1, n, out] after 0 to `steps` inner steps, more than J included."""
        path, fixed, info = self._descend(meta, episode.support, steps, stops=True)

        def at(step: int) -> Array:
            moving = jax.tree.map(lambda stop: stop[step], path.stops)
            return self.predict(self._fast(moving, fixed, max(step - 1, 0), episode.support), episode.query.x)

        return jnp.stack([at(step) for step in range(steps + 1)]), info

    def at(self, step: int) -> "MAML":
        """First order before outer step `second_order_from`."""
        return replace(self, order=1) if step < self.second_order_from else self
