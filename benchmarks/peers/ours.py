"""The answer of Lethax that peers are compared with."""

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from lethax import trees
from lethax.benchmark import Case, learner_of
from lethax.meta_batch import meta_gradient
from lethax.records import Episode, Progress, Split

from .problem import widths


def answer(
    case: Case, weights: Mapping[str, np.ndarray], episodes: list[tuple[np.ndarray, ...]]
) -> dict[str, np.ndarray]:
    """The outputs of the queries, or the losses and the meta-gradient, by the names of the weights."""
    _, _, learner, plan = learner_of(case)
    if case.net == "resnet12":
        learner = replace(learner, net=replace(learner.net, widths=widths(case)))
    meta = learner.init(jax.random.key(0))
    known = trees.names(meta["weights"])
    leaves = [jnp.asarray(weights[name]) for name in known]
    meta["weights"] = jax.tree.unflatten(jax.tree.structure(meta["weights"]), leaves)
    parts = [jnp.stack(arrays) for arrays in zip(*episodes, strict=True)]
    given = Episode(Split(*parts[:2]), Split(*parts[2:]))
    if case.judged:

        def judged(episode: Episode) -> jax.Array:
            return learner.predict(learner.adapt(meta, episode.support)[0], episode.query.x)

        return {"outputs": np.stack([jax.jit(judged)(trees.at(given, i)) for i in range(case.batch)])}
    plan = replace(plan, devices=1, batch=case.batch)
    keys, progress = jax.random.split(jax.random.key(1), case.batch), Progress(jnp.asarray(0), jnp.asarray(1))
    _, grads, info = jax.jit(lambda m: meta_gradient(learner, plan, m, given, keys, progress))(meta)
    found = dict(zip(known, map(np.asarray, jax.tree.leaves(grads["weights"])), strict=True))
    return {"losses": np.asarray(info["loss"]), **found}
