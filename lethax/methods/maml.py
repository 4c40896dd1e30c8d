"""MAML: learn an initialisation from which a few gradient steps solve a task.

    w_0 = start(θ),   w_{j+1} = w_j − α ∇L_D(w_j),   outer objective L_D'(w_J)

The start is θ itself, or L2F's attenuated θ; the step is a rule of `rules.py`; the mask says which tensors move; an encoder may
modulate the net by the task (MuMoMAML); a bridge may replace the derivative of the inner loop (Reptile, iMAML); the outer objective
may be a sum over the steps (MAML++).
Finn, Abbeel, Levine 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import inner, trees
from lethax.errors import RecipeError
from lethax.learner import InnerPath, Net
from lethax.methods.contract import Bridge, Encoder, Pacing, Start
from lethax.methods.fast import Fast, NormMode, query_outputs
from lethax.nets.heads import HeadStart, started
from lethax.objectives import CrossEntropy, Objective, ScoredObjective
from lethax.precision import Precision, passes
from lethax.records import Episode, Info, Mask, Meta, Progress, Split, Weights
from lethax.rules import LSLR, SGD, MetaSGD, Rule


class MAMLMeta(Meta):
    """MAML's meta-parameters: the initial weights, and those of each part; {} for a part that has none."""

    rule: Any
    start: Any
    encoder: Any


