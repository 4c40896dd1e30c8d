"""Tasks of one's own that a function draws: few-shot regression with a fully connected net."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lethax import nets
from lethax.domains.contract import Family, Inputs, Values
from lethax.domains.made import Made
from lethax.objectives import SquaredError
from lethax.recipe import Resolved
from lethax.records import Episode, EpisodeShape

Draw = Callable[[Mapping[str, Array], EpisodeShape, PRNGKeyArray], Episode]


@dataclass(frozen=True)
class DrawnTasks:
    """A family of tasks that a function draws."""

    function: Draw

    def draw(self, options: Mapping[str, Array], shape: EpisodeShape, key: PRNGKeyArray) -> Episode:
        """An episode of one task."""
        return self.function(options, shape, key)


def drawn(name: str, draw: Draw, inputs: int, outputs: int, options: bool, published: Values) -> Made:
    """The domain of such tasks. `options`: whether the section `name` has options."""

    def net(recipe: Resolved, known: Inputs | None) -> nets.MLP:
        hidden = (recipe.net.filters,) * recipe.net.depth
        return nets.MLP(inputs, hidden, outputs, spread=recipe.net.deviation)

    def family(recipe: Resolved, split: str) -> Family:
        values: dict[str, Any] = asdict(recipe.section(name)) if options else {}
        return Family(DrawnTasks(draw), {key: jnp.asarray(value) for key, value in values.items()})

    return Made(
        kind=name, made=(name,), sections=(name,) if options else (), published=lambda recipe, method: published, net=net,
        family=family, objective=SquaredError(),
    )  # fmt: skip
