"""Resolve a recipe: fill in every value that was not given, and check all of them, once."""

import re
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from math import isfinite
from typing import Any, NamedTuple

from lethax.domains import Domain, domain_of
from lethax.errors import RecipeError, did_you_mean
from lethax.methods.registry import Method, method_of
from lethax.methods.untrained import check_trained
from lethax.names import DATA_NAME
from lethax.recipe import Recipe, Resolved, sections
from lethax.recipe.options import Option
from lethax.recipe.record import TOP, check_seed, long_count
from lethax.recipe.toml import TOP_KINDS, read
from lethax.text import shown

_EVERYWHERE = ("episode", "net", "inner", "outer")
_MADE_BY = {"features": ", see lethax embed"}
_UNGATED = {"control.resample": False, "control.gate_log_std": False}  # of methods without gates
_LARGEST = 2**31  # no count of a recipe comes near, and the arrays on the device count in 32 bits


class Parts(NamedTuple):
    """The domain and the method of a recipe, the sections that they use, the options that they read, and those that are fixed."""

    domain: Domain
    method: Method
    sections: tuple[str, ...]
    options: tuple[str, ...]
    fixed: Mapping[str, Any]


def parts_of(recipe: Recipe) -> Parts:
    """Find the parts of a recipe. RecipeError if the data or the method do not exist or do not fit each other."""
    for name, kind in TOP_KINDS.items():
        read(getattr(recipe, name), kind, name)
    if not re.fullmatch(DATA_NAME, recipe.data):
        pictures = " A folder of pictures gets a name with: lethax data prepare folder --from FOLDER --store NAME."
        raise RecipeError(
            f"data is '{shown(recipe.data, 60)}'; the name of a data set has lower-case letters, digits, - and _ alone."
            f"{pictures if '/' in recipe.data else ''}"
        )
    method, domain = method_of(recipe), domain_of(recipe)
    if method.kinds and domain.kind not in method.kinds:
        takes = " or ".join(f"{kind}{_MADE_BY.get(kind, '')}" for kind in method.kinds)
        raise RecipeError(f"method '{recipe.method}' does not fit data '{recipe.data}': {recipe.method} takes {takes}.")
    wanted = {*_EVERYWHERE, *domain.sections, *method.sections}
    used = tuple(name for name in sections.SECTIONS if name in wanted)
    fixed = method.fixed if "gate" in used else {**_UNGATED, **method.fixed}
    without = domain.without | method.without | set(fixed)
    keys = (one.key for name in used for one in sections.options(name).values())
    return Parts(domain, method, used, tuple(key for key in keys if key not in without), fixed)


def resolve(recipe: Recipe) -> Resolved:
    """The recipe with every value: from what is given, else the published settings, else the defaults.

    A budget below the published one scales the first-order phase and the multi-step phase in proportion, unless they are given:
    with s = steps / published steps below 1, a phase of n outer steps has round(s n).

    Arguments:
        recipe: what is given of an experiment.

    Returns:
        A `Resolved`, whose sections have a value for every option, such as `resolved.inner.steps`.

    Raises:
        RecipeError: for data or a method that do not exist or do not fit each other, for a value or a combination of values
            that cannot be, and for an option that nothing reads here.

    Example:
        >>> import lethax
        >>> resolved = lethax.resolve(lethax.Recipe.of(data="sinusoid", method="l2f", shot=5, steps=1000))
        >>> resolved.inner.rate, resolved.outer.steps, resolved.gate.scope
        (0.01, 1000, 'tensor')
        >>> lethax.resolve(lethax.Recipe.of(data="sinusoid", method="maml", gate_scope="filter"))
        Traceback (most recent call last):
        lethax.errors.RecipeError: gate.scope is filter, but method 'maml' on 'sinusoid' does not read the section [gate]...
    """
    parts = parts_of(recipe)
    given = _read(recipe, parts)
    _check_sizes(recipe, given)
    known = sections.by_key()
    usual = {key: value for name in parts.sections for key, value in sections.defaults(name).items()}
    values = {
        key: read(value, known[key].kind, f"the default of {key}") for key, value in usual.items()
    }  # a plugin's too
    published = parts.method.published(parts.domain.kind, parts.domain.defaults(recipe, parts.method))
    for key in published:
        if key not in known:  # of a plugin
            raise RecipeError(
                f"'{shown(key, 60)}' is a published value of method '{recipe.method}' on '{recipe.data}', but no option is called "
                f"that.{did_you_mean(key, known)}"
            )
    values |= {**published, **given}
    if "outer.min_rate" not in {**published, **given}:
        values["outer.min_rate"] = values["outer.rate"]
    values |= _scaled(values, given, {**usual, **published}["outer.full_steps"])
    resolved = _made(recipe, parts, values)
    _check(resolved, parts, given)
    return resolved


