"""MAML with the package `jax-meta`. It has no regression, so its loss is given; drawing is that of Lethax, in the same program."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import haiku
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax_meta.metalearners import MAML

from lethax.benchmark import Case
from lethax.data.curves import family
from lethax.records import EpisodeShape

from .problem import widths_of_layers

RATE, OUTER_RATE = 0.01, 1e-3


class Points(NamedTuple):
    """The points of one or more tasks."""

    inputs: Any
    targets: Any


class Regression(MAML):
    """MAML with the squared error."""

    def loss(self, params: Any, state: Any, inputs: Any, targets: Any, args: Any) -> Any:
        outputs, state = self.model.apply(params, state, inputs, *args)
        return jnp.mean(jnp.square(outputs - targets)), (state, {})


class JaxMeta:
    """One compiled call an outer step."""

    steps = 1

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        layers = widths_of_layers(case)[1:]
        net = haiku.without_apply_rng(haiku.transform_with_state(lambda x: haiku.nets.MLP(layers)(x)))
        self.maml = Regression(net, num_steps=case.steps, alpha=RATE)
        _, self.state = self.maml.init(jax.random.PRNGKey(0), optax.adam(OUTER_RATE), jnp.zeros((1, 1)))
        self.params = {
            f"mlp/~/linear_{i}": {kind[0]: jnp.asarray(weights[f"layer{i}/{kind}"]) for kind in ("weight", "bias")}
            for i in range(len(layers))
        }
        tasks, ranges, _ = family("sinusoid")
        shape = EpisodeShape(case.way, case.shot, case.query)

        def step(params: Any, state: Any, key: Any) -> Any:
            key, now = jax.random.split(key)
            drawn = jax.vmap(lambda k: tasks.draw(ranges, shape, k))(jax.random.split(now, case.batch))
            support, query = (Points(part.x, part.y) for part in (drawn.support, drawn.query))
            return (*self.maml.train_step(params, state, support, query, ())[:2], key)

        self._step, self.key = jax.jit(step), jax.random.key(1)

    def call(self) -> None:
        """Take one outer step."""
        self.params, self.state, self.key = self._step(self.params, self.state, self.key)
        jax.block_until_ready(self.params)

    def answer(self, episodes: list[tuple[np.ndarray, ...]]) -> dict[str, np.ndarray]:
        """The loss of each task, and the meta-gradient."""
        parts = [jnp.stack(arrays) for arrays in zip(*episodes, strict=True)]
        support, query, inner = Points(*parts[:2]), Points(*parts[2:]), self.state.model
        one = jax.vmap(lambda s, q: self.maml.outer_loss(self.params, inner, s, q, ())[0])
        grads = jax.grad(lambda p: self.maml.batch_outer_loss(p, inner, support, query, ())[0])(self.params)
        found = {
            f"layer{i}/{kind}": np.asarray(grads[f"mlp/~/linear_{i}"][kind[0]])
            for i in range(len(grads))
            for kind in ("weight", "bias")
        }
        return {"losses": np.asarray(one(support, query)), **found}
