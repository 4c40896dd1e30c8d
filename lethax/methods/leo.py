"""LEO, latent embedding optimisation: adapt in a low-dimensional code from which a linear classifier's weights are decoded.

    (m, u) = relate(encode(D)),   z_0 = m + σ(u) ε,   w = decode(z)                         one code a class and support example
    z_{j+1} = z_j − η ⊙ ∇_z Σ_D CE,   then from the last decoded w:   w_{j+1} = w_j − η_f ⊙ ∇_w Σ_D CE

Inputs are features of a network trained beforehand. Rusu et al. 2019 and its released code. With L2F's start in both spaces,
z_0 ← γ_z ⊙ z_0 and w ← γ_w ⊙ w with a gate a dimension, it is LEO+L2F: Baik et al. 2020, supplement E.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import inner
from lethax.errors import DataError
from lethax.nets import MLP, layers
from lethax.objectives import CrossEntropy, ScoredObjective
from lethax.precision import Precision, passes, wide
from lethax.records import Episode, Info, Meta, Progress, Split


class LEOMeta(Meta):
    """LEO's meta-parameters: encoder, relation net, decoder and rates, and the gates of both spaces, {} without them."""

    start: dict[str, Any]


@runtime_checkable
class LatentStart(Protocol):
    """Makes gates of a code or a classifier, one for each dimension, from its mean gradient: `l2f.Attenuator` of scope "filter"."""

    @property
    def detached(self) -> bool:
        """Whether the gradient that is read counts as a constant."""

    def init(self, key: PRNGKeyArray, like: Any) -> Any:
        """Meta-parameters of the gates."""

    def apply(self, params: Any, gradient: Any, weights: Any) -> tuple[Any, Info]:
        """Gated weights, and info with "gates"."""


class Draws(NamedTuple):
    """The randomness of a training pass: a key (None in tests, which have no randomness) and the `dropout` of the inputs."""

    key: PRNGKeyArray | None
    dropout: float

    def at(self, place: int | Array) -> "Draws":
        """An independent source for another use."""
        return self if self.key is None else Draws(jax.random.fold_in(self.key, place), self.dropout)

    def normal(self, shape: tuple[int, ...]) -> Array | None:
        """Draw ε, or return None without a key."""
        return None if self.key is None else jax.random.normal(self.key, shape)

    def drop(self, x: Array) -> Array:
        """Set a share of the entries of x to 0, and scale the others up."""
        if self.key is None or not self.dropout:
            return x
        kept = jax.random.bernoulli(self.key, 1 - self.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.dropout), 0.0)


