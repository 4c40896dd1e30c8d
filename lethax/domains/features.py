"""Features: few-shot classification of vectors that a backbone made. This is the domain of LEO. Rusu et al. 2019."""

from lethax import nets
from lethax.data.source import features_on_device
from lethax.data.store import find_store
from lethax.domains import prepared
from lethax.domains.contract import Family, Inputs, Judging, Values
from lethax.domains.own_nets import NETS
from lethax.domains.prepared import Prepared
from lethax.errors import RecipeError
from lethax.learner import Net
from lethax.methods import leo
from lethax.methods.registry import Method
from lethax.objectives import CrossEntropy
from lethax.recipe import Recipe, Resolved


def _claims(recipe: Recipe) -> bool:
    """Whether the network or the method needs features, or the data set holds them."""
    if recipe.method in ("leo", "leo+l2f"):
        return True
    if (kind := recipe.get("net.kind")) and kind not in NETS:
        return bool(kind == "mlp")
    store = find_store(recipe.data)
    return store is not None and bool(store.features)


def _published(recipe: Recipe, method: Method) -> Values:
    """Values for a small net, which are our own, and LEO's settings.

    Features have length 1, so that gradients are small: at the inner rate of pixels nothing is learned.
    """
    query = recipe.get("episode.query", 15)
    small = {
        "episode.query": query, "episode.eval_query": query, "net.kind": "mlp", "net.filters": 100, "net.depth": 2,
        "inner.rate": 0.01 if method.plain == "sign_maml" else 1.0,  # whose steps have the size of the rate
    }  # fmt: skip
    return {**small, **(_of_leo(recipe) if "leo" in method.sections else {})}


def _of_leo(recipe: Recipe) -> Values:
    """The authors' settings for mini- and tieredImageNet, 1 and 5 shots; other data sets take the nearer of mini-ImageNet's.

    Their bounds of 0.1 are on the gradient of the mean over the tasks.
    """
    known = leo.published(recipe.data.startswith("tiered"), recipe.get("episode.shot", 5))
    rate = known.pop("outer_rate")
    return {
        "outer.full_steps": 100_000, "outer.batch": 12, "outer.clamp": 0.1, "outer.clip_tensor_norm": 0.1,
        "outer.non_finite": "skip", "outer.reduction": "mean", "outer.rate": rate,
        **{f"leo.{name}": value for name, value in known.items()},
    }  # fmt: skip


def _check_inputs(recipe: Resolved, inputs: Inputs) -> None:
    """Raise RecipeError if the data are images."""
    if len(inputs.example) != 1:
        raise unfit(recipe)


def unfit(recipe: Resolved) -> RecipeError:
    """What is wrong with a method or a network that takes features, on data that are images."""
    wrong, why = (
        (f"method '{recipe.method}'", "leo takes features, and it holds images: see lethax embed")
        if recipe.reads("leo")
        else (f"net '{recipe.net.kind}'", "it holds images, which take conv4 or resnet12")
    )
    return RecipeError(f"{wrong} does not fit data '{recipe.data}': {why}.")


def _net(recipe: Resolved, inputs: Inputs | None) -> Net:
    assert inputs is not None
    _check_inputs(recipe, inputs)  # those of a run folder may be edited
    if recipe.net.kind in NETS:
        return NETS[recipe.net.kind](recipe, inputs)
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
