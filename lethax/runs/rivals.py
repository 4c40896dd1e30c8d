"""Plain baselines on the episodes of a run's evaluation, which a method should be better than.

prototype, probe: classifiers of the examples as they are, of pixels or of features. finetune: gradient descent of the whole network
from the run's meta-trained weights, with a last layer of zeros. scratch: the same from fresh weights.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from lethax.baselines import LinearProbe, NearestPrototype
from lethax.data.host import HostImages
from lethax.data.source import Features, FeaturesBeside, FeatureTasks, ImageTasks
from lethax.data.store import ClassSplit, open_store
from lethax.domains import Domain, Family, domain_of
from lethax.domains.contract import Inputs
from lethax.domains.supervised import Supervised
from lethax.errors import DataError, RecipeError
from lethax.evaluation import evaluate, paired, score
from lethax.learner import Net
from lethax.methods.maml import MAML
from lethax.nets.heads import HeadStart
from lethax.pretrained import caution
from lethax.recipe import Resolved
from lethax.rules import SGD
from lethax.streams import Stream, stream, validation_key
from lethax.text import counted

CLASSIFIERS, NETS = ("prototype", "probe"), ("finetune", "scratch")
NAMES = (*CLASSIFIERS, *NETS)
DECAYS, RATES = (0.1, 0.01, 0.001, 0.0001), (1.0, 0.1, 0.01)
STEPS = 50  # of fine-tuning and from scratch
TRIED = {"probe": 100, "finetune": 20, "scratch": 20}  # validation episodes that settings are chosen on
TITLES = {
    "prototype": "nearest prototype", "probe": "linear probe", "finetune": "fine-tuning of the network",
    "scratch": "training from scratch",
}  # fmt: skip
_AT_ONCE = 20  # episodes of a classifier in one call
# Of what is done, on how many episodes, and their parts as they come.
Watch = Callable[[str, int, Iterable[Any]], Iterable[Any]]


class Against(NamedTuple):
    """The names of the baselines that are judged, and of the data set of features that classifiers read, if it is another."""

    names: Sequence[str]
    features: str | None
    watch: Watch


class Rival(NamedTuple):
    """One setting of a baseline: what is judged, from which meta-parameters, and the setting by name."""

    judged: Any
    meta: Any
    setting: dict[str, float]


class Contest(NamedTuple):
    """What the baselines of an evaluation are judged on: the run's recipe and inputs, the split, and the key of its episodes.

    features: the name of a data set of features of the same pictures, which the classifiers read in place of the run's examples.
    meta: the meta-parameters of the run's best checkpoint. seen_by, home: of a run that is judged on other data, the domain that
    sees these as its own, and the recipe of its own data, on which settings are chosen.
    """

    recipe: Resolved
    inputs: Inputs | None
    split: str
    episodes: int
    key: Any
    meta: Any
    features: str | None
    seen_by: Domain | None = None
    home: Resolved | None = None

    @property
    def domain(self) -> Supervised:
        """The domain of the run's tasks. RecipeError for tasks without support sets, and for names that do not fit it."""
        domain = self.seen_by or domain_of(self.recipe)
        if not isinstance(domain, Supervised):
            raise RecipeError(
                f"{self.recipe.data} has no support sets that a baseline could learn from: leave --baselines out."
            )
        if domain.drawn:
            raise RecipeError(
                f"episodes of {self.recipe.data} differ in shape, and baselines take those of one shape: leave --baselines out."
            )
        return domain


def check_baselines(contest: Contest, names: Sequence[str]) -> None:
    """Raise RecipeError for a baseline that does not fit, before anything is judged."""
    _ = contest.domain
    asked = [name for name in names if name in CLASSIFIERS]
    if asked and not domain_of(contest.recipe).classes:
        raise RecipeError(
            f"{asked[0]} compares classes, and {contest.recipe.data} has none: leave it out, as in --baselines {' '.join(NETS)}."
        )
    if contest.features and not asked:
        raise RecipeError("--features are what prototype and probe read: name one of them with --baselines.")
    if contest.features:
        _family(contest, contest.split, "prototype")
    if "finetune" in names:
        _weights(contest, "finetune")


