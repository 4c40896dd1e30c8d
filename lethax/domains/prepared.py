"""Domains whose tasks are classes of a prepared data set: what fits its splits, what a run keeps of it, and the baseline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.baselines import NearestPrototype
from lethax.data.fits import nearest, room
from lethax.data.shared import shared
from lethax.data.source import check_shape
from lethax.data.store import ClassSplit, Store, open_store
from lethax.domains.contract import Family, Inputs, Judging, Values
from lethax.domains.supervised import Supervised, blind, shape_of
from lethax.errors import DataError, RecipeError
from lethax.evaluation import bernoulli_std, evaluate, score
from lethax.pretrained import caution
from lethax.recipe import Recipe, Resolved
from lethax.text import counted

_OPEN = ("episode.way", "episode.shot", "episode.query")


@final
@dataclass(frozen=True, kw_only=True)
class Prepared(Supervised):
    """A domain whose tasks are N classes of a prepared data set, with K support and Q query examples of each. It scores accuracy.

    claims: whether a recipe's data are of this kind. check_inputs: RecipeError for data sets that hold something else. as_seen: the
    family of a split of other data, whose examples are given the shape and the normalisation of those that a run was trained on;
    None: only examples of the same shape are taken, as they are. trained: what a run that is judged on other data was trained on.
    The other fields: see `Supervised`.
    """

    claims: Callable[[Recipe], bool]
    check_inputs: Callable[[Resolved, Inputs], None]
    as_seen: Callable[[Resolved, str, Inputs], Family] | None = None
    trained: Inputs | None = None

    made: ClassVar[tuple[str, ...]] = ()
    classes: ClassVar[bool] = True
    same: ClassVar[Values] = {}
    never: ClassVar[frozenset[str]] = frozenset()

    def check(self, recipe: Resolved) -> None:
        """Raise RecipeError for episodes of one class."""
        if recipe.episode.way < 2:
            raise RecipeError(
                f"episode.way is {recipe.episode.way}; with one class there is nothing to tell apart: it has to be at least 2."
            )

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """Fit way, shot and query to what all splits allow, unless the recipe gives them.

        DataError where what it gives does not allow a single episode; it names a command that works.
        """
        splits = open_store(recipe.data).splits
        fixed = [key.partition(".")[2] for key in _OPEN if recipe.get(key) is not None]
        wanted = usual.episode.way, usual.episode.shot, usual.episode.query
        found = nearest(splits, *wanted, fixed)
        trained = {name: part for name, part in splits.items() if name != "test"}
        note = ""
        if not found and trained and (found := nearest(trained, *wanted, fixed)):
            note = f"the test split allows {room({'test': splits['test']})}, so this run cannot be evaluated on it"
        if not found:
            raise DataError(_refusal(recipe, wanted, splits))
        changed = {key: value for key, value, before in zip(_OPEN, found, wanted, strict=True) if value != before}
        if changed:
            said = ", ".join(
                f"{key.partition('.')[2]} {value} instead of {usual.value(key)}" for key, value in changed.items()
            )
            note = f"{said}, to fit {recipe.data}, which allows {room(splits)}" + (f"; {note}" if note else "")
        note = "; ".join(filter(None, [note, blind(usual)]))
        return replace(recipe, given={**recipe.given, **changed}), note

    def inputs(self, recipe: Resolved) -> Inputs:
        """What a run keeps of its data. DataError if training or validation do not allow the episodes."""
        found = inputs_of([store_of(recipe, split) for split in ("train", "val")][0])
        self.check_inputs(recipe, found)
        return found

    def identity(self, recipe: Resolved) -> str:
        """The SHA-256 of the data set."""
        return open_store(recipe.data).identity

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> "tuple[Prepared, Resolved]":
        """The domain and the recipe on another data set, whose examples are seen as those of the run's own."""
        assert inputs is not None
        other = inputs_of(open_store(data))
        channels = {*other.example[2:], *inputs.example[2:]}
        resized = self.as_seen is not None and len(other.example) == 3 and channels <= {1, 3}
        if other.example != inputs.example and not resized:
            raise RecipeError(
                f"{data} has examples of shape {other.example}, {recipe.data} of {inputs.example}, and the network reads no other: "
                "name data that hold such examples."
            )
        if len(other.example) == 1 and other.origin != inputs.origin:
            raise RecipeError(
                f"{data} and {recipe.data} hold features of different networks: make both with the same one, see lethax embed."
            )
        as_seen = self.as_seen
        family = self.family if as_seen is None else lambda r, split: as_seen(r, split, inputs)
        return replace(self, family=family, trained=inputs), replace(recipe, data=data)

    def check_split(self, recipe: Resolved, split: str) -> None:
        """Raise DataError if the classes of a split do not allow the episodes."""
        splits, shape = open_store(recipe.data).splits, shape_of(recipe, "test")
        rooms = {name: room({name: part}) for name, part in splits.items()}
        fitting = [n for n, r in rooms.items() if r.way >= shape.way and r.examples >= shape.shot + shape.query]
        if split in splits and split not in fitting:
            own = self.trained is None or self.trained.data == recipe.data  # of others, only test classes are judged
            there = "".join(f"--split {name}, " for name in fitting if own)
            raise DataError(
                f"{recipe.data}/{split} allows {rooms[split]}; the run's episodes are {shape.way}-way with "
                f"{counted(shape.shot, 'shot')} and {counted(shape.query, 'query')} a class. Judge it with "
                f"{there}--data OTHER, or train a run of smaller episodes."
            )

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """The identity of the data, √(p(1 − p)), the nearest prototype on the same episodes, and what a backbone has seen.

        Of data that the run was not trained on: how they are seen, and which of their classes the run has seen.
        """
        trial = self.trial(recipe, len(table), 0, True)
        judged = evaluate(NearestPrototype(recipe.episode.way), [{}], *self.family(recipe, split), trial, key)
        prototype = score(np.concatenate([scores[:, 0] for scores, _ in judged]))
        mean = float(table[:, recipe.inner.steps].astype(np.float64).mean())
        store = open_store(recipe.data)
        seen = {"caution": caution(store.origin.backbone, store.splits[split].classes)} if store.origin else {}
        return {
            "bernoulli_std": bernoulli_std(mean), "data_sha256": store.identity, **seen, **self._elsewhere(store, split),
            "nearest_prototype": {
                "mean": prototype.mean, "ci95": prototype.ci95, "per_episode": prototype.per_task.tolist()
            },
        }  # fmt: skip

    def _elsewhere(self, store: Store, split: str) -> Mapping[str, Any]:
        trained = self.trained
        if trained is None or (trained.sha256 or store.identity) == store.identity and trained.data == store.name:
            return {}
        part, example = store.splits[split], list(trained.example)
        size = list(part.images.shape[1:])
        known = shared(part, trained.data, trained.sha256, trained.classes)
        about = {
            "trained_on": trained.data,
            "checkpoint_chosen_on": f"{trained.data}/val",
            "example": example,
            "resized_from": size if size != example else None,
            "shared": known.record(),
        }
        return {"elsewhere": about}


