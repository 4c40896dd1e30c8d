"""Gradient-based meta-learning in JAX: MAML, L2F and the methods that grew from them."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing's, which takes a while: an interrupt before the program listens would be Python's own
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

# Loaded when first used, so that `lethax --help` does not wait for JAX.
_PUBLIC = {
    "Attenuator": "methods",
    "Conv4": "nets",
    "CrossEntropy": "objectives",
    "EpisodeShape": "records",
    "L2F": "methods",
    "LethaxError": "errors",
    "MAML": "methods",
    "MLP": "nets",
    "MetaSGD": "rules",
    "Plan": "outer",
    "Recipe": "recipe",
    "ResNet12": "nets",
    "SGD": "rules",
    "Split": "records",
    "SquaredError": "objectives",
    "Trial": "evaluate",
    "begin": "outer",
    "class_split": "data.source",
    "evaluate": "evaluate",
    "fit": "outer",
    "on_device": "data.source",
    "open_store": "data.store",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"lethax has no public name '{name}'")
    return getattr(import_module(f"lethax.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
