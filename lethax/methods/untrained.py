"""Options beside which no gradient would reach a learned part of a method, so that it would stay as it begins."""

from collections.abc import Iterator

from lethax.errors import RecipeError
from lethax.recipe.record import Resolved

_ALIKE = ("zero", "vector")  # starts of the last layer under which all outputs are equal before the first inner step
_BRIDGED = ("reptile", "imaml")  # whose meta-gradient does not pass through the inner steps


def check_trained(recipe: Resolved) -> None:
    """Raise RecipeError for options that would leave a part untrained. Only new recipes are asked, so older runs still open."""
    for said in (*_of_heads(recipe), *_of_gates(recipe), *_of_norms(recipe)):
        raise RecipeError(said)


def _of_heads(recipe: Resolved) -> Iterator[str]:
    inner, method = recipe.inner, recipe.method
    if "inner.head" not in recipe.used or inner.head not in _ALIKE:
        return
    if not inner.steps:
        yield (
            f"inner.steps is 0 and inner.head is {inner.head}: all outputs would stay equal, and nothing would be trained. Give "
            "--inner-steps 1, or --head prototypes."
        )
    if method.startswith("reptile") and inner.steps == 1:
        yield (
            f"inner.steps is 1 and inner.head is {inner.head}: the first inner step moves the last layer alone, and reptile learns "
            "from what moves, so that the other layers would stay as they begin. Give --inner-steps 2."
        )
    if method == "anil+l2f" and not (recipe.gate.every_step and inner.steps > 1):
        yield (
            f"inner.head is {inner.head}: the gates of anil+l2f scale the last layer alone, and no gradient would reach them. Give "
            "--head prototypes."
        )


def _of_gates(recipe: Resolved) -> Iterator[str]:
    if not recipe.reads("gate"):
        return
    base = recipe.method.removesuffix("+l2f")
    for key, usual in (("gate.every_step", False), ("gate.acts", "weights")):
        if key not in recipe.used or recipe.value(key) == usual:
            continue
        if base in _BRIDGED:
            yield (
                f"{key} is {recipe.value(key)}; the meta-gradient of {recipe.method} does not pass through the inner steps, so "
                "that gates which act in them would not be trained: leave it out."
            )
        if not recipe.inner.steps:
            yield f"{key} is {recipe.value(key)}, but inner.steps is 0: such gates act in the inner steps. Give --inner-steps 1."


def _of_norms(recipe: Resolved) -> Iterator[str]:
    inner = recipe.inner
    causes = {
        "inner.order is 1": inner.order == 1,
        "inner.rule is sign": inner.rule == "sign",
        "inner.first_order_steps is that of the whole training": inner.first_order_steps >= recipe.outer.steps,
    }
    for cause, holds in causes.items():
        if holds and recipe.net.per_step_norm and inner.steps > 1 and not inner.multi_step_steps:
            yield (
                f"net.per_step_norm is True, but {cause}: no gradient would reach the norms of the inner steps before the last "
                "one, and these would stay as they begin. Leave --per-step-norm out."
            )
