"""Your own training loop: `learner.loss` is the outer objective of one task, and `learner.adapt` is the inner loop.

Both are pure functions, so `jax.grad`, `jax.vmap` and any optimiser of optax work on them. `python examples/own_loop.py`
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lethax


def episode(key: jax.Array) -> lethax.Episode:
    """A line a x + b: five points that are known, and ten that are asked for."""
    of_task, of_points = jax.random.split(key)
    a, b = jax.random.normal(of_task, (2,))
    x = jax.random.uniform(of_points, (15, 1), minval=-2.0, maxval=2.0)
    return lethax.Episode(lethax.Split(x[:5], a * x[:5] + b), lethax.Split(x[5:], a * x[5:] + b))


def main(steps: int = 2000) -> tuple[float, float]:
    """Train, and return the squared error on a new line before and after adaptation."""
    learner = lethax.MAML(
        lethax.MLP(hidden=(32,), spread=0.0), steps=3, rule=lethax.SGD(0.05), objective=lethax.SquaredError()
    )
    meta = learner.init(jax.random.key(0))
    optimizer = optax.adamw(1e-3)
    optim = optimizer.init(meta)

    def objective(meta: Any, episodes: lethax.Episode) -> jax.Array:
        return jax.vmap(lambda one: learner.loss(meta, one)[0])(episodes).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(meta: Any, optim: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        episodes = jax.vmap(episode)(jax.random.split(key, 8))
        loss, gradient = jax.value_and_grad(objective)(meta, episodes)
        change, optim = optimizer.update(gradient, optim, meta)
        return optax.apply_updates(meta, change), optim, loss

    for number, key in enumerate(jax.random.split(jax.random.key(1), steps)):
        meta, optim, loss = step(meta, optim, key)
        if number % 500 == 0:
            print(f"step {number}: loss {float(loss):.4f}")
    new = episode(jax.random.key(2))
    fast, _ = learner.adapt(meta, new.support)
    before, after = (
        float(jnp.mean((outputs - new.query.y) ** 2))
        for outputs in (learner.net.apply(meta["weights"], new.query.x), learner.predict(fast, new.query.x))
    )
    print(f"squared error on a new line: {before:.4f} before adaptation, {after:.4f} after")
    return before, after


if __name__ == "__main__":
    main()
