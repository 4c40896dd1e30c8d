"""The domains: `domain_of` is the only question by which a kind of tasks is told from another."""

from lethax.domains.contract import Domain as Domain
from lethax.domains.contract import Family as Family
from lethax.domains.contract import Inputs as Inputs
from lethax.domains.contract import Judged as Judged
from lethax.domains.contract import Judging as Judging
from lethax.domains.control import LocomotionTasks, NavigationTasks
from lethax.domains.curves import Curves
from lethax.domains.features import Features
from lethax.domains.images import Images
from lethax.recipe import Recipe, Resolved

# The first that claims a recipe has it; images take what nothing else claims.
DOMAINS: list[Domain] = [Curves(), NavigationTasks(), LocomotionTasks(), Features(), Images()]


def register(domain: Domain) -> None:
    """Make a domain from outside the package known; it is asked before the others."""
    if domain not in DOMAINS:
        DOMAINS.insert(0, domain)


def domain_of(recipe: Recipe | Resolved) -> Domain:
    """The domain of a recipe's data."""
    asked = recipe.recipe if isinstance(recipe, Resolved) else recipe
    return next(domain for domain in DOMAINS if domain.claims(asked))
