"""Tasks of your own in one file: damped oscillations, of which the position and the velocity at some times are given.

`draw` draws a task, with its support points and query points. `Options` become options of the command line.

    lethax train oscillation --plugin examples/new_tasks.py --method maml --oscillation.noise 0.1
    lethax evaluate runs/oscillation-maml-5shot-seed0 --plugin examples/new_tasks.py
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lethax import Episode, EpisodeShape, Split, option, register_tasks


@dataclass(frozen=True)
class Options:
    """Damped oscillations."""

    noise: float = option(0.0, "Measurements have normal noise of this deviation.", low=0)


def draw(options: Any, shape: EpisodeShape, key: jax.Array) -> Episode:
    """Amplitudes in [0.5, 2), dampings in [0, 0.5), frequencies in [1, 3), phases in [0, 2π), and times in [0, 5)."""
    of_task, of_times, of_noise = jax.random.split(key, 3)
    low, high = jnp.array([0.5, 0.0, 1.0, 0.0]), jnp.array([2.0, 0.5, 3.0, 2 * jnp.pi])
    amplitude, damping, frequency, phase = jax.random.uniform(of_task, (4,), minval=low, maxval=high)
    t = jax.random.uniform(of_times, (shape.shot + shape.query, 1), maxval=5.0)
    envelope, angle = amplitude * jnp.exp(-damping * t), frequency * t + phase
    position = envelope * jnp.cos(angle)
    y = jnp.concatenate([position, -damping * position - frequency * envelope * jnp.sin(angle)], axis=1)
    y = y + options["noise"] * jax.random.normal(of_noise, y.shape)
    return Episode(Split(t[: shape.shot], y[: shape.shot]), Split(t[shape.shot :], y[shape.shot :]))


published = {"episode.query": 10, "episode.eval_query": 50, "outer.full_steps": 10_000, "net.filters": 40}
register_tasks("oscillation", draw, outputs=2, options=Options, published=published)