@dataclass(frozen=True)
class LEO:
    """N = net.outputs classes, features of net.inputs entries: LEO makes and adapts the weights of that linear classifier.

    latents: entries of a code. latent_steps, steps: inner steps in the code and of the weights. rate, weight_rate: first values
    of η [latents] and η_f [features]. dropout, kl, penalty, l2, orthogonality: p, β, γ, λ₁, λ₂ of the published table. sigma:
    "code" is max(exp(u) − 1 + offset, 1e-10), "softplus" keeps a gradient everywhere. start: L2F's gates. gates: whether all
    classes of a "task" share them, or each "class" has its own, read from its gradients alone. precision: that of encoder, decoder
    and classifier, see `precision.passes`. loop: how both inner loops are compiled, see `inner.descend`.
    Differs: a step whose gradient is not finite is skipped (`Plan.skip`) rather than replaced by a step of weight decay.
    """

    net: MLP
    objective: ScoredObjective = CrossEntropy()
    start: LatentStart | None = None
    latents: int = 64
    latent_steps: int = 5
    steps: int = 5
    rate: float = 1.0
    weight_rate: float = 1e-3
    dropout: float = 0.3
    kl: float = 0.5
    penalty: float = 1e-6
    l2: float = 1e-8
    orthogonality: float = 1e-3
    sigma: Literal["code", "softplus"] = "code"
    gates: Literal["task", "class"] = "task"
    precision: Precision = "float32"
    loop: inner.Loop = "unroll"

    @property
    def exact(self) -> bool:
        """Whether no derivative is stopped. The reading of gates stops one, and in training the encoder's penalty stops z_J."""
        return not (self.start and self.start.detached)

    def init(self, key: PRNGKeyArray) -> LEOMeta:
        """{"weights": encoder, relation0 to 2, decoder, rates η and η_f; "start": gates of both spaces}; Glorot-uniform."""
        keys = jax.random.split(key, 7)
        shapes = {"encoder": (self.net.inputs, self.latents), "decoder": (self.latents, 2 * self.net.inputs)}
        shapes |= {f"relation{i}": (2 * self.latents, 2 * self.latents) for i in range(3)}
        weights: dict[str, Any] = {
            name: layers.xavier_uniform(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=False)
        }
        weights |= {
            "rate": jnp.full(self.latents, self.rate, float),
            "weight_rate": jnp.full(self.net.inputs, self.weight_rate, float),
        }
        if self.start is None:
            return {"weights": weights, "start": {}}
        like = {"latent": jnp.zeros((1, self.latents))}, {"weight": jnp.zeros((1, self.net.inputs))}
        return {
            "weights": weights,
            "start": {"latent": self.start.init(keys[5], like[0]), "weight": self.start.init(keys[6], like[1])},
        }

    def spread(self, u: Array, offset: float) -> Array:
        """σ(u) > 0; `offset` is 0 for codes and √(2 / (N + features)) for weights."""
        u = wide(u)
        if self.sigma == "softplus":
            return jax.nn.softplus(u) + 1e-10
        return jnp.maximum(jnp.exp(u) - (1 - offset), 1e-10)

    def encode(self, weights: Any, x: Float[Array, "way shot features"]) -> tuple[Array, Array]:
        """Compute m and σ of the codes [way, shot, latents]. Those of one class are equal."""
        way, shot, _ = x.shape
        codes = (x @ weights["encoder"]).reshape(way * shot, self.latents)
        # The first linear layer of every ordered pair (a, b), without writing the pairs out.
        first, second = jnp.split(weights["relation0"], 2)
        h = jax.nn.relu((codes @ first)[:, None] + (codes @ second)[None])
        h = jax.nn.relu(h @ weights["relation1"]) @ weights["relation2"]
        of_class = jnp.mean(h, axis=1).reshape(way, shot, -1).mean(axis=1, keepdims=True)
        mean, u = jnp.split(jnp.repeat(of_class, shot, axis=1), 2, axis=-1)
        return mean, self.spread(u, 0.0)

    def decode(self, decoder: Array, z: Array, noise: Array | None) -> Float[Array, "way shot features"]:
        """Decode the weights of every code; without noise, their mean."""
        mean, u = jnp.split(z @ decoder, 2, axis=-1)
        offset = (2.0 / (self.net.outputs + self.net.inputs)) ** 0.5
        return mean if noise is None else mean + self.spread(u, offset) * noise

    @property
    def _decode(self) -> Callable[..., Array]:
        return passes(self.decode, self.precision)

    def support_loss(self, weights: Array, constants: Any, data: Split) -> Float[Array, ""]:
        """Σ_D CE, the sum over the support, of weights [way, shot, features]."""
        return self.objective.loss(self.predict(weights, data.x), data.y) * data.y.shape[0]

    def latent_loss(self, z: Array, decoder: Array, data: tuple[Split, Array | None]) -> Float[Array, ""]:
        """Σ_D CE of what the codes decode to."""
        split, noise = data
        return self.support_loss(self._decode(decoder, z, noise), None, split)

    def _sorted(self, support: Split) -> tuple[Split, Array]:
        """The support in the order of its classes, and its inputs [way, shot, features]."""
        if support.mask is not None:
            raise DataError(
                "LEO makes a code for every support example and takes as many of each class: leave the mask out."
            )
        shot, left = divmod(support.x.shape[0], self.net.outputs)
        counted = not isinstance(support.y, jax.core.Tracer)  # labels in a compiled program are not known
        if left or counted and np.unique(support.y, return_counts=True)[1].tolist() != [shot] * self.net.outputs:
            raise DataError(
                f"{support.x.shape[0]} support examples are not as many of each of {self.net.outputs} classes, as LEO needs them."
            )
        order = jnp.argsort(support.y, stable=True)
        support = Split(support.x[order], support.y[order])
        return support, support.x.reshape(self.net.outputs, -1, self.net.inputs)

    def _begin(
        self, meta: LEOMeta, name: str, loss: Any, value: Array, constants: Any, data: Any
    ) -> tuple[Array, Info]:
        """γ ⊙ value."""
        assert self.start is not None
        order = 1 if self.start.detached else 2
        _, grads = inner.gradient(loss, value, constants, data, order=order)

        def gated(grads: Array, value: Array) -> tuple[Array, Info]:
            assert self.start is not None
            made, info = self.start.apply(meta["start"][name], {name: grads}, {name: value})
            return made[name], info

        return jax.vmap(gated)(grads, value) if self.gates == "class" else gated(grads, value)

    def _descend(
        self, meta: LEOMeta, support: Split, steps: int, draws: Draws, stops: bool = False
    ) -> tuple[Any, Info]:
        weights = meta["weights"]
        support, x = self._sorted(support)
        mean, sigma = passes(self.encode, self.precision)(weights, draws.at(0).drop(x))
        noise = draws.at(1).normal(mean.shape)
        z_0 = mean if noise is None else mean + sigma * noise
        shape = (*mean.shape[:2], self.net.inputs)
        seen: Info = {}

        def data(place: int | Array) -> Split:
            return Split(draws.at(place).drop(support.x), support.y)

        def latent(place: int | Array) -> tuple[Split, Array | None]:
            return data(10 + place), draws.at(100 + place).normal(shape)

        def latent_step(z: Array, step: Any) -> tuple[Array, Array]:
            loss, grads = inner.gradient(self.latent_loss, z, weights["decoder"], latent(step))
            return z - weights["rate"] * grads, loss

        def weight_step(w: Array, step: Any) -> tuple[Array, Array]:
            loss, grads = inner.gradient(self.support_loss, w, {}, data(200 + step))
            return w - weights["weight_rate"] * grads, loss

        z, gates, read = z_0, [], []
        if self.start:
            z, info = self._begin(meta, "latent", self.latent_loss, z, weights["decoder"], latent(0))
            gates.append(jnp.mean(info["gates"]))
            read.append(info["embedding"].ravel())
        codes = inner.descend(latent_step, z, self.latent_steps, loop=self.loop)
        w = self._decode(weights["decoder"], codes.last, latent(self.latent_steps)[1])
        if self.start:
            w, info = self._begin(meta, "weight", self.support_loss, w, {}, data(200))
            gates.append(jnp.mean(info["gates"]))
            read.append(info["embedding"].ravel())
        path = inner.descend(weight_step, w, steps, loop=self.loop, stops=stops)
        if gates:
            seen |= {"gates": jnp.stack(gates), "embedding": jnp.concatenate(read)}
        if noise is not None:
            seen["kl"] = divergence(noise, sigma, z_0)
            seen["penalty"] = jnp.mean(jnp.square(jax.lax.stop_gradient(codes.last) - z_0))
        return path, {**seen, "support_losses": path.losses, "latent_losses": codes.losses}

    def adapt(self, meta: LEOMeta, support: Split, *, key: PRNGKeyArray | None = None) -> tuple[Array, Info]:
        """Weights [way, shot, features] after all inner steps; `key` samples codes and weights, as in training."""
        path, info = self._descend(meta, support, self.steps, Draws(key, self.dropout))
        return path.last, info

    def predict(self, fast: Array, x: Array, mask: Array | None = None) -> Array:
        """Logits [n, way]; nothing is normalised over them, so the mask changes nothing."""
        return passes(logits, self.precision)(fast, x)

    def loss(
        self, meta: LEOMeta, episode: Episode, *, key: PRNGKeyArray | None = None, progress: Progress | None = None
    ) -> tuple[Float[Array, ""], Info]:
        """Mean query CE + λ₁ Σ w²/2 + λ₂ mean (C − I)²; with a key, in training, + β KL + γ mean (stop(z_J) − z_0)² as well."""
        fast, info = self.adapt(meta, episode.support, key=key)
        draws = Draws(key, self.dropout).at(2)
        outputs = self.predict(fast, draws.drop(episode.query.x))
        query = episode.query
        total = self.objective.loss(outputs, query.y, query.mask) + self.regulariser(meta["weights"])
        if key is not None:
            total = total + self.kl * info.pop("kl") + self.penalty * info.pop("penalty")
        return total, {**info, "score": jax.lax.stop_gradient(self.objective.score(outputs, query.y, query.mask))}

    def regulariser(self, weights: Any) -> Float[Array, ""]:
        """λ₁ Σ w²/2 over encoder, relation net and decoder, and λ₂ mean (C − I)², C the cosines of the decoder's rows."""
        decay = sum(jnp.sum(jnp.square(w)) for name, w in weights.items() if w.ndim == 2) / 2
        return self.l2 * decay + self.orthogonality * correlation(weights["decoder"])

    def path(self, meta: LEOMeta, episode: Episode, steps: int) -> tuple[Array, Info]:
        """Query outputs [steps + 1, n, way] after the adaptation of the codes and 0 to `steps` steps of the weights."""
        path, info = self._descend(meta, episode.support, steps, Draws(None, 0.0), stops=True)
        return jax.vmap(lambda w: self.predict(w, episode.query.x))(path.stops), info

    def at(self, step: int) -> "LEO":
        """The learner itself, which never changes."""
        return self

    def gate_names(self) -> list[str]:
        """The mean gate of each space; none without L2F's start."""
        return ["latent", "weight"] if self.start else []


