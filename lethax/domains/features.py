"""Features: few-shot classification of vectors that a backbone made. This is the domain of LEO. Rusu et al. 2019."""

from lethax import nets
from lethax.data.source import features_on_device
from lethax.data.store import find_store
from lethax.domains import prepared
from lethax.domains.contract import Family, Inputs, Judging, Values
from lethax.domains.prepared import Prepared
from lethax.errors import RecipeError
from lethax.methods.registry import Method
from lethax.objectives import CrossEntropy
from lethax.recipe import Recipe, Resolved


def _claims(recipe: Recipe) -> bool:
    """Whether the network or the method needs features, or the data set holds them."""
    if recipe.method in ("leo", "leo+l2f"):
        return True
    if recipe.get("net.kind"):
        return bool(recipe.get("net.kind") == "mlp")
    store = find_store(recipe.data)
    return store is not None and bool(store.features)


def _published(recipe: Recipe, method: Method) -> Values:
    """Values for a small net, which are our own."""
    query = recipe.get("episode.query", 15)
    return {
        "episode.query": query, "episode.eval_query": query, "net.kind": "mlp", "net.filters": 100, "net.depth": 2,
    }  # fmt: skip


def _check_inputs(recipe: Resolved, inputs: Inputs) -> None:
    """Raise RecipeError if the data are images."""
    if len(inputs.example) != 1:
        wrong, why = (
            (f"method '{recipe.method}'", "leo takes features, and it holds images: see lethax embed")
            if recipe.reads("leo")
            else ("net 'mlp'", "it holds images, which take conv4 or resnet12")
        )
        raise RecipeError(f"{wrong} does not fit data '{recipe.data}': {why}.")


def _net(recipe: Resolved, inputs: Inputs | None) -> nets.MLP:
    assert inputs is not None
    hidden = (recipe.net.filters,) * recipe.net.depth
    return nets.MLP(inputs.example[0], hidden, recipe.episode.way, spread=recipe.net.deviation)


def _family(recipe: Resolved, split: str) -> Family:
    """The features of a split, on the device."""
    return Family(*features_on_device(prepared.store_of(recipe, split).splits[split]))


def _protocol(recipe: Resolved) -> Judging:
    """For LEO 10,000 episodes and the best checkpoint, as published."""
    return Judging(10_000, 1) if recipe.reads("leo") else prepared.protocol(recipe)


DOMAIN = Prepared(
    kind="features",
    claims=_claims,
    check_inputs=_check_inputs,
    published=_published,
    unread=frozenset({"episode.rotate", "net.norm", "net.per_step_norm"}),
    net=_net,
    objective=CrossEntropy(),
    family=_family,
    protocol=_protocol,
    at_once=20,
)
