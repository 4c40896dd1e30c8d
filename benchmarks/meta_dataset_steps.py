"""Time outer steps on episodes of any shape, and on episodes of one shape and the same mean size; count the programs.

    python benchmarks/meta_dataset_steps.py --episodes 100 [--filters 64] [--inner-steps 5] [--method maml]

It takes the training sources of Meta-Dataset that are prepared. Each episode is run twice, and the second run is timed, so that
compilation is not. The fixed episodes have as many support and query examples as the drawn ones have on average, without padding.
"""

import argparse
import json
import time
from typing import Any

import jax
import numpy as np

from lethax.data.buckets import PaddedEpisodes, PaddedExamples
from lethax.devices import use_all_cores
from lethax.domains import domain_of
from lethax.learner import Learner
from lethax.meta_batch import episode_keys
from lethax.outer import TrainState, begin
from lethax.recipe import Recipe
from lethax.recipe.resolve import fit


class Given:
    """A reader that always has the same arrays."""

    def __init__(self, arrays: PaddedEpisodes) -> None:
        self.arrays = arrays

    def read(self, seed: int, first: int, count: int) -> PaddedEpisodes:
        return self.arrays


def fixed(example: tuple[int, ...], way: int, support: int, query: int) -> PaddedEpisodes:
    """An episode of noise in which every example counts."""
    random = np.random.default_rng(0)

    def part(count: int) -> PaddedExamples:
        pixels = random.integers(0, 255, (1, count, *example), np.uint8)
        return PaddedExamples(pixels, np.arange(count, dtype=np.int32)[None] % way, np.ones((1, count), np.float32))

    return PaddedEpisodes(part(support), part(query))


def seconds(learner: Learner, plan: Any, state: TrainState, tasks: Any, source: Any) -> float:
    """The time of one outer step."""
    begun = time.perf_counter()
    jax.block_until_ready(plan.single(learner, state, tasks, source))
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("episodes", 100), ("filters", 64), ("inner-steps", 5), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--method", default="maml")
    args = parser.parse_args()
    use_all_cores()
    asked = Recipe.of(
        data="metadataset", method=args.method, filters=args.filters, inner_steps=args.inner_steps, seed=args.seed
    )
    recipe, note = fit(asked)
    domain = domain_of(recipe)
    inputs, plan = domain.inputs(recipe), domain.plan(recipe)
    assert inputs is not None
    learner, (tasks, source) = domain.learner(recipe, inputs), domain.family(recipe, "train")
    state = begin(learner, plan, jax.random.key(args.seed))
    drawn, sizes, shapes = [], [], set()
    for number in range(args.episodes):
        arrays = tasks.fetch(source, plan.shape, state.key, number, 1, episode_keys)
        shapes.add((arrays.support.labels.shape[1], arrays.query.labels.shape[1]))
        sizes.append((arrays.support.labels.max() + 1, arrays.support.mask.sum(), arrays.query.mask.sum()))
        seconds(learner, plan, state, tasks, Given(arrays))
        drawn.append(seconds(learner, plan, state, tasks, Given(arrays)))
    way, support, query = np.mean(sizes, axis=0).round().astype(int).tolist()
    one = Given(fixed(inputs.example, way, support, query))
    seconds(learner, plan, state, tasks, one)
    same = [seconds(learner, plan, state, tasks, one) for _ in range(args.episodes)]
    print(json.dumps({
        "setting": vars(args), "note": note, "image": inputs.example[0], "device": jax.devices()[0].device_kind,
        "mean_way": way, "mean_support": support, "mean_query": query, "programs": len(shapes),
        "seconds_a_step": {"drawn": float(np.mean(drawn)), "fixed": float(np.mean(same))},
        "ratio": float(np.mean(drawn) / np.mean(same)),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
