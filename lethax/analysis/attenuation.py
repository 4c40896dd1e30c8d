"""What attenuation does in a trained run: gates over tasks, scores where a layer is attenuated by hand, and the effects apart.

Baik, Hong, Lee, CVPR 2020: the figures of γ over tasks and of manual attenuation. The effects apart are ours.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lethax import trees
from lethax.evaluation import Score, paired, score
from lethax.records import Weights

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FACTORS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))  # the paper's 0.1 … 1.0
# From meta-parameters to the score of every episode; the episodes are always the same.
Judge = Callable[[Any], np.ndarray]


class Gates(NamedTuple):
    """The gates γ of tasks: `per_task` [N, L], from the input to the output of the net, as `names` are."""

    names: list[str]
    per_task: np.ndarray

    def summary(self) -> dict[str, np.ndarray]:
        """The mean, the standard deviation and the quantiles over tasks, each [L]."""
        quantiles = np.quantile(self.per_task, QUANTILES, axis=0)
        named = {f"q{round(100 * share):02d}": values for share, values in zip(QUANTILES, quantiles, strict=True)}
        return {"mean": self.per_task.mean(axis=0), "std": self.per_task.std(axis=0), **named}


class ByHand(NamedTuple):
    """Scores [layers, factors, N] of N episodes where one layer is multiplied by one factor before adaptation.

    score_name: what a score is, such as "accuracy".
    """

    score_name: str
    layers: list[str]
    factors: tuple[float, ...]
    scores: np.ndarray

    def score(self, layer: int, factor: int) -> Score:
        """The score with its interval over episodes."""
        return score(self.scores[layer, factor])

    def change(self, layer: int, factor: int) -> Score:
        """What the attenuation changes, episode by episode: the score less that at the last factor, which is 1."""
        return paired(self.scores[layer, factor], self.scores[layer, -1])


class Effects(NamedTuple):
    """Scores [V, N] of N episodes of the ways to use one trained initialisation θ and its gates γ; the first is L2F itself.

    A gate before a batch norm makes the weights smaller, which alone changes nothing, and with it each inner step longer beside
    them, by 1/γ². The ways have both effects, one of them, or none. score_name: what a score is, such as "accuracy".
    """

    score_name: str
    ways: list[str]
    scores: np.ndarray

    def score(self, way: int) -> Score:
        """The score with its interval over episodes."""
        return score(self.scores[way])

    def change(self, way: int) -> Score:
        """The score less L2F's, episode by episode."""
        return paired(self.scores[way], self.scores[0])


def gates(names: Sequence[str], per_task: np.ndarray) -> Gates:
    """The gates [N, L] of tasks, ordered from the input to the output of the net."""
    order = sorted(range(len(names)), key=lambda place: depth(names[place]))
    return Gates([names[place] for place in order], np.asarray(per_task, np.float64)[:, order])


def by_hand(
    score_name: str,
    judge: Judge,
    meta: Any,
    layers: Sequence[str],
    factors: Sequence[float] = FACTORS,
    tell: Callable[[float, str], None] = lambda share, note: None,
) -> ByHand:
    """The scores of a trained initialisation of which one layer l is attenuated by hand: w_0,l = γ θ_l, w_0,k = θ_k for k ≠ l.

    judge: from meta-parameters to scores [N], which `score_name` names. meta: the meta-parameters, whose "weights" are θ. factors:
    values of γ, the last one 1. tell: hears the share that is done, and what is done next. The factors are no part of a compiled
    program: one serves all.

    Source: Baik, Hong, Lee, CVPR 2020, the study of manual attenuation.
    """
    if factors[-1] != 1.0:
        raise ValueError(f"the last factor is {factors[-1]}; it has to be 1, which all others are compared to.")
    tell(0.0, "no attenuation")
    whole = np.asarray(judge(meta), np.float64)
    table = np.broadcast_to(whole, (len(layers), len(factors), *whole.shape)).copy()
    pairs = [(layer, factor) for layer in range(len(layers)) for factor in range(len(factors) - 1)]
    for done, (layer, factor) in enumerate(pairs, 1):
        tell(done / (len(pairs) + 1), f"{layers[layer]} times {factors[factor]:g}")
        weights = attenuated(meta["weights"], layers[layer], factors[factor])
        table[layer, factor] = judge({**meta, "weights": weights})
    tell(1.0, "")
    return ByHand(score_name, list(layers), tuple(factors), table)


def attenuated(weights: Weights, layer: str, factor: float) -> Weights:
    """The weights with all tensors of one layer multiplied by a factor."""
    return dict(trees.map_named(lambda name, w: factor * w if trees.layer_of(name) == layer else w, weights))


def layers_of(tensors: Sequence[str]) -> list[str]:
    """The layers that tensors belong to, from the input to the output of the net."""
    return sorted({trees.layer_of(name) for name in tensors}, key=depth)


def depth(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names from input to output: numbers count as numbers, and words without one, such as "head", come last."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    counted = any(part.isdecimal() for part in parts)
    return [(0 if counted else 1, 0, ""), *((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)]