@dataclass(frozen=True)
class MAML:
    """MAML: a learner of an initialisation from which a few gradient steps solve a task.

        w_0 = θ,   w_{j+1} = w_j − α ∇L_D(w_j),   outer objective L_D'(w_J)

    D is the support set, D' the query set, α the inner rate and J the number of inner steps. Each part can be replaced, and most
    other methods are MAML with one part replaced.

    Arguments:
        net: the network, such as `Conv4` or `MLP`.
        objective: the loss and the score of a task: `CrossEntropy()` for class numbers, `SquaredError()` for real targets.
        rule: how a gradient moves the weights, such as `SGD(rate=0.01)` or `MetaSGD(rate=0.01)`.
        start: where the inner loop begins; θ itself unless given. `L2F` gives an `Attenuator` here.
        encoder: a task encoder that modulates the net (MuMoMAML).
        bridge: a meta-gradient that does not pass through the inner loop (Reptile, iMAML).
        steps: the number of inner steps J ≥ 0, in training and in evaluation.
        order: 2 differentiates through the inner steps; 1 is first-order MAML.
        second_order_from: the outer steps before this one are of first order.
        moved: the tensors that the inner loop moves: "all", the "head" (ANIL), or the "body" (BOIL).
        head: where the last layer starts in each task, see `nets.heads.started`: from the "trained" weights, which is MAML's way,
            or from "zero", a "vector", or "prototypes" (Proto-MAML). Then meta-parameters of another number of classes fit, too.
        norm: whose moments batch norm uses for queries: those of the query "batch" itself, of the "support" set, or of the support
            set and one query, "support+1".
        loop: how the inner loop is compiled, see `inner.descend`.
        multi_step_until: the outer steps before this one have the multi-step loss of MAML++; 0 switches it off.
        multi_step_epoch: the weights of that loss change after every so many outer steps.
        inner_clamp: each entry of a gradient that moves the weights is cut to ± this bound, as in MuMoMAML's released code; 0 is
            off.
        derivative: how the second order is computed, see `inner.gradient`.
        precision: that of every pass of the net and of the encoder, see `precision.passes`. All around them is float32.

    Returns:
        A learner. `init(key)` makes meta-parameters, `adapt(meta, support)` gives (fast weights, info), `predict(fast, x)` gives
        outputs [n, out], and `loss(meta, episode)` is the outer objective of one task.

    Raises:
        DataError: from `adapt` and `predict`, where inputs have another shape than the net was made for.
        RecipeError: from `adapt`, where the meta-parameters are of another number of classes and have a value for each.

    Where the data depend on the weights (reinforcement learning), a support set may be a list: one entry for each inner step, of
    which the start reads the first; or one entry more, which only the start reads.

    Source: Finn, Abbeel, Levine 2017.

    Example:
        >>> import jax, lethax
        >>> from lethax.data.curves import family
        >>> tasks, ranges, _ = family("sinusoid")
        >>> learner = lethax.MAML(lethax.MLP(hidden=(8,)), lethax.SquaredError(), steps=1)
        >>> meta = learner.init(jax.random.key(0))
        >>> episode = tasks.draw(ranges, lethax.EpisodeShape(way=1, shot=5, query=10), jax.random.key(1))
        >>> fast, info = jax.jit(learner.adapt)(meta, episode.support)
        >>> learner.predict(fast, episode.query.x).shape
        (10, 1)
    """

    net: Net
    objective: Objective = CrossEntropy()
    rule: Rule = field(default_factory=SGD)
    start: Start | None = None
    encoder: Encoder | None = None
    bridge: Bridge | None = None
    steps: int = 5
    order: int = 2
    second_order_from: int = 0
    moved: Literal["all", "head", "body"] = "all"
    head: HeadStart = "trained"
    norm: NormMode = "batch"
    loop: inner.Loop = "unroll"
    multi_step_until: int = 0
    multi_step_epoch: int = 500
    inner_clamp: float = 0.0
    derivative: inner.Derivative = "mixed"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.bridge and (self.multi_step_until or (self.start and self.start.every_step)):
            named = "multi_step_until" if self.multi_step_until else "every_step of the start"
            raise RecipeError(
                f"{named} is set beside a bridge, which gives a derivative to the last weights alone: what acts at the inner steps "
                "before would not be trained. Leave one of them out."
            )

    def init(self, key: PRNGKeyArray) -> MAMLMeta:
        """{"weights": θ, "rule": …, "start": …, "encoder": …}; a part without meta-parameters is empty."""
        of_net, of_rule, of_start, of_encoder = jax.random.split(key, 4)
        weights = self.net.init(of_net)
        moving, _ = trees.partition(weights, self.mask(weights))
        return {
            "weights": weights,
            "rule": self.rule.init(of_rule, moving, self.steps),
            "start": self.start.init(of_start, moving) if self.start else {},
            "encoder": self.encoder.init(of_encoder) if self.encoder else {},
        }

    @property
    def exact(self) -> bool:
        """Whether the method has second order, no bridge, and nothing detached in the rule or the start."""
        detached = self.start and self.start.detached
        return self.order == 2 and self.rule.exact and not detached and self.bridge is None

    @property
    def linear(self) -> bool:
        """Whether an inner step is known to be linear in the support gradient, as gates that act on the rate need it."""
        proximal = self.bridge is not None and self.bridge.proximity > 0
        return isinstance(self.rule, SGD | MetaSGD | LSLR) and not self.inner_clamp and not proximal

    def mask(self, weights: Weights) -> Mask:
        """A tree of booleans: which weights the inner loop moves."""
        adapted = self.net.adapted(weights)
        if self.moved == "all":
            return adapted
        wanted = self.moved == "head"
        return jax.tree.map(lambda moves, head: moves and head == wanted, adapted, self.net.head(weights))

    def gate_names(self) -> list[str]:
        """What each of L2F's gates scales; an empty list without L2F."""
        if self.start is None:
            return []
        weights = jax.eval_shape(self.net.init, jax.random.key(0))
        return self.start.groups(trees.partition(weights, self.mask(weights))[0])

    @property
    def _apply(self) -> Callable[..., Array]:
        """A pass of the net."""
        return passes(self.net.apply, self.precision)

    def support_loss(self, moving: Weights, fixed: Weights, data: tuple[Split, int | Array]) -> Float[Array, ""]:
        """L_D at weights split into what moves and what does not."""
        support, step = data
        outputs = self._apply(_whole(moving, fixed), support.x, step=step, mask=support.mask)
        return self.objective.loss(outputs, support.y, support.mask)

    def _descend(
        self, meta: MAMLMeta, support: Split | list[Split], steps: int, stops: bool
    ) -> tuple[inner.Path, Weights, Info]:
        first, of_step = (support[0], support[-steps:]) if isinstance(support, list) else (support, None)
        encode = self.encoder and passes(self.encoder.apply, self.precision)
        modulation = {"modulation": encode(meta["encoder"], first)} if encode else {}
        weights = self._start_head(meta, first, modulation)
        moving, still = trees.partition(weights, self.mask(weights))
        fixed = {"weights": still, **modulation}
        info: Info = {}
        pull = self.bridge.proximity if self.bridge else 0.0

        def begin(weights: Weights, step: int | Array) -> tuple[Weights, Weights | None, Info]:
            assert self.start is not None
            order = 1 if self.start.detached else 2
            loss, grads = self._gradient(weights, fixed, (first, step), order)
            pace = self.start.pace(meta["start"], grads, weights) if isinstance(self.start, Pacing) else None
            weights, seen = self.start.apply(meta["start"], grads, weights)
            return weights, pace, {**seen, "support_loss_at_theta": loss}

        def update(weights: Weights, step: int | Array) -> tuple[Weights, Array]:
            pace = of_task
            if self.start and self.start.every_step:
                weights, pace, _ = begin(weights, step)
            loss, grads = self._gradient(weights, fixed, (of_step[step] if of_step else first, step), self.order)
            if pull:
                grads = jax.tree.map(lambda g, w, w_0: g + pull * (w - w_0), grads, weights, moving)
            if self.inner_clamp:
                grads = jax.tree.map(lambda g: jnp.clip(g, -self.inner_clamp, self.inner_clamp), grads)
            moved = self.rule.apply(meta["rule"], weights, grads, step)
            if pace is not None:
                moved = jax.tree.map(lambda w, new, share: w + share * (new - w), weights, moved, pace)
            return moved, loss

        of_task: Weights | None = None
        if self.start:
            attenuated, pace, info = begin(moving, 0)
            if not self.start.every_step:  # else only the gates of the first step are told, and the steps attenuate
                moving, of_task = attenuated, pace
        path = inner.descend(update, moving, steps, loop=self.loop, stops=stops)
        if self.bridge and steps:
            last = jax.lax.stop_gradient(path.last)
            path = path._replace(last=self.bridge.apply(self.support_loss, moving, last, fixed, (first, steps - 1)))
        return path, fixed, {**info, "support_losses": path.losses}

    def _start_head(self, meta: MAMLMeta, support: Split, modulation: Weights) -> Weights:
        """The initial weights, with the last layer that a task starts from."""
        weights = started(self.head, self.net, meta["weights"], support, modulation, self.precision)
        if weights is meta["weights"]:
            return weights
        like = jax.eval_shape(self.init, jax.random.key(0))
        sizes = dict(zip(trees.names(like), map(jnp.shape, jax.tree.leaves(like)), strict=True))
        found = {**meta, "weights": weights}
        for name, leaf in zip(trees.names(found), jax.tree.leaves(found), strict=True):
            if sizes.get(name, leaf.shape) != leaf.shape:  # a part that this learner does not have is not read
                raise RecipeError(
                    f"this method has learned values for the classes that it was trained on ({name} is {list(leaf.shape)}): give "
                    "the number of classes that it was trained on, or train it on this number with --way."
                )
        return weights

    def _gradient(
        self, weights: Weights, fixed: Weights, data: tuple[Split, int | Array], order: int
    ) -> tuple[Array, Weights]:
        return inner.gradient(self.support_loss, weights, fixed, data, order=order, derivative=self.derivative)

    def _fast(self, moving: Weights, fixed: Weights, step: int | Array, support: Any) -> Fast:
        return Fast(_whole(moving, fixed), step, None if self.norm == "batch" else support._replace(y=None))

    def adapt(
        self, meta: MAMLMeta, support: Split | list[Split], *, key: PRNGKeyArray | None = None
    ) -> tuple[Fast, Info]:
        """Take J inner steps on `support`. Info has the support loss before every step, and L2F's gates."""
        path, fixed, info = self._descend(meta, support, self.steps, stops=False)
        return self._fast(path.last, fixed, max(self.steps - 1, 0), support), info

    def predict(self, fast: Fast, x: Array, mask: Float[Array, " n"] | None = None) -> Array:
        """Compute outputs [n, out]. The output of an input depends on the other inputs only under the norm mode "batch"."""
        return query_outputs(self._apply, self.norm, fast, x, mask)

    def loss(
        self, meta: MAMLMeta, episode: Episode, *, key: PRNGKeyArray | None = None, progress: Progress | None = None
    ) -> tuple[Float[Array, ""], Info]:
        """L_D'(w_J), or Σ_j v_j L_D'(w_{j+1}) in the multi-step phase."""
        if self.multi_step_until and self.steps:
            epoch = (progress.step if progress else jnp.zeros((), jnp.int32)) // self.multi_step_epoch
            shares = multi_step_weights(self.steps, epoch, max(self.multi_step_until // self.multi_step_epoch, 1))
            along, info = self._outputs(meta, episode, self.steps)
            losses = jnp.stack([self._query_loss(outputs, episode.query) for outputs in along[1:]])
            return jnp.sum(shares * losses), {**info, **self._score(along[-1], episode.query)}
        fast, info = self.adapt(meta, episode.support, key=key)
        outputs = self.predict(fast, episode.query.x, episode.query.mask)
        return self._query_loss(outputs, episode.query), {**info, **self._score(outputs, episode.query)}

    def _query_loss(self, outputs: Array, query: Split) -> Float[Array, ""]:
        return self.objective.loss(outputs, query.y, query.mask)

    def _score(self, outputs: Array, query: Split) -> Info:
        assert isinstance(self.objective, ScoredObjective)
        return {"score": jax.lax.stop_gradient(self.objective.score(outputs, query.y, query.mask))}

    def _outputs(self, meta: MAMLMeta, episode: Episode, steps: int) -> tuple[list[Array], Info]:
        path, fixed, info = self._descend(meta, episode.support, steps, stops=True)

        def at(step: int) -> Array:
            moving = trees.at(path.stops, step)
            fast = self._fast(moving, fixed, max(step - 1, 0), episode.support)
            return self.predict(fast, episode.query.x, episode.query.mask)

        return [at(step) for step in range(steps + 1)], info

    def path(self, meta: MAMLMeta, episode: Episode, steps: int) -> tuple[Array, Info]:
        """Query outputs [steps + 1, n, out] after 0 to `steps` inner steps, more than J included."""
        outputs, info = self._outputs(meta, episode, steps)
        return jnp.stack(outputs), info

    def inner_path(self, meta: MAMLMeta, support: Split, steps: int) -> InnerPath:
        """Take `steps` inner steps, and return all stops, from w_0 on, with the support loss as a function."""
        path, fixed, _ = self._descend(meta, support, steps, stops=True)
        return InnerPath(
            path.stops,
            lambda moving, step: self.support_loss(moving, fixed, (support, step)),
            lambda moving, step: self._fast(moving, fixed, step, support),
        )

    def at(self, step: int) -> "MAML":
        """First order before outer step `second_order_from`, the last step's loss alone from `multi_step_until` on."""
        order = 1 if step < self.second_order_from else self.order
        return replace(self, order=order, multi_step_until=self.multi_step_until if step < self.multi_step_until else 0)


def _whole(moving: Weights, fixed: Weights) -> Weights:
    """Join the weights that a net takes: all of its own, and a modulation if there is one."""
    weights = trees.combine(moving, fixed["weights"])
    return {**weights, "modulation": fixed["modulation"]} if "modulation" in fixed else weights


def multi_step_weights(steps: int, epoch: Array | int, epochs: int) -> Float[Array, " J"]:
    """v [J], of sum 1: every early step max(1/J − e/(J E), 0.03/J), the last one min(1/J + e (J − 1)/(J E), 1 − (J − 1) 0.03/J).

    e, E: the epoch and the number of epochs with a multi-step loss. Antoniou et al. 2019, section 4, and its released code.
    """
    early = jnp.maximum(1 / steps - epoch / (steps * epochs), 0.03 / steps)
    last = jnp.minimum(1 / steps + epoch * (steps - 1) / (steps * epochs), 1 - (steps - 1) * 0.03 / steps)
    return jnp.append(jnp.full((steps - 1,), early), last)
