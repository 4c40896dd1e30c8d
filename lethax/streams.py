"""The streams of randomness: every use has a stream of its own, which is a number folded into the key of the seed.

No two streams share a key, so that what is drawn for one use says nothing about what is drawn for another.
"""

from enum import IntEnum

import jax
from jaxtyping import PRNGKeyArray


class Stream(IntEnum):
    """The uses of randomness. A number never changes its meaning, because the episodes of a seed would change with it."""

    WEIGHTS = 0
    TRAINING = 1
    TEST = 2
    VALIDATION = 3
    PROBE = 4
    ANALYSIS = 5
    BASELINES = 6


def stream(key: PRNGKeyArray, use: Stream) -> PRNGKeyArray:
    """The key of one use of randomness; `key` is `jax.random.key(seed)`."""
    return jax.random.fold_in(key, int(use))


def validation_key(seed: int) -> PRNGKeyArray:
    """The key of the validation episodes, which are the same in every epoch."""
    return stream(jax.random.key(seed), Stream.VALIDATION)


def test_key(seed: int) -> PRNGKeyArray:
    """The key of the test episodes. Episode t has the key fold_in(test_key, t)."""
    return stream(jax.random.key(seed), Stream.TEST)
