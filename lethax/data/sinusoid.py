"""Few-shot regression of sine curves."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from lethax.records import Episode, EpisodeShape, Split


@dataclass(frozen=True)
class Sinusoid:
    """y = A sin(ω x + s φ) with A, ω, φ and x uniform in half-open ranges; s is the sign of the phase, −1 in MAML's code."""

    amplitude: tuple[float, float]
    frequency: tuple[float, float]
    phase: tuple[float, float]
    phase_sign: int = 1
    inputs: tuple[float, float] = (-5.0, 5.0)

    def draw(self, source: tuple[()], shape: EpisodeShape, key: PRNGKeyArray) -> Episode:
        """K support and Q query points of one curve, all x independent; arrays [points, 1]."""
        keys = jax.random.split(key, 4)
        amplitude, frequency, phase = (
            jax.random.uniform(k, minval=low, maxval=high)
            for k, (low, high) in zip(keys, (self.amplitude, self.frequency, self.phase), strict=False)
        )
        low, high = self.inputs
        x = jax.random.uniform(keys[3], (shape.shot + shape.query, 1), minval=low, maxval=high)
        y = amplitude * jnp.sin(frequency * x + self.phase_sign * phase)
        return Episode(Split(x[: shape.shot], y[: shape.shot]), Split(x[shape.shot :], y[shape.shot :]))


_PI = 3.141592653589793
# (training, evaluation) families. Sources: Finn et al. 2017 (code), Baik et al. 2020 C.1, Nichol et al. 2018.
_MAML = Sinusoid((0.1, 5.0), (1.0, 1.0), (0.0, _PI), phase_sign=-1)
_L2F = Sinusoid((0.1, 5.0), (0.8, 1.2), (0.0, _PI))
_REPTILE = Sinusoid((0.1, 5.0), (1.0, 1.0), (0.0, 2 * _PI))
SINUSOIDS: dict[str, tuple[Sinusoid, Sinusoid]] = {
    "sinusoid": (_L2F, _L2F),
    "sinusoid_shift": (
        Sinusoid((0.1, 3.0), (0.8, 1.0), (0.0, _PI / 2)),
        Sinusoid((3.0, 5.0), (1.0, 1.2), (_PI / 2, _PI)),
    ),
    "sinusoid_maml": (_MAML, _MAML),
    "sinusoid_reptile": (_REPTILE, _REPTILE),
}
