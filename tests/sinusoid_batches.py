"""Meta-batches of sinusoids for tests of analyses."""

import jax
import jax.numpy as jnp

import lethax
from lethax.analysis.gradients import Batch
from lethax.data.curves import family
from lethax.records import Progress

SHAPE = lethax.EpisodeShape(way=1, shot=5, query=10)


def drawn(count: int, seed: int = 5) -> Batch:
    """A meta-batch of the first outer step."""
    tasks, ranges, _ = family("sinusoid")
    keys = jax.random.split(jax.random.key(seed), count)
    episodes = jax.vmap(lambda key: tasks.draw(ranges, SHAPE, key))(keys)
    return Batch(episodes, keys, Progress(jnp.asarray(0), jnp.asarray(10)))
