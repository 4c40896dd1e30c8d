"""The contract of a domain: one kind of tasks, and everything that is true of it alone, in one file.

Few domains implement all of it themselves. Where tasks have a support set, a query set and a loss, a domain is a record of what is
particular to it: of `Made` if its data are drawn, of `Prepared` if they are classes of a data set. A domain from outside the
package is one more record: `register(Made(kind="toys", …))`. See docs/extend.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.learner import Learner
from lethax.methods.registry import Method
from lethax.outer import OuterPlan
from lethax.recipe import Recipe, Resolved

Values = Mapping[str, Any]  # of options, by "SECTION.NAME"


class Family(NamedTuple):
    """Tasks to draw from and their arrays on the device.

    tasks: a frozen dataclass with `draw(source, shape, key) -> Episode`, a function of its arguments alone, which is compiled.
    source: a tree of arrays, which may differ between splits; () where the tasks need none.
    """

    tasks: Any
    source: Any


class Inputs(NamedTuple):
    """What a run knows of the data that it is trained on, so that its learner is made without them.

    sha256: `Store.identity` of the data set; None in runs of older versions. example: the shape of one example. mean, std: of the
    channels of pixels scaled to [0, 1]. classes: those trained on.
    """

    data: str
    sha256: str | None
    example: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()


class Judging(NamedTuple):
    """How a published result is judged: episodes, best checkpoints whose outputs are averaged, inner steps, other data sets."""

    episodes: int
    ensemble: int
    steps: int = 0
    elsewhere: tuple[str, ...] = ()


class Judged(NamedTuple):
    """Scores [n, 1 or steps + 1] of some episodes, and what was seen of each: "gates" [n, L], and what the domain adds."""

    scores: np.ndarray
    seen: dict[str, np.ndarray]


class Domain(Protocol):
    """One kind of tasks. `inputs` is what the domain's own `inputs` gave for the recipe."""

    @property
    def kind(self) -> str:
        """ "curves", "images", "features", "control", or a name of your own: a method may depend on it."""

    @property
    def made(self) -> tuple[str, ...]:
        """Data that need no preparation, by the names that they have on the command line."""

    @property
    def classes(self) -> bool:
        """Whether an episode has classes, and a shot is of one of them."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Sections of the recipe that are read beside "episode", "net", "inner", "outer" and the method's own."""

    @property
    def without(self) -> frozenset[str]:
        """Options of these sections that are not read."""

    @property
    def episodes(self) -> int:
        """Episodes of an evaluation, unless said otherwise."""

    @property
    def curve(self) -> int:
        """Inner steps of an evaluation's adaptation curve, unless said otherwise."""

    @property
    def milder(self) -> str:
        """Options that calm a run that diverges."""

    @property
    def table(self) -> str:
        """The form of a table of results in `report`: "scores" or "returns"."""

    @property
    def drawings(self) -> tuple[str, ...]:
        """Names in `report.pictures` of what is drawn beside the adaptation curve."""

    def claims(self, recipe: Recipe, /) -> bool:
        """Whether a recipe's data are of this kind."""

    def defaults(self, recipe: Recipe, method: Method, /) -> Values:
        """Published values, as far as they depend on the data and on what is given."""

    def check(self, recipe: Resolved, /) -> None:
        """RecipeError for values, or a method, that do not fit these tasks."""

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """The recipe with the shape of episodes that the data allow, and what of that is not `usual`; DataError where none fits."""

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """What is known of prepared data; None for tasks that are made. DataError where they do not fit the recipe."""

    def learner(self, recipe: Resolved, inputs: Inputs | None = None) -> Learner:
        """The method, on a network that fits the tasks."""

    def plan(self, recipe: Resolved) -> OuterPlan:
        """The outer loop."""

    def family(self, recipe: Resolved, split: str, /) -> Family:
        """The tasks of a split ("train", "val", "test"); DataError where they do not allow the episodes."""

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """Scores on fixed episodes after `steps` inner steps, or after 0 … `steps` for a curve; several metas are an ensemble."""

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """16 digits that are equal where two evaluations have the same episodes."""

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> Resolved:
        """The recipe on other data to judge it on; RecipeError where its network cannot read them or scores do not compare."""

    def check_split(self, recipe: Resolved, split: str) -> None:
        """DataError where a split does not allow a run's episodes, with what does."""

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """What an evaluation's record says beside the scores `table` [n, steps + 1]."""

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """Arrays that are kept beside an evaluation's record; empty for most."""

    def protocol(self, recipe: Resolved, /) -> Judging:
        """How the published numbers of these tasks are judged."""

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """Recipes of equal keys train in one program, those that differ in seed and ranges alone; None: each by itself."""
