"""Networks from outside the package, for prepared images and features."""

import re
from collections.abc import Callable

from lethax.domains.contract import Inputs
from lethax.errors import RecipeError
from lethax.learner import Net
from lethax.recipe import Resolved
from lethax.recipe.sections import add_choice
from lethax.text import shown

Maker = Callable[[Resolved, Inputs], Net]

NETS: dict[str, Maker] = {}


def register_net(name: str, make: Maker) -> None:
    """Make a network of your own known, as `--net NAME`, for prepared images and features.

    Arguments:
        name: the name on the command line.
        make: (recipe, inputs) -> a network, such as a frozen dataclass that derives from `PlainNet`. `recipe.episode.way` is its
            number of outputs, `inputs.example` the shape of an example: (height, width, channels) or (entries,).

    Raises:
        RecipeError: if the name is taken or cannot be one.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise RecipeError(f"a net is called '{shown(name, 60)}': its name has only lower-case letters, digits and _.")
    if NETS.get(name) is not make:
        add_choice("net.kind", name)
        NETS[name] = make
