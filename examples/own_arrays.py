"""Your own arrays: L2F on pictures that are NumPy arrays, here of drawn stripes. `python examples/own_arrays.py`

`class_split` sorts pictures by class, and `on_device` moves them to the device, where episodes are drawn.
"""

import jax
import numpy as np

import lethax


def stripes(classes: int, each: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures uint8 [n, side, side, 1] of stripes, whose direction and width are the class, and labels [n]."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    waves = random.uniform(-0.8, 0.8, (classes, 2))[labels]
    row, column = np.mgrid[:side, :side]
    shift = random.uniform(0, 2 * np.pi, (len(labels), 1, 1))
    light = np.sin(waves[:, :1, None] * row + waves[:, 1:, None] * column + shift)
    noisy = 128 + 60 * light + 30 * random.normal(size=light.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)[..., None], labels


def main(steps: int = 200, filters: int = 16, inner_steps: int = 3) -> float:
    """Train on some classes, adapt to a task of other classes, and return the accuracy on its queries."""
    train, test = (lethax.class_split(*stripes(30, 20, 16, seed)) for seed in (0, 1))
    tasks, source = lethax.on_device(train, mean=(0.5,), std=(0.25,), rotate=False)
    shape = lethax.EpisodeShape(way=5, shot=3, query=5)
    learner = lethax.L2F(lethax.Conv4(way=5, image=16, channels=1, filters=filters), steps=inner_steps)
    plan = lethax.Plan(shape, total=steps, batch=2, task_loop="unroll")
    start = lethax.begin(learner, plan, jax.random.key(0))
    for state, info in lethax.fit(learner, start, tasks, source, plan):
        if int(state.step) % 50 == 0:
            print(f"step {int(state.step)}: training accuracy {float(info['score'][-1]):.2f}")
    others, source = lethax.on_device(test, mean=(0.5,), std=(0.25,), rotate=False)
    episode = others.draw(source, shape, jax.random.key(1))
    fast, _ = jax.jit(learner.adapt)(state.meta, episode.support)
    right = jax.jit(learner.predict)(fast, episode.query.x).argmax(1) == episode.query.y
    print(f"accuracy on a task of classes that were never trained: {float(right.mean()):.2f}")
    return float(right.mean())


if __name__ == "__main__":
    main()