def _read(recipe: Recipe, parts: Parts) -> Mapping[str, Any]:
    """The given values. RecipeError if one of them is not read here; in a recipe without sections it is left out instead."""
    known = sections.by_key()
    for key in recipe.given:
        if key not in known:
            raise RecipeError(f"no option is called '{shown(key, 60)}'.{did_you_mean(key, known)}")
    strange = [key for key, value in recipe.given.items() if key not in parts.options and parts.fixed.get(key) != value]
    if strange and not recipe.flat:
        raise RecipeError(_unread(recipe, strange[0], parts))
    return {key: read(value, known[key].kind, key) for key, value in recipe.given.items() if key not in strange}


def _unread(recipe: Recipe, key: str, parts: Parts) -> str:
    """A sentence that says why an option changes nothing here."""
    section, value = key.partition(".")[0], recipe.given[key]
    if section not in parts.sections:
        where = f"method '{recipe.method}' on '{recipe.data}'"
        return f"{key} is {shown(value, 60)}, but {where} does not read the section [{section}]: leave it out."
    if key in parts.fixed:
        return f"{key} is {shown(value, 60)}; method '{recipe.method}' always has {parts.fixed[key]}: leave it out."
    if key == "episode.way" and not parts.domain.classes:
        return f"episode.way is {shown(value, 60)}; data '{recipe.data}' has no classes: leave --way out."
    if key in parts.method.without:
        return f"{key} is {shown(value, 60)}; method '{recipe.method}' does not have that choice: leave it out."
    return f"{key} is {shown(value, 60)}; data '{recipe.data}' does not have that choice: leave it out."


def _scaled(values: Mapping[str, Any], given: Collection[str], published: int) -> dict[str, Any]:
    """The number of outer steps, and the phases that are scaled with it: their published lengths are of so many steps."""
    epochs = values["inner.multi_step_epochs"]
    steps = values["outer.steps"] if "outer.steps" in given else values["outer.full_steps"]
    share = min(steps / max(published, 1), 1.0)
    found = {"outer.steps": steps}
    if "inner.first_order_steps" not in given:
        found["inner.first_order_steps"] = round(values["inner.first_order_steps"] * share)
    if "inner.multi_step_steps" not in given and values["inner.multi_step_steps"]:
        epoch = max(round(values["inner.multi_step_steps"] * share / max(epochs, 1)), 1)
        found["inner.multi_step_steps"] = epoch * epochs
    return found


def _made(recipe: Recipe, parts: Parts, values: Mapping[str, Any]) -> Resolved:
    built: dict[str, Any] = {}
    for name in parts.sections:
        cls = sections.SECTIONS[name]
        built[name] = cls(**{f.name: values[f"{name}.{f.name}"] for f in fields(cls)})
    own = {name: built.pop(name) for name in parts.sections if name not in sections.BUILT_IN}
    return Resolved(**{name: getattr(recipe, name) for name in TOP}, **built, more=own, used=parts.options)


def _check_sizes(recipe: Recipe, given: Mapping[str, Any]) -> None:
    """Raise RecipeError unless every number is finite and every count fits an array."""
    check_seed(recipe.seed)
    for key, values in given.items():
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, float) and not isfinite(value):
                raise RecipeError(f"{key} is {value}; it has to be a finite number.")
            if type(value) is int and abs(value) >= _LARGEST:
                raise RecipeError(f"{key} is {long_count(value)}; it has to be below {_LARGEST}.")


