"""A sine in 40 lines: MAML learns to fit any sine curve from five of its points. `python examples/sine.py` takes a minute."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import lethax


@dataclass(frozen=True)
class Sines:
    """A task is A sin(x + φ) with A in [0.1, 5), φ in [0, π) and x in [-5, 5)."""

    def draw(self, source: tuple[()], shape: lethax.EpisodeShape, key: jax.Array) -> lethax.Episode:
        """One curve with `shape.shot` points that are known, and `shape.query` that are asked for."""
        for_curve, for_points = jax.random.split(key)
        amplitude, phase = jax.random.uniform(for_curve, (2,)) * jnp.array([4.9, jnp.pi]) + jnp.array([0.1, 0.0])
        x = jax.random.uniform(for_points, (shape.shot + shape.query, 1), minval=-5.0, maxval=5.0)
        known, asked = (lethax.Split(part, amplitude * jnp.sin(part + phase)) for part in jnp.split(x, [shape.shot]))
        return lethax.Episode(known, asked)


def main(steps: int = 20_000, episodes: int = 1000) -> lethax.Score:
    """Train for some outer steps, and return the squared error on new curves after one inner step."""
    learner = lethax.MAML(lethax.MLP(), steps=1, objective=lethax.SquaredError())
    shape = lethax.EpisodeShape(way=1, shot=5, query=10)
    plan = lethax.Plan(shape, total=steps, batch=4, chunk=min(steps, 500))
    for state, info in lethax.fit(learner, lethax.begin(learner, plan, jax.random.key(0)), Sines(), (), plan):
        print(f"step {int(state.step)}: loss {float(info['loss'][-1]):.3f}")
    trial = lethax.Trial(shape, episodes=episodes, steps=1, curve=True, together=100)
    judged = lethax.evaluate(learner, [state.meta], Sines(), (), trial, jax.random.key(1))
    found = lethax.score(np.concatenate([scores[:, -1] for scores, _ in judged]))
    print(f"squared error {found.mean:.3f} ± {found.ci95:.3f}")
    return found


if __name__ == "__main__":
    main()
