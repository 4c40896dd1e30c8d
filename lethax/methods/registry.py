"""The methods by name: the sections that each reads, its published values, and how its learner is made.

A method from outside the package is one more record: `register(Method("mine", "…", make))`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from lethax.errors import OF_A_PLUGIN, RecipeError, did_you_mean
from lethax.learner import Learner, Net
from lethax.methods.parts import build
from lethax.recipe import Recipe, Resolved, sections
from lethax.rules import Rule
from lethax.text import shown

Values = Mapping[str, Any]  # of options, by "SECTION.NAME"


class Preset(NamedTuple):
    """What a method's published values can depend on: the kind of tasks, and the values of the domain by "SECTION.NAME"."""

    kind: str
    values: Values


def _nothing(preset: Preset) -> Values:
    return {}


def _fits(recipe: Resolved) -> None:
    return None


@dataclass(frozen=True)
class Method:
    """A method of meta-learning.

    Arguments:
        name: the name on the command line.
        text: one sentence about the method.
        make: (net, recipe, **options) -> Learner. The options are keyword arguments that the domain adds, such as the objective.
            RecipeError for a net that the method cannot work on.
        kinds: the kinds of tasks that the method fits; () stands for all.
        sections: the sections of a recipe that it reads beside "episode", "net", "inner" and "outer".
        defaults: a function from a `Preset` to the method's published values, by "SECTION.NAME".
        fixed: values that the method always has, by "SECTION.NAME".
        without: options that it does not read.
        check: a function that raises RecipeError for values that the method cannot have.
        base: the method that paired differences are taken to.
    """

    name: str
    text: str
    make: Callable[..., Any]
    kinds: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    defaults: Callable[[Preset], Values] = _nothing
    fixed: Values = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    check: Callable[[Resolved], None] = _fits
    base: str = "maml"

    @property
    def full(self) -> str:
        """The name with what it is made of: "maml+l2f" of "l2f"; any other as it is."""
        return "maml+l2f" if self.name == "l2f" else self.name

    def published(self, kind: str, of_domain: Values) -> Values:
        """The published values of a domain, whose `kind` it is, with those of the method."""
        usual = {key: one.default for key, one in sections.by_key().items()}
        return {**of_domain, **self.defaults(Preset(kind, {**usual, **of_domain})), **self.fixed}

    @property
    def plain(self) -> str:
        """The method without L2F's start: "maml" of "l2f", "metasgd" of "metasgd+l2f"."""
        return self.full.removesuffix("+l2f")


METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make a method known. RecipeError if another method has the name, or if it names sections or options that do not exist."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\+l2f)?", method.name):
        raise RecipeError(
            f"a method is called '{shown(method.name, 60)}': its name has only lower-case letters, digits and _, and +l2f at "
            "its end if it has L2F's start."
        )
    for what, names, known in (
        ("section", method.sections, sections.SECTIONS),
        ("option", (*method.without, *method.fixed), sections.by_key()),
    ):
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known)
                raise RecipeError(
                    f"method '{method.name}' names the {what} '{shown(name, 60)}', which does not exist.{hint}"
                )
    if METHODS.setdefault(method.name, method) != method:
        raise RecipeError(f"a method called '{method.name}' exists already: choose another name.")
    return method


def register_rule(
    name: str, text: str, rule: Callable[[Resolved], Rule], options: type | None = None
) -> tuple[Method, Method]:
    """Make MAML with a rule of your own known, by `name`, and the same with L2F's start, by `name`+l2f.

    Arguments:
        name: the name on the command line, and of the section of its options.
        text: one sentence about the method.
        rule: a function from the values of a recipe to the rule, such as a frozen dataclass that derives from `FixedRule`.
        options: a frozen dataclass whose fields are made by `option`; `rule` finds its values in `recipe.section(name)`.

    Returns:
        The two methods.

    Raises:
        RecipeError: if a name is taken, or a field of `options` cannot be an option.
    """

    def made(base: str) -> Callable[..., Learner]:
        def make(net: Net, recipe: Resolved, **others: Any) -> Learner:
            learner: Learner = METHODS[base].make(net, recipe, rule=rule(recipe), **others)
            return learner

        return make

    if options:
        sections.register_section(name, options)
    own, without = (name,) if options else (), frozenset({"inner.rule"})
    start = f"{text.rstrip('.')}, with L2F's attenuated start."
    return (
        register(Method(name, text, made("maml"), sections=own, without=without)),
        register(Method(f"{name}+l2f", start, made("maml+l2f"), sections=(*own, "gate"), without=without)),
    )


