"""Images: few-shot classification by convolutional networks. Baik et al. 2020, sections 4.1 and 4.2 and supplement E."""

from dataclasses import replace

from lethax import nets
from lethax.data.decode import resize_array
from lethax.data.host import images_of
from lethax.domains import prepared, supervised
from lethax.domains.contract import Family, Inputs, Values
from lethax.domains.own_nets import NETS
from lethax.domains.prepared import Prepared
from lethax.errors import DataError, RecipeError
from lethax.learner import Net
from lethax.methods.registry import Method
from lethax.nets.layers import ConvForm
from lethax.objectives import CrossEntropy
from lethax.recipe import Recipe, Resolved

_SMALLEST = 16  # pixels that conv4 can halve four times


def _published(recipe: Recipe, method: Method) -> Values:
    """The settings of the paper and of the released code for each data set; those of mini-ImageNet for any other."""
    net, shot = recipe.get("net.kind", "conv4"), recipe.get("episode.shot", 5)
    omniglot, imagenet = recipe.data.startswith("omniglot"), "imagenet" in recipe.data
    paper = recipe.preset == "paper"
    budget = 30_000 if not paper and method.name in ("l2f", "maml+l2f") and imagenet else 50_000
    small = 1 if net == "resnet12" else (4 if shot == 1 else 2)
    query = recipe.get("episode.query", 1 if omniglot else 15)
    return {
        "episode.query": query, "episode.eval_query": query, "episode.rotate": omniglot, "net.kind": net,
        "net.filters": 64 if paper or omniglot else 48,
        "outer.full_steps": 125_000 if recipe.data.startswith("tiered") else budget,
        "outer.batch": 8 if omniglot else small, "outer.clamp": 10.0 if imagenet else 0.0,
        **({"outer.min_rate": 1e-5} if omniglot else {}),
        "inner.rate": 0.1 if omniglot else 0.01, "inner.first_order_steps": 0 if omniglot or paper else 5_500,
        "inner.multi_step_epochs": 10 if omniglot else 15,  # of a hundred
    }  # fmt: skip


def _check_inputs(recipe: Resolved, inputs: Inputs) -> None:
    """Raise RecipeError if the data are features."""
    if len(inputs.example) == 1:
        raise RecipeError(
            f"net '{recipe.net.kind}' does not fit data '{recipe.data}': it holds features, which take --net mlp or "
            "--method leo."
        )


def net_of(recipe: Resolved, inputs: Inputs | None) -> Net:
    """Make the network. DataError if the pictures are too small for it."""
    assert inputs is not None
    _check_inputs(recipe, inputs)  # those of a run folder may be edited
    form: ConvForm = "native" if supervised.on_cpu() else "patches"
    norm_steps = recipe.inner.steps if recipe.net.per_step_norm else 0
    height, _, channels = inputs.example
    if recipe.net.kind in NETS:
        return NETS[recipe.net.kind](recipe, inputs)
    if recipe.net.kind == "resnet12":
        deep = nets.ResNet12(recipe.episode.way, channels, variant=recipe.preset, norm_steps=norm_steps, conv_form=form)
        if height < deep.smallest:
            raise DataError(f"images of {inputs.data} are {height} px; resnet12 needs {deep.smallest}.")
        return deep
    if height < _SMALLEST:
        raise DataError(f"images of {inputs.data} are {height} px; conv4 halves them four times and needs {_SMALLEST}.")
    return nets.Conv4(recipe.episode.way, height, channels, recipe.net.filters, norm_steps=norm_steps, conv_form=form)


def _family(recipe: Resolved, split: str) -> Family:
    """The pictures of a split, on the device. Classes are turned only in training."""
    store = prepared.store_of(recipe, split)
    rotate = recipe.episode.rotate and split == "train"
    return Family(*images_of(store.splits[split], store.mean, store.std, rotate))


def _as_seen(recipe: Resolved, split: str, trained: Inputs) -> Family:
    """The pictures of a split of any data set, in the shape and with the normalisation of those that a run was trained on."""
    part = prepared.store_of(recipe, split).splits[split]
    part = replace(part, images=resize_array(part.images, trained.example))
    return Family(*images_of(part, trained.mean, trained.std, rotate=False))


DOMAIN = Prepared(
    kind="images",
    claims=lambda recipe: True,  # all that nothing else claims
    check_inputs=_check_inputs,
    published=_published,
    unread=frozenset({"net.depth", "net.deviation"}),
    net=net_of,
    objective=CrossEntropy(),
    family=_family,
    as_seen=_as_seen,
    protocol=prepared.protocol,
    convolutional=True,
)
