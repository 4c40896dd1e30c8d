"""Few-shot regression of curves: sinusoids, and the mixtures of function families of MuMoMAML."""

from dataclasses import dataclass
from math import pi
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax.records import Episode, EpisodeShape, Split

# y of x under parameters p, all uniform in the ranges of a family; the fourth only lends its sign.
FORMS = {
    "sine": lambda p, x: p[0] * jnp.sin(p[1] * x + p[2]),
    "linear": lambda p, x: p[0] * x + p[1],
    "quadratic": lambda p, x: jnp.where(p[3] < 0, -p[0], p[0]) * jnp.square(x - p[1]) + p[2],
    "tanh": lambda p, x: p[0] * jnp.tanh(x - p[1]) + p[2],
    "abs": lambda p, x: p[0] * jnp.abs(x - p[1]) + p[2],
}


class Ranges(NamedTuple):
    """The half-open ranges of the parameters of every form, and the deviation of the noise on y."""

    low: Float[Array, "forms 4"]
    high: Float[Array, "forms 4"]
    noise: Float[Array, ""]


@dataclass(frozen=True)
class Curves:
    """A family of tasks that are curves. The form of a curve is drawn uniformly from `forms`, and x is uniform in [−5, 5)."""

    forms: tuple[str, ...] = ("sine",)
    noisy: bool = False

    def draw(self, ranges: Ranges, shape: EpisodeShape, key: PRNGKeyArray) -> Episode:
        """Draw K support and Q query points of one curve, with independent x. All arrays are [points, 1]."""
        for_form, for_parameters, for_x, for_noise = jax.random.split(key, 4)
        x = jax.random.uniform(for_x, (shape.shot + shape.query, 1), minval=-5.0, maxval=5.0)
        if len(self.forms) == 1:
            p = jax.random.uniform(for_parameters, (4,), minval=ranges.low[0], maxval=ranges.high[0])
            y = FORMS[self.forms[0]](p, x)
        else:
            form = jax.random.randint(for_form, (), 0, len(self.forms))
            p = jax.random.uniform(for_parameters, (4,), minval=ranges.low[form], maxval=ranges.high[form])
            y = jnp.stack([FORMS[name](p, x) for name in self.forms])[form]
        if self.noisy:
            y = y + ranges.noise * jax.random.normal(for_noise, y.shape)
        return Episode(Split(x[: shape.shot], y[: shape.shot]), Split(x[shape.shot :], y[shape.shot :]))


class CurveFamily(NamedTuple):
    """A family of curves, with its ranges in training and in evaluation."""

    curves: Curves
    training: Ranges
    evaluation: Ranges


def _ranges(*forms: tuple[tuple[float, float], ...], noise: float = 0.0) -> Ranges:
    full = [(*form, *[(-1.0, 1.0)] * (4 - len(form))) for form in forms]
    low, high = (jnp.array([[limits[end] for limits in form] for form in full], float) for end in (0, 1))
    return Ranges(low, high, jnp.asarray(noise, float))


# Per form of MuMoMAML's mixtures. A sin(x − φ) is a sine with a phase from [−π, 0).
_MODES = {
    "sine": ((0.1, 5.0), (1.0, 1.0), (-pi, 0.0)),
    "linear": ((-3.0, 3.0), (-3.0, 3.0)),
    "quadratic": ((0.02, 0.15), (-3.0, 3.0), (-3.0, 3.0)),
    "tanh": ((-3.0, 3.0), (-3.0, 3.0), (-3.0, 3.0)),
    "abs": ((-3.0, 3.0), (-3.0, 3.0), (-3.0, 3.0)),
}
# (training, evaluation) ranges of A, ω, φ in A sin(ω x + φ).
# Sources: Baik et al. 2020 C.1, Finn et al. 2017 (code), Nichol et al. 2018.
_SINES = {
    "sinusoid": [((0.1, 5.0), (0.8, 1.2), (0.0, pi))] * 2,
    "sinusoid_shift": [((0.1, 3.0), (0.8, 1.0), (0.0, pi / 2)), ((3.0, 5.0), (1.0, 1.2), (pi / 2, pi))],
    "sinusoid_maml": [((0.1, 5.0), (1.0, 1.0), (-pi, 0.0))] * 2,
    "sinusoid_reptile": [((0.1, 5.0), (1.0, 1.0), (0.0, 2 * pi))] * 2,
}


def family(name: str) -> CurveFamily:
    """Find a family of curves by its name: a kind of sinusoids, or "modes2", "modes3" or "modes5".

    Mixtures: Vuorio et al. 2019 (code), noise of deviation 0.3 on support and query. Differs: a batch has random, not equal,
    counts of its forms.
    """
    if name in _SINES:
        training, evaluation = (_ranges(form) for form in _SINES[name])
        return CurveFamily(Curves(), training, evaluation)
    forms = tuple(FORMS)[: int(name.removeprefix("modes"))]
    ranges = _ranges(*(_MODES[form] for form in forms), noise=0.3)
    return CurveFamily(Curves(forms, noisy=True), ranges, ranges)
