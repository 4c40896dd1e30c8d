"""Meta-Dataset: training on several sources, with episodes of any number of classes and examples; a test column for each source.

Triantafillou et al. 2020; Baik et al. 2020, supplement, Table C.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.data.buckets import ReadEpisodes, Reader
from lethax.data.known import FURTHER, METADATASET, remedy
from lethax.data.store import Store, find_store, open_store
from lethax.data.variable_episodes import BENCHMARK, EpisodeRules, pool
from lethax.domains import images
from lethax.domains.contract import Family, Inputs, Values
from lethax.domains.features import unfit
from lethax.domains.supervised import Supervised, blind
from lethax.errors import DataError, RecipeError, did_you_mean
from lethax.evaluation import bernoulli_std
from lethax.learner import Net
from lethax.methods.registry import Method
from lethax.names import METADATASET as NAME
from lethax.objectives import VariableCrossEntropy
from lethax.recipe import Recipe, Resolved
from lethax.text import shown

ALL = "all"
_SHAPE = frozenset({"episode.way", "episode.shot", "episode.query", "episode.eval_query"})
_CHOSEN_ON = "ilsvrc_2012"  # whose validation classes the benchmark chooses on, where it is trained on


def store_name(source: str) -> str:
    """The name of the data set that a source is prepared as."""
    return source if source.startswith(f"{NAME}-") else f"{NAME}-{source}"


@final
@dataclass(frozen=True, kw_only=True)
class MetaDataset(Supervised):
    """The sources of Meta-Dataset. The fields: see `Supervised`. column: the data set that is judged; "": all test sources."""

    column: str = ""

    made: ClassVar[tuple[str, ...]] = ()
    classes: ClassVar[bool] = True
    same: ClassVar[Values] = {}
    never: ClassVar[frozenset[str]] = frozenset()
    drawn: ClassVar[frozenset[str]] = _SHAPE
    table: ClassVar[str] = "columns"

    def claims(self, recipe: Recipe) -> bool:
        """Whether the data are all sources together. A single one is a data set like any other."""
        return recipe.data == NAME

    def check(self, recipe: Resolved) -> None:
        """Raise RecipeError for episodes of one class, for sources that do not exist, and for a network of features."""
        if recipe.net.kind == "mlp":
            raise unfit(recipe)
        if recipe.episode.way == 1:
            raise RecipeError(
                "episode.way is 1; with one class there is nothing to tell apart: give 2, or 0 to draw it."
            )
        for i, name in enumerate(_asked(recipe)):
            if name in _asked(recipe)[:i]:
                raise RecipeError(
                    f"metadataset.train names {name} twice: each source is drawn with the same probability."
                )
            if name not in METADATASET:
                raise RecipeError(
                    f"metadataset.train names '{shown(name, 60)}', which is no source of Meta-Dataset."
                    f"{did_you_mean(name, METADATASET)} Its sources: {', '.join(METADATASET)}."
                )

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """Name the training sources that are prepared, so that a run knows them. DataError if there are none."""
        names = [_source(store) for store in training_stores(usual)]
        note = f"training on {', '.join(names)}, choosing on the validation classes of {', '.join(_chosen_on(names))}"
        note = "; ".join(filter(None, [note, blind(usual)]))
        return replace(recipe, given={**recipe.given, "metadataset.train": ",".join(names)}), note

    def identity(self, recipe: Resolved) -> str:
        """A SHA-256 of those of the training sources."""
        found = {store.name: store.identity for store in training_stores(recipe)}
        return hashlib.sha256("".join(f"{name} {found[name]}\n" for name in sorted(found)).encode()).hexdigest()

    def inputs(self, recipe: Resolved) -> Inputs:
        """What a run keeps of its training sources. DataError if they do not allow the episodes, or differ in size."""
        stores = training_stores(recipe)
        first = stores[0]
        for split in ("train", "val"):
            self.family(recipe, split)
        return Inputs(
            NAME, self.identity(recipe), first.splits["train"].images.shape[1:], first.mean, first.std,
            tuple(f"{_source(store)}/{name}" for store in stores for name in store.splits["train"].classes),
        )  # fmt: skip

    def columns(self, recipe: Resolved, split: str) -> tuple[str, ...]:
        """The prepared sources that have such a split, in the order of the benchmark's tables, and further test data.

        DataError if they differ in size: better now than when the columns before are judged.
        """
        return tuple(store.name for store in _prepared(split))

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> "tuple[MetaDataset, Resolved]":
        """The domain and the recipe on one column: a source, or any data set of pictures of the same size."""
        assert inputs is not None
        name = store_name(data) if data in METADATASET or data in FURTHER else data
        store = open_store(name)
        found = next(iter(store.splits.values())).images.shape[1:]
        if found != inputs.example:
            raise RecipeError(
                f"{shown(name, 60)} has examples of shape {found}, but the run was trained on {inputs.example}: prepare it in that "
                "size, see --image of lethax data prepare."
            )

        def family(recipe: Resolved, split: str) -> Family:
            return _family_of([open_store(name)], recipe, split, inputs.mean, inputs.std)

        return replace(self, family=family, column=name), replace(recipe, data=name)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """Raise DataError if a split does not allow the episodes."""
        self.family(recipe, split)

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """The identity of the column, and √(p(1 − p))."""
        identity = open_store(self.column).identity if self.column else self.identity(recipe)
        mean = float(table[:, recipe.inner.steps].astype(np.float64).mean())
        return {"data_sha256": identity, "bernoulli_std": bernoulli_std(mean)}


def training_stores(recipe: Resolved) -> list[Store]:
    """The stores of the training sources. DataError if there is none, or one that is named is missing or has none to train on."""
    asked = _asked(recipe)
    stores = [open_store(store_name(name)) for name in asked] or _prepared("train")
    if not stores:
        raise DataError(
            f"no source of Meta-Dataset with training classes is prepared. {remedy(store_name('omniglot'))}"
        )
    for store in stores:
        if "train" not in store.splits:
            raise DataError(f"{store.name} has no training classes: leave it out of metadataset.train.")
    return _of_one_size(stores)


def _asked(recipe: Resolved) -> list[str]:
    """The sources that the recipe names; none if it takes all."""
    names = recipe.metadataset.train.split(",")
    return [] if names == [ALL] else [name.strip().removeprefix(f"{NAME}-") for name in names]


def _prepared(split: str) -> list[Store]:
    """The prepared sources with classes in a split."""
    found = [store for name in (*METADATASET, *FURTHER) if (store := find_store(store_name(name)))]
    return _of_one_size([store for store in found if split in store.splits])


def _of_one_size(stores: list[Store]) -> list[Store]:
    sizes = {next(iter(store.splits.values())).images.shape[1:]: store.name for store in stores}
    if len(sizes) > 1:
        said = ", ".join(f"{name} has {shape}" for shape, name in sizes.items())
        raise DataError(
            f"the prepared sources have pictures of several shapes ({said}): prepare them with one --image, or name those that "
            "you mean, with --metadataset.train for training and --data for evaluation."
        )
    return stores


def _source(store: Store) -> str:
    return store.name.removeprefix(f"{NAME}-")


def _chosen_on(names: Sequence[str]) -> list[str]:
    """The sources whose validation classes choose the checkpoint: ILSVRC, as in the benchmark, else all training sources."""
    return [_CHOSEN_ON] if _CHOSEN_ON in names else list(names)


def _family(recipe: Resolved, split: str) -> Family:
    """The episodes of a split: mixed over the training sources, over those to choose on, or over all that have test classes."""
    stores = training_stores(recipe)
    if split == "val":
        kept = _chosen_on([_source(store) for store in stores])
        stores = [store for store in stores if _source(store) in kept]
    tested = _prepared(split) if split == "test" else stores
    return _family_of(tested, recipe, split, stores[0].mean, stores[0].std)


def _family_of(
    stores: Sequence[Store], recipe: Resolved, split: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Family:
    episode = recipe.episode
    query = episode.query if split == "train" else episode.eval_query
    rules = EpisodeRules(episode.way or None, episode.shot or None, query or None)
    reader = Reader([pool(store, split) for store in stores], [store.splits[split] for store in stores], rules)
    return Family(ReadEpisodes(tuple(mean), tuple(std)), reader)


def _published(recipe: Recipe, method: Method) -> Values:
    """The benchmark's first-order MAML with four convolutions, trained from scratch on ILSVRC: the one setting with this network.

    A head of zeros is its MAML, and one of prototypes its Proto-MAML. L2F has prototypes, because under zeros the gradient that it
    reads would say nothing of the task. Differs: the rate falls along a cosine to what the exponential decay reaches at the end.
    """
    query, rate = recipe.get("episode.query", 0), recipe.get("outer.rate", 1.239e-4)
    return {
        "episode.way": 0, "episode.shot": 0, "episode.query": query, "episode.eval_query": query,
        "net.filters": 64, "net.norm": "support", "inner.head": "prototypes" if "gate" in method.sections else "zero",
        "inner.order": 1, "inner.steps": 10, "inner.rate": 0.05602, "outer.full_steps": 75_000, "outer.batch": 1,
        "outer.rate": rate, "outer.min_rate": rate * 0.9153**15, "outer.weight_decay": 6.859e-4,
    }  # fmt: skip


def _net(recipe: Resolved, inputs: Inputs | None) -> Net:
    """The network of images, with an output for each class of the largest episode."""
    largest = recipe if recipe.episode.way else replace(recipe, episode=replace(recipe.episode, way=BENCHMARK.most_way))
    return images.net_of(largest, inputs)


DOMAIN = MetaDataset(
    kind="images",
    sections=("metadataset",),
    published=_published,
    unread=frozenset({"episode.rotate", "net.depth", "net.deviation"}),
    net=_net,
    objective=VariableCrossEntropy(),
    family=_family,
    convolutional=True,
)