def store_of(recipe: Resolved, split: str) -> Store:
    """Open the data set. DataError if the classes of a split do not allow the episodes."""
    store = open_store(recipe.data)
    if split not in store.splits:
        there = ", ".join(store.splits)
        raise DataError(
            f"{recipe.data} has no {split} split, only {there}: name other data, or prepare it again with such a split."
        )
    check_shape(store.splits[split], shape_of(recipe, split), f"{recipe.data}/{split}")
    return store


def _refusal(recipe: Recipe, wanted: tuple[int, int, int], splits: Mapping[str, ClassSplit]) -> str:
    way, shot, query = wanted
    asked = f"{way}-way episodes of {counted(shot, 'shot')} and {counted(query, 'query')} a class"
    said = f"{recipe.data} does not allow {asked}: it allows {room(splits)}."
    found = nearest(splits, way, shot, query)
    if not found:
        return f"{said} An episode needs two classes and two examples of each: prepare it again with more."
    method = f" --method {recipe.method}" if recipe.method != Recipe().method else ""
    return f"{said} This fits: lethax train {recipe.data}{method} --way {found[0]} --shot {found[1]} --query {found[2]}"


def inputs_of(store: Store) -> Inputs:
    """What a run keeps of a data set."""
    split = next(iter(store.splits.values()))
    classes = store.splits["train"].classes if "train" in store.splits else ()
    return Inputs(
        store.name, store.identity, tuple(split.images.shape[1:]), tuple(store.mean), tuple(store.std), tuple(classes),
        store.origin,
    )  # fmt: skip


def protocol(recipe: Resolved) -> Judging:
    """600 episodes and the three best checkpoints, as in the released code, or fewer if there are fewer validations."""
    validations = -(-recipe.outer.steps // recipe.outer.epoch)
    return Judging(600, min(3, recipe.outer.keep, validations))