def method_of(recipe: Recipe | Resolved) -> Method:
    """The method of a recipe. RecipeError if no method has the name."""
    name = recipe.method
    if name == "cavia+l2f":
        raise RecipeError(
            "method 'cavia+l2f' cannot be: cavia moves a context that starts at 0, and 0 stays 0 under any gate."
        )
    if name not in METHODS:
        raise RecipeError(
            f"no method is called '{shown(name, 60)}'.{did_you_mean(name, METHODS)} Methods: {', '.join(METHODS)}."
            f"{OF_A_PLUGIN}"
        )
    return METHODS[name]


def _make(name: str) -> Callable[..., Learner]:
    def make(net: Net, r: Resolved, *, kept: tuple[str, ...] = (), rule: Rule | None = None, **options: Any) -> Learner:
        return build(
            name,
            net,
            rate=r.inner.rate,
            rule=rule or r.inner.rule,
            modulation=r.mumomaml.modulation,
            reading_order=r.mumomaml.order,
            proximity=r.imaml.proximity,
            attenuator={**asdict(r.gate), "kept": kept},
            leo=asdict(r.leo),
            steps=r.inner.steps,
            order=r.inner.order,
            second_order_from=r.inner.first_order_steps,
            norm=r.net.norm,
            head=r.inner.head,
            precision=r.net.precision,
            inner_clamp=r.inner.clamp,
            multi_step_until=r.inner.multi_step_steps,
            multi_step_epoch=max(r.inner.multi_step_steps // r.inner.multi_step_epochs, 1),
            **options,
        )

    return make


def _by_kind(**values: Values) -> Callable[[Preset], Values]:
    return lambda preset: values.get(preset.kind, {})


def _always(**values: Any) -> Callable[[Preset], Values]:
    found = {name.replace("__", "."): value for name, value in values.items()}
    return lambda preset: found


# MAML++, ALFA, CAVIA, Reptile and iMAML were released with their one order from the first step on.
_AT_ONCE = {"inner.first_order_steps": 0}


def _alfa(preset: Preset) -> Values:
    return {"inner.rule": "alfa", **(_AT_ONCE if preset.kind == "images" else {})}


def _maml_pp(preset: Preset) -> Values:
    """A learned rate a tensor and step; in curves annealing and a fifth of the budget with the multi-step loss; in images as many
    hundredths of it as the released code has epochs of such a loss."""
    full, values = preset.values["outer.full_steps"], {"inner.rule": "lslr"}
    if preset.kind == "curves":
        return {**values, "outer.min_rate": 1e-5, "inner.multi_step_steps": full // 5}
    if preset.kind == "images":
        epochs = preset.values.get("inner.multi_step_epochs", 10)
        steps = {"inner.multi_step_steps": full * epochs // 100}
        return {**values, **_AT_ONCE, **steps, "net.per_step_norm": True}
    return values


def _boil(preset: Preset) -> Values:
    """The released rate; where tasks would start from a last layer of zeros, which BOIL never moves, from prototypes."""
    if preset.kind != "images":
        return {}
    start = preset.values["inner.head"]
    return {"inner.rate": 0.5, "inner.steps": 1, "inner.head": "prototypes" if start == "zero" else start}


def _bridged(recipe: Resolved) -> None:
    if not recipe.inner.steps:
        raise RecipeError(
            f"inner.steps is 0; the meta-gradient of {recipe.method} is made of what inner steps reach: give --inner-steps 1."
        )
    if recipe.inner.rule not in ("sgd", "sign"):
        raise RecipeError(
            f"inner.rule is {recipe.inner.rule}, whose rates are learned through the inner steps; the meta-gradient of "
            f"{recipe.method} does not pass through them, so that the rates would stay as they begin: take sgd or sign."
        )


def _reptile_fits(recipe: Resolved) -> None:
    _bridged(recipe)
    if not recipe.inner.rate:
        raise RecipeError("inner.rate is 0.0; reptile divides by it: it has to be above 0.")


def _imaml_fits(recipe: Resolved) -> None:
    _bridged(recipe)
    if (product := recipe.inner.rate * recipe.imaml.proximity) >= 2:
        raise RecipeError(
            f"inner.rate × imaml.proximity is {product:g}; from 2 on the inner steps move away from the minimum that imaml "
            "differentiates at: take a smaller --inner-rate, best with a product below 1."
        )


_MULTI_STEP = frozenset({"inner.multi_step_steps", "inner.multi_step_epochs"})
_FIRST_ORDER = {"inner.order": 1}
_NO_ORDER = frozenset({"inner.first_order_steps"})
# Where the released code of a method has inner steps of its own. Reptile's are ours: with one it would learn the mean of all tasks.
_BASES: dict[str, dict[str, Any]] = {
    "maml": {"text": "MAML learns an initialisation from which a few gradient steps solve a task (Finn et al. 2017)."},
    "fomaml": {
        "text": "First-order MAML leaves the second derivatives out (Finn et al. 2017).",
        "fixed": _FIRST_ORDER, "without": _NO_ORDER,
    },
    "sign_maml": {
        "text": "Sign-MAML moves by the sign of the inner gradient (Fan et al. 2021).", "defaults": _always(inner__rule="sign"),
    },
    "metasgd": {
        "text": "Meta-SGD learns an inner rate for every parameter (Li et al. 2017).", "defaults": _always(inner__rule="metasgd"),
    },
    "anil": {"text": "ANIL adapts the last layer alone (Raghu et al. 2020)."},
    "boil": {
        "text": "BOIL adapts all but the last layer (Oh et al. 2021).",
        "defaults": _boil,
    },
    "maml_pp": {
        "text": "MAML++ learns inner rates by tensor and step, with a multi-step loss (Antoniou et al. 2019).",
        "defaults": _maml_pp,
    },
    "alfa": {"text": "ALFA makes the inner rates of every step from weights and gradients (Baik et al. 2020).", "defaults": _alfa},
    "mumomaml": {
        "text": "MuMoMAML modulates the network by an encoding of the task (Vuorio et al. 2019).", "sections": ("mumomaml",),
    },
    "cavia": {
        "text": "CAVIA adapts a context vector alone (Zintgraf et al. 2019).",
        "defaults": _by_kind(curves={"inner.rate": 1.0}, images={"inner.rate": 1.0, "inner.steps": 2, **_AT_ONCE}),
        "fixed": {"inner.head": "trained"},
    },
    "reptile": {
        "text": "Reptile moves the initialisation towards the adapted weights (Nichol et al. 2018).",
        "defaults": _by_kind(curves={"inner.steps": 5}, images={"inner.steps": 8, **_AT_ONCE}),
        "fixed": _FIRST_ORDER, "without": _MULTI_STEP | _NO_ORDER, "check": _reptile_fits,
    },
    "imaml": {
        "text": "iMAML differentiates a proximal inner problem implicitly (Rajeswaran et al. 2019).", "sections": ("imaml",),
        "defaults": _by_kind(
            curves={"inner.steps": 16}, images={"inner.rate": 0.1, "inner.steps": 16, **_AT_ONCE},
            features={"inner.rate": 0.1, "inner.steps": 16},
        ),
        "fixed": _FIRST_ORDER, "without": _MULTI_STEP | _NO_ORDER, "check": _imaml_fits,
    },
    "leo": {
        "text": "LEO adapts a code from which a linear classifier of features is decoded (Rusu et al. 2019).",
        "kinds": ("features",), "sections": ("leo",), "base": "leo",
        "without": _MULTI_STEP | _NO_ORDER | {
            "inner.rate", "inner.rule", "inner.head", "inner.clamp", "inner.order", "net.kind", "net.filters", "net.depth",
            "net.deviation", "gate.fixed", "gate.every_step", "gate.scope", "gate.exclude_head", "gate.acts",
            "leo.gates",
        },
    },
}  # fmt: skip


# What these move in classification has gradients whose mean over the classes is 0: of the mean alone the gates would read nothing.
_READ_BY_SIZE = _by_kind(images={"gate.embedding": "mean_abs"}, features={"gate.embedding": "mean_abs"})
_MEAN_IS_ZERO = ("anil", "leo")


def _both(one: Callable[[Preset], Values], other: Callable[[Preset], Values]) -> Callable[[Preset], Values]:
    return lambda preset: {**one(preset), **other(preset)}


def _register_all() -> None:
    register(Method("l2f", "MAML+L2F attenuates the initialisation per task and layer before it adapts (Baik et al. 2020).",
                    _make("l2f"), sections=("gate",)))  # fmt: skip
    for name, facts in _BASES.items():
        register(Method(name, make=_make(name), **facts))
    for name, facts in _BASES.items():
        # A context that starts at 0 is 0 under any gate: CAVIA is the one that L2F's start cannot change.
        if name != "cavia":
            text = f"{facts['text'].split(' (')[0]}, with L2F's attenuated start."
            usual = facts.get("defaults", _nothing)
            more = {
                "name": f"{name}+l2f", "text": text, "make": _make(f"{name}+l2f"),
                "sections": (*facts.get("sections", ()), "gate"),
                "without": facts.get("without", frozenset()) - {"leo.gates"},
                "defaults": _both(usual, _READ_BY_SIZE) if name in _MEAN_IS_ZERO else usual,
            }  # fmt: skip
            register(Method(**{**facts, **more}))


_register_all()
