"""No key of one use is a key of another."""

import jax
import numpy as np
import pytest

from lethax import streams
from lethax.data.curves import family
from lethax.meta_batch import Plan
from lethax.methods import MAML
from lethax.nets import MLP
from lethax.objectives import SquaredError
from lethax.outer import begin
from lethax.records import EpisodeShape
from lethax.streams import Stream, stream


def words(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


@pytest.mark.parametrize("seed", [0, 7])
def test_streams_of_a_seed_differ(seed):
    plan = Plan(EpisodeShape(1, 5, 5), total=1)
    training = begin(MAML(MLP(hidden=(4,)), objective=SquaredError()), plan, jax.random.key(seed)).key
    named = {words(stream(jax.random.key(seed), use)) for use in Stream}
    assert len(named) == len(Stream)
    used = [training, streams.validation_key(seed), streams.test_key(seed)]
    assert len({words(key) for key in used}) == 3 and {words(key) for key in used} < named


def test_validation_does_not_see_what_training_is_drawn_from():
    """Validation task t came from the key that outer step t is drawn from."""
    tasks, source, _ = family("sinusoid")
    root = jax.random.key(0)
    steps = [jax.random.fold_in(stream(root, Stream.TRAINING), t) for t in range(4)]
    validation = [jax.random.fold_in(streams.validation_key(0), t) for t in range(4)]
    assert not {words(key) for key in steps} & {words(key) for key in validation}


def test_test_episodes_stay_what_they_were():
    """Published evaluations name their episodes by seed and number: test episode t is fold_in(fold_in(key(seed), 2), t)."""
    assert words(streams.test_key(3)) == words(jax.random.fold_in(jax.random.key(3), 2))
