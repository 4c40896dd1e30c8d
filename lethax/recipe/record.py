"""The two records of an experiment: what a user gives (`Recipe`), and the same with every value filled in (`Resolved`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from lethax.errors import RecipeError, did_you_mean
from lethax.recipe import sections
from lethax.recipe.built_in import (
    EpisodeSection,
    GateSection,
    ImamlSection,
    InnerSection,
    LeoSection,
    MetadatasetSection,
    MumomamlSection,
    NetSection,
    OuterSection,
)
from lethax.recipe.control_sections import ControlSection, LocomotionSection, NavigationSection
from lethax.recipe.options import Range
from lethax.text import shown


def _top(default: Any, text: str, **bounds: float) -> Any:
    return field(default=default, metadata={"text": text, "range": Range(**bounds)})


@dataclass(frozen=True)
class _Top:
    """The values that belong to no section."""

    data: str = _top("sinusoid", "A prepared data set, or a kind of tasks that lethax makes itself, such as sinusoid.")
    method: str = _top("l2f", "The method. +l2f behind its name, as in metasgd+l2f, adds L2F's attenuated start.")
    preset: Literal["code", "paper"] = _top(
        "code",
        "Filters, first-order phase, ResNet12, steps on mini-ImageNet and control are those of the released code or the paper.",
    )
    seed: int = _top(0, "The first weights and the training episodes follow from this seed.", low=0, high=2**32 - 1)
    memory: Literal["fast", "lean"] = _top(
        "fast", "fast writes all loops out in the program; lean takes no more memory for more inner steps or tasks."
    )


TOP = {f.name: f for f in fields(_Top)}


def check_seed(seed: int) -> None:
    """Raise RecipeError unless the seed fits 32 bits, because JAX's keys ignore all further bits."""
    bounds = TOP["seed"].metadata["range"]
    if not bounds.low <= seed <= bounds.high:
        raise RecipeError(f"seed is {long_count(seed)}; it has to be from {bounds.low} to {bounds.high}.")


def long_count(value: int) -> str:
    """Write an integer as text; one of more than 24 digits is only described."""
    return str(value) if abs(value) < 10**24 else f"{'-' if value < 0 else ''}a number of more than 24 digits"


@dataclass(frozen=True)
class Recipe(_Top):
    """What is given of an experiment; `resolve` fills in the rest.

    Make one with `Recipe.of`, by the short names of options, or read one with `lethax.recipe.load`.

    Arguments:
        data: a prepared data set, or tasks that lethax makes itself, such as "sinusoid".
        method: a method, such as "maml", "l2f" or "metasgd+l2f".
        preset: "code" or "paper": whose filters, first-order phase, ResNet12, steps on mini-ImageNet and control are taken.
        seed: the seed of weights and episodes, from 0 to 2³² − 1.
        memory: "fast" writes loops out in the program; "lean" keeps memory flat in inner steps and tasks.
        given: values by "SECTION.NAME", such as {"inner.steps": 1, "gate.scope": "filter"}.
        flat: True for a recipe from before there were sections. Such a recipe has all values, and those that nothing reads are
            left out instead of refused.

    Raises:
        RecipeError: from `of` and `with_values`, for a name that no option has.

    Example:
        >>> import lethax
        >>> recipe = lethax.Recipe.of(data="sinusoid", method="l2f", shot=5, inner_steps=1)
        >>> recipe.get("inner.steps")
        1
        >>> recipe.with_values(gate_scope="filter", inner_steps=None).given
        {'episode.shot': 5, 'gate.scope': 'filter'}
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = field(default=False, compare=False)

    @staticmethod
    def of(**values: Any) -> "Recipe":
        """Make a recipe by the short names of its options: Recipe.of(data="sinusoid", shot=5, inner_steps=1, gate_scope="filter").

        RecipeError for a name that no option has.
        """
        return Recipe().with_values(**values)

    def with_values(self, **values: Any) -> "Recipe":
        """A copy with other values, given by short names; None takes a value back."""
        given, top = dict(self.given), {name: value for name, value in values.items() if name in TOP}
        names: dict[str, str] = {}
        for name, value in values.items():
            if name in TOP:
                continue
            key = key_of(name)
            if names.setdefault(key, name) != name:
                raise RecipeError(f"{names[key]} and {name} are two names of {key}: leave one out.")
            given.pop(key, None)
            if value is not None:
                given[key] = value
        return replace(self, given=given, **top)

    def get(self, key: str, otherwise: Any = None) -> Any:
        """The value that was given for "SECTION.NAME", or `otherwise` if none was."""
        return self.given.get(key, otherwise)


def key_of(name: str) -> str:
    """The key of an option by any spelling: "gate.scope" for "gate_scope" or "gate.scope". RecipeError for an unknown name."""
    key = _names().get(name)
    if key is None:
        raise RecipeError(f"no option is called '{shown(name, 60)}'.{did_you_mean(name, _names())}")
    return key


def _names() -> dict[str, str]:
    """A table from every spelling of an option to its key: "shot", "gate.scope", "gate_scope", and rl_… of earlier recipes."""
    found = {}
    for key, one in sections.by_key().items():
        found[key] = found[key.replace(".", "_")] = key
        if one.short:
            found[one.short.replace("-", "_")] = key
    for section in ("control", "navigation", "locomotion"):
        found |= {f"rl_{name}": one.key for name, one in sections.options(section).items()}
    return found | {"spread": "net.deviation"}


@dataclass(frozen=True)
class Resolved(_Top):
    """An experiment with every value set. Sections that its method and data do not use have their defaults.

    used: the options that they do read, by "SECTION.NAME". more: sections from outside the package, by name.
    """

    episode: EpisodeSection = EpisodeSection()
    net: NetSection = NetSection()
    inner: InnerSection = InnerSection()
    outer: OuterSection = OuterSection()
    gate: GateSection = GateSection()
    leo: LeoSection = LeoSection()
    mumomaml: MumomamlSection = MumomamlSection()
    imaml: ImamlSection = ImamlSection()
    control: ControlSection = ControlSection()
    navigation: NavigationSection = NavigationSection()
    locomotion: LocomotionSection = LocomotionSection()
    metadataset: MetadatasetSection = MetadatasetSection()
    more: Mapping[str, Any] = field(default_factory=dict)
    used: tuple[str, ...] = ()

    def section(self, name: str) -> Any:
        """A section by its name; it may come from outside the package."""
        return self.more[name] if name in self.more else getattr(self, name)

    def reads(self, section: str) -> bool:
        """Whether the method or the data read a section."""
        return section in self.sections

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the sections that the method or the data read."""
        return tuple(dict.fromkeys(key.partition(".")[0] for key in self.used))

    def value(self, key: str) -> Any:
        """The value of "SECTION.NAME"."""
        section, _, name = key.partition(".")
        return getattr(self.section(section), name)

    def values(self) -> dict[str, Any]:
        """All values that the method or the data read, by "SECTION.NAME"."""
        return {key: self.value(key) for key in self.used}

    @property
    def recipe(self) -> Recipe:
        """A recipe that gives all these values explicitly."""
        return Recipe(self.data, self.method, self.preset, self.seed, self.memory, self.values())

    def with_values(self, **values: Any) -> Recipe:
        """A recipe that gives all these values, except that some have other values, given by short names."""
        return self.recipe.with_values(**values)