def judge_baselines(
    contest: Contest, names: Sequence[str], watch: Watch, first: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Judge baselines on the episodes of an evaluation, whose scores of the method are `first` [n].

    Settings are chosen on validation episodes, by their mean score. Returns a record for each: "title", "on" what it reads, its
    "setting" and how that was "chosen", "mean", "ci95", "per_episode", the "difference" to the method, episode by episode, and
    whether it "wins": whether it is better by more than the half-width of that difference, which takes two episodes.
    """
    found, sign = {}, 1 if contest.domain.objective.higher_is_better else -1
    for name in names:
        rivals = _rivals(contest, name)
        best, chosen = _chosen(contest, name, rivals, watch)
        scores = _scores(contest, contest.split, name, best, contest.episodes, contest.key, watch)
        result, gap = score(scores), paired(scores, first)
        found[name] = {
            "title": TITLES[name], "on": _read(contest, name), "setting": best.setting, "chosen": chosen,
            "wins": gap.n > 1 and sign * gap.mean > gap.ci95,
            "mean": result.mean, "ci95": result.ci95, "per_episode": result.per_task.tolist(),
            "difference": {"mean": gap.mean, "ci95": gap.ci95}, **_caution(contest, name),
        }  # fmt: skip
    return found


def _read(contest: Contest, name: str) -> str:
    """What a baseline reads, in words."""
    if name in CLASSIFIERS and contest.features:
        return contest.features
    return contest.recipe.data


def _caution(contest: Contest, name: str) -> dict[str, str]:
    """What the weights behind a baseline's features have seen."""
    store = open_store(contest.features) if contest.features and name in CLASSIFIERS else None
    if store is None or store.origin is None:
        return {}
    return {"caution": caution(store.origin.backbone, store.splits[contest.split].classes)}


def _rivals(contest: Contest, name: str) -> list[Rival]:
    """The settings of a baseline that are tried."""
    way = contest.recipe.episode.way
    if name == "prototype":
        return [Rival(NearestPrototype(way), {}, {})]
    if name == "probe":
        return [Rival(LinearProbe(way, decay), {}, {"decay": decay}) for decay in DECAYS]
    weights = _weights(contest, name)
    made = [(_tuned(contest, name, rate), rate) for rate in RATES]
    meta = {"weights": weights, "rule": {}, "start": {}, "encoder": {}}
    return [Rival(learner, meta, {"rate": rate, "steps": STEPS}) for learner, rate in made]


def _tuned(contest: Contest, name: str, rate: float) -> MAML:
    """Fine-tuning as a learner: first-order MAML with many steps. It is compiled as a loop, because it is long."""
    net, norm = contest.domain.net(contest.recipe, contest.inputs), contest.recipe.net.norm
    head: HeadStart = "zero" if name == "finetune" else "trained"
    return MAML(net, contest.domain.objective, rule=SGD(rate), steps=STEPS, order=1, head=head, norm=norm, loop="scan")


def _weights(contest: Contest, name: str) -> Any:
    """The weights to start from: those of the run, or fresh ones. RecipeError if those of the run do not fit the network."""
    learner = _tuned(contest, name, RATES[0])
    if name == "scratch":
        return jax.jit(learner.init)(stream(jax.random.key(contest.recipe.seed), Stream.BASELINES))["weights"]
    found = weights_alone(learner.net, contest.meta)
    if found is None:
        raise RecipeError(
            f"finetune does not fit the method {contest.recipe.method}, whose weights are not those of a network alone: name other "
            "--baselines."
        )
    return found


def weights_alone(net: Net, meta: Any) -> Any:
    """The weights of a run that make its function with the net alone, whatever the size of their last layer.

    None where more belongs to that function, such as CAVIA's context or MuMoMAML's encoder, or where they are of another net.
    """
    if not isinstance(meta, dict) or meta.get("encoder"):
        return None
    found, fresh = meta.get("weights"), jax.eval_shape(net.init, jax.random.key(0))
    if jax.tree.structure(fresh) != jax.tree.structure(found):  # type: ignore[operator]
        return None
    fits = jax.tree.map(lambda last, want, leaf: last or want.shape == leaf.shape, net.head(fresh), fresh, found)
    return found if all(jax.tree.leaves(fits)) else None


def _chosen(contest: Contest, name: str, rivals: list[Rival], watch: Watch) -> tuple[Rival, str]:
    """The best setting on validation episodes, and how it was found. Where the data allow none it is the second one."""
    if len(rivals) == 1:
        return rivals[0], "fixed"
    key, count = validation_key(contest.recipe.seed), TRIED[name]
    try:
        _family(contest, "val", name)
    except DataError as error:
        return rivals[1], f"without validation episodes ({str(error).rstrip('.')})"
    means = [float(np.mean(_scores(contest, "val", name, rival, count, key, watch))) for rival in rivals]
    better = max if contest.domain.objective.higher_is_better else min
    ranked = [mean for mean in means if np.isfinite(mean)]
    best = means.index(better(ranked)) if ranked else 1
    return rivals[best], f"on {counted(count, 'validation episode')}"


def _scores(contest: Contest, split: str, name: str, rival: Rival, episodes: int, key: Any, watch: Watch) -> np.ndarray:
    """The score of each episode of a split."""
    trial = contest.domain.trial(contest.recipe, episodes, 0, False)
    if trial.task_loop == "unroll":  # of so many steps a program of every episode would be long
        trial = replace(trial, task_loop="scan")
    if name in CLASSIFIERS:  # in which nothing is convolved
        trial = replace(trial, task_loop="vmap", together=_AT_ONCE, devices=1)
    family = _family(contest, split, name)
    what = f"{TITLES[name]}{', trying ' + _said(rival.setting) if split == 'val' else ''}"
    parts = evaluate(rival.judged, [rival.meta], family.tasks, family.source, trial, key)
    return np.concatenate([scores[:, -1] for scores, _ in watch(what, episodes, parts)])


def _said(setting: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def _family(contest: Contest, split: str, name: str) -> Family:
    """The episodes that a baseline is judged on: the run's, or features of the very same examples."""
    if split == "val" and contest.home is not None:  # nothing is chosen on other data
        contest = contest._replace(recipe=contest.home, seen_by=None)
    family = contest.domain.family(contest.recipe, split)
    if name not in CLASSIFIERS or not contest.features:
        return family
    tasks = family.tasks.tasks if isinstance(family.tasks, HostImages) else family.tasks
    if not isinstance(tasks, ImageTasks | FeatureTasks):
        raise RecipeError(f"{contest.recipe.data} is no data set of pictures or features: leave --features out.")
    known, store = open_store(contest.recipe.data), open_store(contest.features)
    if not store.features:
        raise DataError(f"{store.name} holds no features: make them of {known.name} with lethax embed.")
    if store.origin and store.origin.of != known.identity:
        raise DataError(
            f"{store.name} holds features of other pictures than those of {known.name}: make them of these."
        )
    if split not in store.splits or not _alike(store.splits[split], known.splits[split]):
        raise DataError(
            f"{store.name}/{split} has other classes than {known.name}/{split}, or other numbers of examples: only features of the "
            "same pictures, in the same order, make the same episodes."
        )
    part = store.splits[split]
    source = Features(jax.numpy.asarray(part.images), jax.numpy.asarray(part.starts, jax.numpy.int32))
    return Family(FeaturesBeside(tasks), source)


def _alike(one: ClassSplit, other: ClassSplit) -> bool:
    return one.classes == other.classes and np.array_equal(one.starts, other.starts)
