"""The domains. `domain_of` is the only function that tells one kind of tasks from another."""

from lethax.domains import control, curves, features, images, metadataset
from lethax.domains.contract import Domain as Domain
from lethax.domains.contract import Family as Family
from lethax.domains.contract import Inputs as Inputs
from lethax.domains.contract import Judged as Judged
from lethax.domains.contract import Judging as Judging
from lethax.domains.contract import Values as Values
from lethax.domains.contract import read_inputs as read_inputs
from lethax.domains.made import Made as Made
from lethax.domains.own_nets import register_net as register_net
from lethax.domains.own_tasks import Draw, drawn
from lethax.domains.prepared import Prepared as Prepared
from lethax.errors import RecipeError
from lethax.recipe import Recipe, Resolved
from lethax.recipe.sections import register_section

# The first that claims a recipe has it: by the name of the data, then features by the method and the net; images take the rest.
DOMAINS: list[Domain] = [
    curves.DOMAIN, control.NAVIGATION_DOMAIN, control.LOCOMOTION_DOMAIN, metadataset.DOMAIN, features.DOMAIN,
    images.DOMAIN,
]  # fmt: skip


def register(domain: Domain) -> None:
    """Make a domain from outside the package known. It is asked before the others. RecipeError if a name is taken."""
    if domain in DOMAINS:
        return
    if domain.kind in {other.kind for other in DOMAINS}:
        raise RecipeError(f"a domain of the kind '{domain.kind}' exists already: choose another kind.")
    if not isinstance(domain.made, tuple):
        raise RecipeError(f"the domain '{domain.kind}' has made={domain.made!r}; it has to be a tuple of names.")
    taken = {name for other in DOMAINS for name in other.made} & set(domain.made)
    if taken:
        raise RecipeError(f"data called '{min(taken)}' exist already: choose another name.")
    DOMAINS.insert(0, domain)


def register_tasks(
    name: str,
    draw: Draw,
    *,
    inputs: int = 1,
    outputs: int = 1,
    options: type | None = None,
    published: Values | None = None,
) -> None:
    """Make tasks of your own known: few-shot regression that a function draws, with a fully connected net.

    Arguments:
        name: the name of the data on the command line, and of the section of its options.
        draw: (options, shape, key) -> `Episode`, of one task: inputs [n, inputs] and outputs [n, outputs], for n = `shape.shot`
            support points and n = `shape.query` query points. It is compiled, so it uses `jax.numpy`, and takes all that is random
            from `key`. Training, validation and test draw from keys that have nothing in common.
        options: a frozen dataclass whose fields are numbers made by `option`; `draw` gets their values by name.
        published: values that are usual for these tasks, by "SECTION.NAME".

    Raises:
        RecipeError: if a name is taken, or a field of `options` cannot be an option.
    """
    if options:
        register_section(name, options)
    register(drawn(name, draw, inputs, outputs, options is not None, published or {}))


def domain_of(recipe: Recipe | Resolved) -> Domain:
    """The domain of a recipe's data."""
    asked = recipe.recipe if isinstance(recipe, Resolved) else recipe
    return next(domain for domain in DOMAINS if domain.claims(asked))
