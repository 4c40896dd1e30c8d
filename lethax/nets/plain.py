"""The base of a network of one's own."""

from lethax import trees
from lethax.records import Mask, Weights


class PlainNet:
    """What a network without batch norm has beside `init` and `apply`: every weight moves, and "head" is its last layer.

    A network of your own is a frozen dataclass that derives from it. `init(key)` makes nested dicts of weights, of which the entry
    "head" holds those of the last layer. `apply(weights, x, **_)` computes outputs [n, way] of inputs `x` [n, ...].
    """

    def modulated(self) -> dict[str, int]:
        """No layer that a task encoder may change."""
        return {}

    def adapted(self, weights: Weights) -> Mask:
        """All weights move."""
        return trees.map_named(lambda name, _: True, weights)

    def head(self, weights: Weights) -> Mask:
        """The weights in the entry "head"."""
        return trees.map_named(lambda name, _: name.startswith("head/"), weights)
