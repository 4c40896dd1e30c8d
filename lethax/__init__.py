"""Gradient-based meta-learning in JAX: MAML, L2F and the methods that grew from them."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing's, which takes a while: an interrupt before the program listens would be Python's own
if TYPE_CHECKING:  # what type checkers and editors read; `_PUBLIC` says the same to Python
    from lethax.baselines import NearestPrototype as NearestPrototype
    from lethax.data.source import class_split as class_split
    from lethax.data.source import features_on_device as features_on_device
    from lethax.data.source import on_device as on_device
    from lethax.data.store import open_store as open_store
    from lethax.domains import Domain as Domain
    from lethax.domains import Made as Made
    from lethax.domains import Prepared as Prepared
    from lethax.domains import domain_of as domain_of
    from lethax.domains import register as _register_domain
    from lethax.domains import register_net as register_net
    from lethax.domains import register_tasks as register_tasks
    from lethax.errors import CheckpointError as CheckpointError
    from lethax.errors import DataError as DataError
    from lethax.errors import DivergedError as DivergedError
    from lethax.errors import EnvironmentFault as EnvironmentFault
    from lethax.errors import LethaxError as LethaxError
    from lethax.errors import RecipeError as RecipeError
    from lethax.errors import RunError as RunError
    from lethax.evaluation import Score as Score
    from lethax.evaluation import Trial as Trial
    from lethax.evaluation import evaluate as evaluate
    from lethax.evaluation import paired as paired
    from lethax.evaluation import score as score
    from lethax.learner import Learner as Learner
    from lethax.learner import Net as Net
    from lethax.meta_batch import Plan as Plan
    from lethax.methods import ALFA as ALFA
    from lethax.methods import L2F as L2F
    from lethax.methods import LEO as LEO
    from lethax.methods import LSLR as LSLR
    from lethax.methods import MAML as MAML
    from lethax.methods import SGD as SGD
    from lethax.methods import Attenuator as Attenuator
    from lethax.methods import CurveEncoder as CurveEncoder
    from lethax.methods import ImageEncoder as ImageEncoder
    from lethax.methods import Implicit as Implicit
    from lethax.methods import MetaSGD as MetaSGD
    from lethax.methods import Method as Method
    from lethax.methods import Reptile as Reptile
    from lethax.methods import SignSGD as SignSGD
    from lethax.methods import register as _register_method
    from lethax.methods import register_rule as register_rule
    from lethax.nets import MLP as MLP
    from lethax.nets import Contextual as Contextual
    from lethax.nets import Conv4 as Conv4
    from lethax.nets import PlainNet as PlainNet
    from lethax.nets import ResNet12 as ResNet12
    from lethax.objectives import CrossEntropy as CrossEntropy
    from lethax.objectives import SquaredError as SquaredError
    from lethax.outer import TrainState as TrainState
    from lethax.outer import begin as begin
    from lethax.outer import fit as fit
    from lethax.recipe import Recipe as Recipe
    from lethax.recipe import Resolved as Resolved
    from lethax.recipe import dump as dump
    from lethax.recipe import load as load
    from lethax.recipe.options import option as option
    from lethax.recipe.resolve import resolve as resolve
    from lethax.recipe.sections import register_section as register_section
    from lethax.records import Episode as Episode
    from lethax.records import EpisodeShape as EpisodeShape
    from lethax.records import Split as Split
    from lethax.rules import FixedRule as FixedRule
    from lethax.runs.adapted import Adapted as Adapted
    from lethax.runs.adapted import adapt_run as adapt_run
    from lethax.runs.adapted import load_adapted as load_adapted
    from lethax.runs.evaluation import best_metas as best_metas
    from lethax.runs.folder import open_run as open_run

    register_domain, register_method = _register_domain, _register_method

__version__ = "0.1.0"

# Loaded when first used, so that `lethax --help` does not wait for JAX. No module of the package may have one of these names:
# when it is imported, Python would put it in the name's place.
_PUBLIC = {
    "baselines": "NearestPrototype",
    "data.source": "class_split features_on_device on_device",
    "data.store": "open_store",
    "domains": "Domain Made Prepared domain_of register=register_domain register_net register_tasks",
    "errors": "CheckpointError DataError DivergedError EnvironmentFault LethaxError RecipeError RunError",
    "evaluation": "Score Trial evaluate paired score",
    "learner": "Learner Net",
    "meta_batch": "Plan",
    "methods": "ALFA L2F LEO LSLR MAML SGD Attenuator CurveEncoder ImageEncoder Implicit MetaSGD Method Reptile SignSGD "
    "register=register_method register_rule",
    "nets": "MLP Contextual Conv4 PlainNet ResNet12",
    "objectives": "CrossEntropy SquaredError",
    "outer": "TrainState begin fit",
    "recipe": "Recipe Resolved dump load",
    "recipe.resolve": "resolve",
    "recipe.options": "option",
    "recipe.sections": "register_section",
    "records": "Episode EpisodeShape Split",
    "rules": "FixedRule",
    "runs.adapted": "Adapted adapt_run load_adapted",
    "runs.evaluation": "best_metas",
    "runs.folder": "open_run",
}
_PLACES = {
    entry.rpartition("=")[2]: (module, entry.partition("=")[0])
    for module, entries in _PUBLIC.items()
    for entry in entries.split()
}
__all__ = sorted(_PLACES)


if not TYPE_CHECKING:  # else every name would be one, whatever its spelling

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"lethax has no public name '{name}'")
        module, attribute = _PLACES[name]
        return getattr(import_module(f"lethax.{module}"), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