def _check(recipe: Resolved, parts: Parts, given: Collection[str]) -> None:
    """Raise RecipeError for the first value that is not allowed. Values that were given are named before others."""
    known = sections.by_key()
    for key in dict.fromkeys((*given, *recipe.used)):
        if key not in parts.domain.drawn or recipe.value(key) != 0:
            _check_range(known[key], recipe.value(key))
    inner, outer = recipe.inner, recipe.outer
    if inner.multi_step_steps % inner.multi_step_epochs:
        raise RecipeError(
            f"inner.multi_step_steps is {inner.multi_step_steps}; it has to be a multiple of the {inner.multi_step_epochs} "
            "multi_step_epochs."
        )
    if outer.min_rate > outer.rate:
        raise RecipeError(
            f"outer.min_rate is {outer.min_rate}; the rate falls to it, so it has to be at most outer.rate, {outer.rate}."
        )
    if outer.task_chunk and outer.batch % outer.task_chunk:
        raise RecipeError(
            f"outer.task_chunk is {outer.task_chunk}; it has to divide outer.batch, {outer.batch}, or be 0 for no chunks."
        )
    parts.method.check(recipe)
    parts.domain.check(recipe)


def _check_range(one: Option, value: Any) -> None:
    bounds = one.range
    for beyond, said in (
        (bounds.low is not None and value < bounds.low, f"at least {bounds.low}"),
        (bounds.high is not None and value > bounds.high, f"at most {bounds.high}"),
        (bounds.above is not None and value <= bounds.above, f"above {bounds.above}"),
        (bounds.below is not None and value >= bounds.below, f"below {bounds.below}"),
    ):
        if beyond:
            raise RecipeError(f"{one.key} is {value}; it has to be {said}.")


def _check_idle(recipe: Recipe, resolved: Resolved) -> None:
    """Raise RecipeError for an option that another one leaves nothing to do, unless it has its usual value.

    This is asked of new recipes alone: runs that were made before stay what they are.
    """
    gate, inner = resolved.gate, resolved.inner
    reading = ("gate.embedding", "gate.embedding_scale", "gate.layers", "gate.detached")
    idle = {
        "net.kind": ("net.filters",) if resolved.net.kind == "resnet12" else (),
        "inner.order": ("inner.first_order_steps",) if inner.order == 1 else (),
        "inner.rule": ("inner.clamp", "inner.order", "inner.first_order_steps") if inner.rule == "sign" else (),
        "inner.steps": ("net.per_step_norm", "inner.multi_step_steps") if inner.steps <= 1 else (),
        "inner.multi_step_steps": () if inner.multi_step_steps else ("inner.multi_step_epochs",),
        "gate.fixed": ("gate.task_dependent", "gate.activation", "gate.bias_init", *reading) if gate.fixed else (),
        "gate.task_dependent": () if gate.task_dependent else (*reading, "leo.gates"),
        "gate.scope": ("gate.embedding",) if gate.scope == "parameter" else (),
    }
    for cause, keys in idle.items():
        for key in keys:
            others = {name: value for name, value in recipe.given.items() if name != key}
            if len(others) < len(recipe.given) and not recipe.flat:
                value = resolved.value(key)
                if value != resolve(replace(recipe, given=others)).value(key):
                    said = f"{key} is {shown(value, 60)}, but {cause} is {shown(resolved.value(cause), 60)}"
                    raise RecipeError(f"{said}, beside which it changes nothing: leave one of them out.")


def fit(recipe: Recipe) -> tuple[Resolved, str]:
    """Resolve a recipe, with way, shot and query that fit the data; returns a note as well if they are not the usual ones."""
    usual = resolve(recipe)
    check_trained(usual)
    _check_idle(recipe, usual)
    fitted, note = domain_of(recipe).fit(recipe, usual)
    return resolve(fitted), note
