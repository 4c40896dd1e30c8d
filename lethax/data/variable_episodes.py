"""Draw episodes of any number of classes and examples, as Meta-Dataset does: each a pure function of (pools, rules, seed, number).

Nothing here needs JAX. Differs: examples are drawn without replacement from all of a class, where the benchmark reads streams that
are shuffled by a thousand at a time.

Source: Triantafillou et al. 2020, section 3, and its published code for the constants.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from lethax.data.store import Store
from lethax.errors import DataError, RecipeError
from lethax.text import counted, shown

_LOG_TWO = math.log(2.0)


@dataclass(frozen=True)
class EpisodeRules:
    """The constants of the benchmark. way, shot, query: a fixed number, of classes and of examples of each; None: it is drawn.

    least_way, most_way: of a drawn number of classes. most_query: of each class. most_support: examples of all classes together, of
    which a class wants `wanted` at most. largest_node: leaves of a node of a graph that may be drawn.
    """

    way: int | None = None
    shot: int | None = None
    query: int | None = None
    least_way: int = 5
    most_way: int = 50
    most_query: int = 10
    most_support: int = 500
    wanted: int = 100
    largest_node: int = 392

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise RecipeError(f"{field.name} of an episode is {value}; it has to be at least 1.")
        if not self.least_way <= self.most_way <= self.most_support:
            raise RecipeError(
                f"episodes have from {self.least_way} to {self.most_way} classes and {self.most_support} support examples at most; "
                "the first cannot be above the second, nor the second above the third."
            )
        if self.way and not self.shot and self.way > self.most_support:
            raise RecipeError(
                f"episodes have {self.way} classes and {self.most_support} support examples at most, where each class needs one: "
                "lower the way, or give the shots."
            )


BENCHMARK = EpisodeRules()


@dataclass(frozen=True)
class Pool:
    """The classes that episodes of one source and split are drawn from.

    Of class c the rows from starts[c] to starts[c + 1] are there, and counts[c] is how many examples it has by which shapes are
    drawn. groups: the classes that may be drawn together, those of one alphabet, or the leaves of one node; empty: any may.
    whole: all classes of a group are drawn, and not some of them.
    """

    name: str
    starts: np.ndarray
    counts: np.ndarray
    groups: tuple[np.ndarray, ...] = ()
    whole: bool = False


class EpisodeSizes(NamedTuple):
    """The place of an episode's pool, its classes [way] in the order of labels, their shots k_c [way], and the queries of each."""

    source: int
    classes: np.ndarray
    shots: np.ndarray
    query: int


class DrawnEpisode(NamedTuple):
    """An episode, and the rows of its examples in its source, class after class: support [Σ k_c], queries [way · query]."""

    sizes: EpisodeSizes
    support: np.ndarray
    queries: np.ndarray


def pool(store: Store, split: str) -> Pool:
    """What the manifest says of a split: counts, and which classes hang together. DataError if the store has no such split."""
    if split not in store.splits:
        raise DataError(f"{store.name} has no {split} split, only {', '.join(store.splits)}.")
    part, name = store.splits[split], f"{store.name}/{split}"
    relations: dict[str, Any] = store.entries()[split].get("relations", {})
    kept, classes = np.diff(part.starts), len(part.classes)
    try:
        counts = np.array(relations.get("counts", kept), np.int64)
        groups = [np.array(group, np.int64) for group in relations.get("groups", {}).values()]
        if counts.shape != kept.shape or (counts < kept).any():
            raise ValueError("counts")
        if any(group.ndim != 1 or len(set(group.tolist()) & set(range(classes))) != len(group) for group in groups):
            raise ValueError("groups")
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(f"the manifest of {name} is damaged ({shown(error)}): prepare {store.name} again.") from None
    if relations.get("within") == "superclasses":
        above = np.array(part.superclasses)
        groups = [np.flatnonzero(above == one) for one in dict.fromkeys(part.superclasses)]
    return Pool(name, part.starts, counts, tuple(groups), "groups" in relations)


class VariableEpisodes:
    """Episodes of several pools, of which each episode takes one, all with the same chance.

    Arguments:
        pools: from `pool`.
        rules: the constants, and what is fixed.
        seed: episode i of a seed is the same for the same pools and rules, whatever was drawn before.

    Raises:
        DataError: if a pool allows no episode by these rules, or some that it allows need more examples than there are.
    """

    def __init__(self, pools: Sequence[Pool], rules: EpisodeRules = BENCHMARK, seed: int = 0) -> None:
        self.pools, self.rules = tuple(pools), rules
        self._groups = [_eligible(one, rules) for one in pools]
        names = ",".join(one.name for one in pools)
        self._key = [seed, int.from_bytes(hashlib.sha256(names.encode()).digest()[:8], "little")]

    def sizes(self, number: int) -> EpisodeSizes:
        """The sizes of episode `number`, without its examples."""
        return self._sizes(self._random(number))

    def draw(self, number: int) -> DrawnEpisode:
        """Episode `number`."""
        random = self._random(number)
        sizes = self._sizes(random)
        starts = self.pools[sizes.source].starts
        support, queries = [], []
        for c, k in zip(sizes.classes.tolist(), sizes.shots.tolist(), strict=True):
            rows = starts[c] + some(int(starts[c + 1] - starts[c]), k + sizes.query, random)
            support.append(rows[:k])
            queries.append(rows[k:])
        return DrawnEpisode(sizes, np.concatenate(support), np.concatenate(queries))

    def _random(self, number: int) -> np.random.Generator:
        """A stream for each episode. Only its uniform doubles are used: NumPy may change how others are made of them."""
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, number, 0]))

    def _sizes(self, random: np.random.Generator) -> EpisodeSizes:
        source = below(len(self.pools), random)
        rules, counts = self.rules, self.pools[source].counts
        classes = _classes(self._groups[source], self.pools[source].whole, rules, random)
        beta = random.random()
        weights = _LOG_TWO * (2.0 * random.random(len(classes)) - 1.0)
        return EpisodeSizes(source, classes, *shots_and_query(counts[classes], beta, weights, rules))


