"""A network of your own in one file: it looks at the tiles of a picture alone and adds up what it sees.

`init` makes the weights, and `apply` computes the outputs. `register_net` makes it known as `tiles`.

    lethax train birds --plugin examples/new_net.py --net tiles --filters 64 --method l2f
    lethax predict runs/birds-l2f-5shot-seed0 --plugin examples/new_net.py --support labelled/ --query new/
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lethax import PlainNet, register_net


@dataclass(frozen=True)
class Tiles(PlainNet):
    """way: outputs. channels: of a picture. units: what is seen in a tile of 4 x 4 pixels."""

    way: int
    channels: int
    units: int

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Random weights for the tiles, and zeros for the last layer."""
        seen = jax.random.normal(key, (16 * self.channels, self.units)) / jnp.sqrt(16 * self.channels)
        head = {"weight": jnp.zeros((self.units, self.way)), "bias": jnp.zeros(self.way)}
        return {"tiles": {"weight": seen}, "head": head}

    def apply(self, weights: Any, x: jax.Array, **_: Any) -> jax.Array:
        """Outputs [n, way] of pictures [n, height, width, channels]."""
        n, height, width, channels = x.shape
        tiles = x[:, : height // 4 * 4, : width // 4 * 4].reshape(n, height // 4, 4, width // 4, 4, channels)
        seen = jax.nn.relu(tiles.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, 16 * channels) @ weights["tiles"]["weight"])
        return seen.mean(1) @ weights["head"]["weight"] + weights["head"]["bias"]


register_net("tiles", lambda recipe, inputs: Tiles(recipe.episode.way, inputs.example[2], recipe.net.filters))
