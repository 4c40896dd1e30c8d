"""Time outer steps and evaluations on random data, each case in a process of its own.

Only what is timed imports JAX: the first step counts that import, and the same cases are done by programs that have no JAX.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lethax import hardware
from lethax.errors import LethaxError
from lethax.text import shown

CLASSES, IMAGES = 20, 40  # of the random data set: classes, and images of each
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """What is timed: an outer step of training, or the evaluation of one episode.

    net, px, filters: the network and the size of images; px 0 is the sinusoid, whose layers have `filters` units. way, shot, query:
    the shape of episodes. steps: inner steps α = 0.01. batch: episodes of an outer step. method, order, memory: as in a recipe.
    judged: an evaluation is timed instead of training. runs: trained in one program, as `lethax reproduce` trains
    the seeds of a small net; what is timed is an outer step of one of them.
    """

    name: str
    net: Literal["mlp", "conv4", "resnet12"] = "conv4"
    px: int = 32
    filters: int = 64
    way: int = 5
    shot: int = 5
    query: int = 15
    steps: int = 5
    batch: int = 2
    method: str = "maml"
    order: int = 2
    memory: str = "fast"
    judged: bool = False
    runs: int = 1

    @property
    def unit(self) -> str:
        """What one of them takes the measured seconds."""
        return "episode" if self.judged else "outer step"


SINUSOID = Case("sinusoid", "mlp", px=0, filters=40, way=1, query=10, steps=1, batch=4)
SINUSOIDS = dataclasses.replace(SINUSOID, name="sinusoid, ten runs", runs=10)
CONV_32, CONV_84 = Case("4-conv 32 px"), Case("4-conv 84 px", px=84)
RESNET = Case("ResNet12 84 px, 1 shot", "resnet12", px=84, shot=1, batch=1)
EVALUATION = Case("4-conv 32 px, evaluation", judged=True)


def lean(case: Case) -> Case:
    """The same case with memory that is flat in the number of inner steps."""
    return dataclasses.replace(case, name=f"{case.name}, lean", memory="lean")


QUICK = (SINUSOID, CONV_32, lean(CONV_32))
ALL = (*QUICK, SINUSOIDS, EVALUATION, CONV_84, lean(CONV_84), RESNET)


class Measured(NamedTuple):
    """What a process measured.

    first: seconds to the end of its first call, imports and compilation included. seconds: of a step, in each later call. peak: the
    most bytes that it held; None where that is not known.
    """

    first: float
    seconds: list[float]
    peak: int | None

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


def timed(prepare: Callable[[], tuple[Callable[[], Any], int]], calls: int) -> Measured:
    """Time what `prepare` gives: a function that does and awaits one call, and the number of steps of a call."""
    begun = time.perf_counter()
    call, steps = prepare()
    call()
    first, seconds = time.perf_counter() - begun, []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        seconds.append((time.perf_counter() - begun) / steps)
    return Measured(first, seconds, hardware.peak())


def measure(case: Case, calls: int) -> Measured:
    """Time one case in this process."""
    return timed(lambda: _prepared(case, calls + 1), calls)


def recipe_of(case: Case, steps: int) -> Any:
    """The recipe of the case, of `steps` outer steps."""
    from lethax.recipe import Recipe
    from lethax.recipe.resolve import resolve

    shared = {
        "method": case.method, "shot": case.shot, "query": case.query, "inner_steps": case.steps, "batch": case.batch,
        "filters": case.filters, "order": case.order, "memory": case.memory, "reduction": "mean", "steps": steps,
        "inner_rate": 0.01, "outer_rate": 1e-3,
    }  # fmt: skip
    if not case.px:
        return resolve(Recipe.of(data="sinusoid", **shared))
    pictures = {"data": "cifar_fs", "net": case.net, "way": case.way, "eval_query": case.query}
    return resolve(Recipe.of(**pictures, **shared, first_order_steps=0))


def learner_of(case: Case, steps: int = 1) -> tuple[Any, Any, Any, Any]:
    """The recipe, the domain, the learner and the plan of the case."""
    from lethax.domains import Inputs, domain_of

    recipe = recipe_of(case, steps)
    domain = domain_of(recipe)
    inputs = Inputs(recipe.data, None, (case.px, case.px, 3)) if case.px else None
    return recipe, domain, domain.learner(recipe, inputs), domain.plan(recipe)


def random_images(px: int) -> Any:
    """Images uint8 [classes, images of a class, px, px, 3]."""
    import numpy as np

    return np.random.RandomState(0).randint(0, 256, (CLASSES, IMAGES, px, px, 3), np.uint8)


def _prepared(case: Case, calls: int) -> tuple[Callable[[], Any], int]:
    import jax
    import numpy as np

    from lethax import trees
    from lethax.data.source import class_split, on_device
    from lethax.devices import devices_for, use_all_cores
    from lethax.domains.supervised import CHUNK
    from lethax.evaluation import evaluate
    from lethax.outer import begin, fit, fit_together

    use_all_cores()
    recipe, domain, learner, plan = learner_of(case, calls * CHUNK)
    if case.px:
        images = random_images(case.px).reshape(-1, case.px, case.px, 3)
        split = class_split(images, np.repeat(np.arange(CLASSES), IMAGES))
        tasks, source = on_device(split, (0.5,) * 3, (0.25,) * 3, False)
    else:
        tasks, source = domain.family(recipe, "train")
    state = begin(learner, plan, jax.random.key(0))
    done: Iterator[Any]
    if case.judged:
        trial = domain.trial(recipe, 1, case.steps, False)
        trial = dataclasses.replace(trial, episodes=calls * trial.together)
        done, steps = evaluate(learner, [state.meta], tasks, source, trial, jax.random.key(1)), trial.together
    elif case.runs > 1:
        states = trees.stacked([begin(learner, plan, jax.random.key(run)) for run in range(case.runs)])
        each, devices = trees.stacked([source] * case.runs), devices_for(case.runs)
        done, steps = fit_together(learner, states, tasks, each, plan, devices), plan.chunk * case.runs
    else:
        done, steps = fit(learner, state, tasks, source, plan), plan.chunk
    return lambda: jax.block_until_ready(next(done)), steps


def apart(case: Case, calls: int, cache: Path) -> Measured:
    """Time one case in a process of its own, which keeps its compiled programs in the folder `cache`.

    LethaxError if that process fails.
    """
    said = json.dumps([dataclasses.asdict(case), calls])
    # What is imported there is this package, whatever the working folder holds.
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "LETHAX_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
    return in_a_process([sys.executable, "-P", "-m", "lethax.benchmark", said], env, case.name)


def in_a_process(command: list[str], env: Mapping[str, str], name: str) -> Measured:
    """Run a program whose last line is that of `tell`. LethaxError if it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        why = f"signal {-done.returncode}" if done.returncode < 0 else shown(last, 500)
        raise LethaxError(f"the case '{shown(name, 60)}' could not be timed ({why}); the memory may not suffice.")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def tell(measured: Measured) -> None:
    """Print what was measured, for `in_a_process`."""
    print(json.dumps(measured._asdict()))


def row(case: Case, measured: Measured) -> dict[str, Any]:
    """The case and what was measured, as JSON has them."""
    return {
        **dataclasses.asdict(case), "median_s": measured.median, "min_s": min(measured.seconds),
        "first_step_s": measured.first, "peak_mib": measured.peak and measured.peak / 2**20, "calls": len(measured.seconds),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """What the numbers depend on: the processor, its cores, the versions, and how the allocator is set."""
    from importlib import metadata

    found = hardware.processor()
    settings = {name: value for name, value in os.environ.items() if name.startswith(("GLIBC_TUNABLES", "MALLOC_"))}
    return {
        "processor": found.model, "instructions": found.best, "cores": os.cpu_count(),
        "python": sys.version.split()[0], "jax": metadata.version("jax"), "allocator": settings,
    }  # fmt: skip


if __name__ == "__main__":
    _case, _calls = json.loads(sys.argv[1])
    tell(measure(Case(**_case), _calls))
