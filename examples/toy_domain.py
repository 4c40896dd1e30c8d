"""Tasks of your own in one file: few-shot regression of damped oscillations.

A task is one oscillator, x(t) = A exp(−d t) cos(ω t + φ). From a few times t, with the position x and the velocity x'(t) of each, a
learner has to say both at other times. The file has five parts, and any kind of tasks has the same:

1. `Oscillators` draws an episode from a random key. It is compiled, so it is a function of its arguments alone.
2. `Oscillation` is a section of the recipe. Its fields become options of the command line.
3. `published` has the values that are usual for these tasks where they are not lethax's own.
4. `net` is the network that has the right inputs and outputs, and `family` the tasks of each split.
5. `register` makes all of it known by a name.

    lethax train oscillation --plugin examples/toy_domain.py --method maml --oscillation.noise 0.1
    lethax evaluate runs/oscillation-maml-5shot-seed0 --plugin examples/toy_domain.py
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lethax import domains, nets
from lethax.domains import Family, Inputs, Made
from lethax.methods import Method
from lethax.objectives import SquaredError
from lethax.recipe import Recipe, Resolved
from lethax.recipe.sections import option, register_section
from lethax.records import Episode, EpisodeShape, Split


# 1. The tasks.
@dataclass(frozen=True)
class Oscillators:
    """Times are uniform in [0, 5), amplitudes in [0.5, 2), dampings in [0, 0.5), frequencies in [1, 3), phases in [0, 2π)."""

    def draw(self, noise: jax.Array, shape: EpisodeShape, key: jax.Array) -> Episode:
        """One oscillator: inputs [n, 1], outputs [n, 2], for n = shot support points and n = query query points."""
        of_task, of_times, of_noise = jax.random.split(key, 3)
        low, high = jnp.array([0.5, 0.0, 1.0, 0.0]), jnp.array([2.0, 0.5, 3.0, 2 * jnp.pi])
        amplitude, damping, frequency, phase = jax.random.uniform(of_task, (4,), minval=low, maxval=high)
        t = jax.random.uniform(of_times, (shape.shot + shape.query, 1), maxval=5.0)
        envelope, angle = amplitude * jnp.exp(-damping * t), frequency * t + phase
        position = envelope * jnp.cos(angle)
        velocity = -damping * position - frequency * envelope * jnp.sin(angle)
        y = jnp.concatenate([position, velocity], axis=1)
        y = y + noise * jax.random.normal(of_noise, y.shape)
        return Episode(Split(t[: shape.shot], y[: shape.shot]), Split(t[shape.shot :], y[shape.shot :]))


# 2. The options.
@dataclass(frozen=True)
class Oscillation:
    """Damped oscillations."""

    noise: float = option(0.0, "Measurements have normal noise of this deviation.", low=0)


# 3. The values that are usual here. What is not named has lethax's own default.
def published(recipe: Recipe, method: Method) -> dict[str, Any]:
    """By "SECTION.NAME", as in a recipe."""
    return {"episode.query": 10, "episode.eval_query": 50, "outer.full_steps": 10_000, "net.filters": 40}


# 4. The network and the tasks of a split.
def net(recipe: Resolved, inputs: Inputs | None) -> nets.MLP:
    """From a time to position and velocity. `inputs` is what is known of a prepared data set: here there is none."""
    return nets.MLP(inputs=1, hidden=(recipe.net.filters,) * recipe.net.depth, outputs=2, spread=recipe.net.deviation)


def family(recipe: Resolved, split: str) -> Family:
    """The same in each split: training, validation and test draw from random keys that have nothing in common."""
    return Family(Oscillators(), jnp.asarray(recipe.section("oscillation").noise))


# 5. The name.
register_section("oscillation", Oscillation)
domains.register(
    Made(
        kind="oscillations",
        made=("oscillation",),
        sections=("oscillation",),
        published=published,
        net=net,
        family=family,
        objective=SquaredError(),
    )
)
