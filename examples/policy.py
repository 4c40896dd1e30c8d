"""A policy: MAML-TRPO on 2D navigation from Python. A point learns to walk to a goal that it cannot see.

`resolve` fills in the published values, and the domain of the data makes the learner and the plan of them.
`python examples/policy.py` takes about a minute.
"""

import jax
import numpy as np

import lethax


def main(steps: int = 50, rollouts: int = 20, horizon: int = 100, units: int = 64) -> np.ndarray:
    """Train, and return the mean return in ten new tasks after 0, 1 and 2 updates."""
    given = {"control.horizon": horizon, "net.filters": units}
    recipe = lethax.resolve(
        lethax.Recipe.of(data="navigation", method="l2f", steps=steps, batch=10, shot=rollouts, **given)
    )
    domain = lethax.domain_of(recipe)
    learner, plan, (tasks, source) = domain.learner(recipe), domain.plan(recipe), domain.family(recipe, "train")
    start = lethax.begin(learner, plan, jax.random.key(0))
    for state, info in lethax.fit(learner, start, tasks, source, plan):
        if int(state.step) % 10 == 0:
            print(f"step {int(state.step)}: return {float(np.ravel(info['score'])[-1]):.1f}")
    judged = domain.judge(recipe, None, "test", [state.meta], 10, 2, jax.random.key(1), True)
    returns = np.concatenate([part.scores for part in judged]).mean(0)
    print("return after 0, 1 and 2 updates:", np.round(returns, 1))
    return returns


if __name__ == "__main__":
    main()
