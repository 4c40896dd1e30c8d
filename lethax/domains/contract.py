"""The contract of a domain: one kind of tasks, and everything that is true of it alone, in one file.

Few domains implement all of it themselves. Where tasks have a support set, a query set and a loss, a domain is a record of what is
particular to it: of `Made` if its data are drawn, of `Prepared` if they are classes of a data set. A domain from outside the
package is one more record: `register(Made(kind="toys", …))`. See docs/extend.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import PRNGKeyArray

from lethax.data.origin import Origin, read_origin
from lethax.data.store import LEAST_STD
from lethax.errors import DataError
from lethax.learner import Learner
from lethax.methods.registry import Method
from lethax.outer import OuterPlan
from lethax.recipe import Recipe, Resolved
from lethax.text import shown

_LARGEST = 1 << 28  # numbers of one example: more are in no data set that could be trained on
Values = Mapping[str, Any]  # of options, by "SECTION.NAME"


class Family(NamedTuple):
    """Tasks to draw from and their arrays on the device.

    tasks: a frozen dataclass with `draw(source, shape, key) -> Episode`, a function of its arguments alone, which is compiled; or a
    `learner.HostFamily`, whose episodes are read on the host. source: a tree of arrays, which may differ between splits; () where
    the tasks need none; of a `HostFamily` what it reads.
    """

    tasks: Any
    source: Any


class Inputs(NamedTuple):
    """What a run knows of the data that it is trained on, so that its learner is made without them.

    sha256: `Store.identity` of the data set; None in runs of older versions. example: the shape of one example. mean, std: of the
    channels of pixels scaled to [0, 1]. classes: those trained on. origin: the pretrained backbone, if it made the features.
    """

    data: str
    sha256: str | None
    example: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    origin: Origin | None = None

    def record(self) -> dict[str, Any]:
        """The inputs as JSON has them."""
        return {**self._asdict(), "origin": self.origin and self.origin.record()}

    @property
    def pictures(self) -> tuple[int, ...]:
        """The shape of the pictures that the run can predict: its examples, or what their features were made of.

        It is () where these are no square pictures in gray or colour.
        """
        shape = self.origin.pictures if self.origin else self.example
        return shape if len(shape) == 3 and shape[0] == shape[1] and shape[2] in (1, 3) else ()


def read_inputs(kept: Mapping[str, Any]) -> Inputs:
    """Read what `Inputs.record` wrote. DataError says what is wrong with anything else."""
    try:
        sha256, example, classes = kept["sha256"], tuple(kept["example"]), tuple(kept["classes"])
        mean, std = tuple(map(float, kept["mean"])), tuple(map(float, kept["std"]))
        made = Inputs(
            str(kept["data"]), sha256, example, mean, std, classes, read_origin(kept.get("origin"), "the run")
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise DataError("it has not the data, sha256, example, mean, std and classes of a run") from None
    if not (sha256 is None or isinstance(sha256, str)) or not all(isinstance(name, str) for name in classes):
        raise DataError("its sha256 or a name of its classes is no text")
    sizes = all(type(size) is int and size > 0 for size in example)
    if not example or not sizes or math.prod(example) > _LARGEST:
        found = shown(list(example), 80)
        raise DataError(f"its example is {found}, expected sizes above 0 of at most {_LARGEST:,} numbers together")
    channels = example[-1] if len(example) == 3 else 0
    if not (
        len(mean) == len(std) == channels and all(map(math.isfinite, mean + std)) and min(std, default=1) >= LEAST_STD
    ):
        raise DataError(f"its mean and std are not {channels} numbers each, the latter above 0")
    return made


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
        """The names, on the command line, of data that need no preparation."""

    @property
    def classes(self) -> bool:
        """Whether episodes have classes, so that shots are counted for each class."""

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of the recipe that are read beside "episode", "net", "inner", "outer" and those of the method."""

    @property
    def without(self) -> frozenset[str]:
        """The options of these sections that are not read."""

    @property
    def drawn(self) -> frozenset[str]:
        """The options that may be 0, which says that every episode draws its own value."""

    @property
    def episodes(self) -> int:
        """The number of episodes of an evaluation, unless another is given."""

    @property
    def curve(self) -> int:
        """The number of inner steps of an evaluation's adaptation curve, unless another is given."""

    @property
    def milder(self) -> str:
        """What may help if a run diverges, as it stands in a message after "Try"."""

    @property
    def table(self) -> str:
        """The form of a table of results: "scores", "returns" or "columns"."""

    @property
    def drawings(self) -> tuple[str, ...]:
        """The names, in `report.pictures`, of what is drawn beside the adaptation curve."""

    def claims(self, recipe: Recipe, /) -> bool:
        """Whether the data of a recipe are of this kind."""

    def defaults(self, recipe: Recipe, method: Method, /) -> Values:
        """The published values that depend on the data and on what the recipe gives, by "SECTION.NAME"."""

    def check(self, recipe: Resolved, /) -> None:
        """Raise RecipeError for values or a method that do not fit these tasks."""

    def fit(self, recipe: Recipe, usual: Resolved) -> tuple[Recipe, str]:
        """Fit the shape of episodes to the data. Returns the recipe and a note on what is not `usual`. DataError if none fits."""

    def inputs(self, recipe: Resolved) -> Inputs | None:
        """What is known of prepared data; None for tasks that are made. DataError if the data do not fit the recipe."""

    def identity(self, recipe: Resolved) -> str | None:
        """The SHA-256 of the data as they are prepared now, as `Inputs` keeps it; None for tasks that are made.

        DataError if they are missing.
        """

    def columns(self, recipe: Resolved, split: str, /) -> tuple[str | None, ...]:
        """The data that an evaluation judges one after another, by the names that `elsewhere` takes; None is the run's own."""

    def learner(self, recipe: Resolved, inputs: Inputs | None = None) -> Learner:
        """Make the method's learner, on a network that fits the tasks."""

    def plan(self, recipe: Resolved) -> OuterPlan:
        """Make the plan of the outer loop."""

    def family(self, recipe: Resolved, split: str, /) -> Family:
        """The tasks of a split ("train", "val" or "test"). DataError if they do not allow the episodes."""

    def judge(
        self, recipe: Resolved, inputs: Inputs | None, split: str, metas: Sequence[Any], episodes: int, steps: int,
        key: PRNGKeyArray, curve: bool,
    ) -> Iterator[Judged]:  # fmt: skip
        """Yield scores on fixed episodes after 0 … `steps` inner steps for a curve; if not, the one score of each episode that
        checkpoints are chosen by, which is usually that after `steps` inner steps. `metas` are an ensemble."""

    def episodes_hash(self, recipe: Resolved, split: str, episodes: int, key: PRNGKeyArray) -> str:
        """A hash of 16 digits, which is equal if two evaluations have the same episodes."""

    def elsewhere(self, recipe: Resolved, inputs: Inputs | None, data: str) -> "tuple[Domain, Resolved]":
        """The domain and the recipe to evaluate a run on other data.

        RecipeError if its network cannot read them, or scores do not compare.
        """

    def check_split(self, recipe: Resolved, split: str) -> None:
        """Raise DataError if a split does not allow the episodes of a run; it says what the split allows."""

    def report(self, recipe: Resolved, split: str, table: np.ndarray, key: PRNGKeyArray) -> Mapping[str, Any]:
        """What the record of an evaluation says beside the scores, which are in `table` [n, steps + 1]."""

    def kept(self, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
        """The arrays to keep beside the record of an evaluation; most domains have none."""

    def protocol(self, recipe: Resolved, /) -> Judging:
        """The protocol by which published numbers on these tasks are made."""

    def together(self, recipe: Resolved, inputs: Inputs | None) -> Any:
        """A key: runs with equal keys, which differ only in seed and ranges, train in one program. None: each run by itself."""