def logits(weights: Float[Array, "way shot features"], x: Float[Array, "n features"]) -> Float[Array, "n way"]:
    """⟨x, mean over the shots of w⟩: the mean over the copies' logits."""
    return x @ jnp.mean(weights, axis=1).T


def divergence(noise: Array, sigma: Array, z: Array) -> Float[Array, ""]:
    """KL of the codes from N(0, 1) by one sample: the mean over entries of log N(z; m, σ) − log N(z; 0, 1), z = m + σ ε."""
    return jnp.mean(-jnp.square(noise) / 2 - jnp.log(sigma) + jnp.square(z) / 2)


def correlation(decoder: Float[Array, "latents both"]) -> Float[Array, ""]:
    """mean (C − I)², C the cosines between the rows."""
    rows = decoder / jnp.linalg.norm(decoder, axis=1, keepdims=True)
    return jnp.mean(jnp.square(rows @ rows.T - jnp.eye(rows.shape[0])))


def published(tiered: bool, shot: int) -> dict[str, float]:
    """Outer rate and regularisers found by the authors' search, for 1 shot, and for 5 or more. README of the released code."""
    names = ("outer_rate", "l2", "orthogonality", "dropout", "kl", "penalty")
    values = {
        (False, 1): (2.739071e-4, 3.623413e-10, 0.188103, 0.307651, 0.756143, 5.756821e-6),
        (False, 5): (4.102361e-4, 8.540338e-9, 1.523998e-3, 0.300299, 0.466387, 2.661608e-7),
        (True, 1): (8.659053e-4, 4.148858e-10, 5.451078e-3, 0.475126, 2.034189e-3, 8.302962e-5),
        (True, 5): (6.110314e-4, 1.690399e-10, 2.481216e-2, 0.415158, 1.622811, 2.672450e-5),
    }
    return dict(zip(names, values[tiered, 1 if shot == 1 else 5], strict=True))