def _eligible(pool: Pool, rules: EpisodeRules) -> list[np.ndarray]:
    """The groups that episodes can be drawn from; all classes are one where a pool has none. DataError if there is none."""
    least, classes = rules.way or rules.least_way, len(pool.counts)
    most = rules.largest_node if pool.whole and not rules.way else classes
    groups = [group for group in pool.groups or (np.arange(classes),) if least <= len(group) <= most]
    if not groups:
        raise DataError(
            f"{pool.name} has {counted(classes, 'class')}; an episode needs {least} that belong together: lower --way, or leave "
            "this source out."
        )
    smallest, kept = int(pool.counts.argmin()), np.diff(pool.starts)
    shots, query = shots_and_query(pool.counts[[smallest]], 0.0, np.zeros(1), rules)
    if query < 1 or shots[0] < (rules.shot or 1):
        raise DataError(
            f"class {smallest} of {pool.name} has {counted(int(pool.counts[smallest]), 'example')}; an episode takes "
            f"{rules.shot or 1} of it and {rules.query or 'at least 1'} as queries: lower --shot or --query."
        )
    asked = (rules.shot or rules.most_support) + (rules.query or rules.most_query)
    if (kept < np.minimum(pool.counts, asked)).any():
        raise DataError(
            f"of a class of {pool.name} only {kept.min()} examples are there; episodes may take {asked}: lower --shot or --query."
        )
    return groups


def _classes(groups: list[np.ndarray], whole: bool, rules: EpisodeRules, random: np.random.Generator) -> np.ndarray:
    """The classes of an episode: a group, uniformly, and all of it or a uniform number of its classes, at most `most_way`."""
    group = groups[below(len(groups), random)] if len(groups) > 1 else groups[0]
    way = most = min(len(group), rules.most_way)
    if rules.way:
        way = rules.way
    elif not whole:
        way = rules.least_way + below(most - rules.least_way + 1, random)
    return group[some(len(group), way, random)]


def shots_and_query(
    counts: np.ndarray, beta: float, weights: np.ndarray, rules: EpisodeRules
) -> tuple[np.ndarray, int]:
    """Shots k_c [way] and queries q of each class, of classes with n_c examples:

        q = min(10, min_c ⌊n_c / 2⌋)        r_c = n_c − q        S = min(500, Σ_c ⌊β min(100, r_c) + 1⌋)
        p_c ∝ n_c exp(a_c)                  k_c = min(⌊p_c (S − way)⌋ + 1, r_c)

    Arguments:
        counts: n_c [way].
        beta: the share β of what all classes want, in [0, 1).
        weights: a_c [way], in [log ½, log 2).
        rules: the constants 10, 500 and 100, and a fixed number of shots or queries.

    Source: Triantafillou et al. 2020, section 3.2. Differs: ⌊β … + 1⌋ with β in [0, 1), as in its code, where the paper has
    ⌈β …⌉ with β in (0, 1]: the distribution is the same.
    """
    query = rules.query or min(rules.most_query, int(counts.min()) // 2)
    left = counts - query
    if rules.shot:
        return np.minimum(rules.shot, left), query
    wanted = np.floor(beta * np.minimum(rules.wanted, left) + 1.0)
    support = min(rules.most_support, int(wanted.sum()))
    shares = counts * np.exp(weights)
    more = np.floor(shares / shares.sum() * (support - len(counts)))
    return np.minimum(more.astype(np.int64) + 1, left), query


def below(bound: int, random: np.random.Generator) -> int:
    """A uniform whole number from 0 to bound − 1."""
    return int(random.random() * bound)


def some(count: int, wanted: int, random: np.random.Generator) -> np.ndarray:
    """`wanted` of the numbers below `count`, uniformly, without replacement and in random order: the head of a shuffled list."""
    moved: dict[int, int] = {}  # where the list is not the numbers themselves
    found = np.empty(wanted, np.int64)
    for place, share in enumerate(random.random(wanted).tolist()):
        other = place + int(share * (count - place))
        found[place] = moved.get(other, other)
        moved[other] = moved.get(place, place)
    return found
