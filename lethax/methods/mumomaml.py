"""MuMoMAML: a task encoder reads the support set and modulates the network's activations before adaptation.

    v = encoder(D),   (s_i, t_i) = W_i v + b_i,   z_i ← factor(s_i) ⊙ z_i + t_i  in every modulated layer i

Gradient steps then move the network; the modulation stands still, and the outer loop trains both. Vuorio et al. 2018, 2019. "film":
factor 1 + s; "sigmoid": σ(s); "softmax": softmax(s), the last two without t. A modulation of zeros under "film" is MAML.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lethax.nets import layers
from lethax.objectives import mean_of
from lethax.records import Split

Modulation = Literal["film", "sigmoid", "softmax"]
Order = Literal["sorted", "drawn"]


def modulation(raw: Float[Array, " values"], kind: Modulation) -> dict[str, Array]:
    """`factor` and `shift` [c] of a layer from a head's output: [2c] for "film", [c] otherwise."""
    if kind == "film":
        scale, shift = jnp.split(raw, 2)
        return {"factor": 1.0 + scale, "shift": shift}
    gate = jax.nn.sigmoid(raw) if kind == "sigmoid" else jax.nn.softmax(raw)
    return {"factor": gate, "shift": jnp.zeros_like(gate)}


def _heads(key: PRNGKeyArray, width: int, modulated: dict[str, int], kind: Modulation) -> dict[str, Any]:
    parts = 2 if kind == "film" else 1
    keys = jax.random.split(key, len(modulated))
    return {
        name: layers.uniform_linear(k, width, parts * size)
        for k, (name, size) in zip(keys, modulated.items(), strict=True)
    }


def _modulate_all(heads: dict[str, Any], vector: Array, kind: Modulation) -> dict[str, Any]:
    return {name: modulation(head["weight"] @ vector + head["bias"], kind) for name, head in heads.items()}


@dataclass(frozen=True)
class CurveEncoder:
    """A task encoder of vectors: a bidirectional LSTM over the support points. v [2 · hidden] joins its last two states.

    A point is (x, y), or x alone if y are class numbers, with `inputs` entries. order: "sorted" reads the points in the order of
    their first coordinate, so that the order of the support set changes nothing; "drawn" reads them as they come, as the released
    code does. Differs: "sorted" is the default.
    """

    inputs: int
    modulated: tuple[tuple[str, int], ...]
    hidden: int = 40
    kind: Modulation = "film"
    order: Order = "sorted"

    def init(self, key: PRNGKeyArray) -> dict[str, Any]:
        """`forward`, `backward`: input, forget, cell and output gates, [4 hidden, inputs + hidden]; `heads` by layer."""
        ahead, back, heads = jax.random.split(key, 3)
        bound = self.hidden**-0.5

        def cell(key: PRNGKeyArray) -> dict[str, Array]:
            of_weight, of_bias = jax.random.split(key)
            shape = (4 * self.hidden, self.inputs + self.hidden)
            return {
                "weight": jax.random.uniform(of_weight, shape, minval=-bound, maxval=bound),
                "bias": jax.random.uniform(of_bias, (4 * self.hidden,), minval=-bound, maxval=bound),
            }

        return {
            "forward": cell(ahead),
            "backward": cell(back),
            "heads": _heads(heads, 2 * self.hidden, dict(self.modulated), self.kind),
        }

    def apply(self, params: Any, support: Split) -> dict[str, Any]:
        """The modulation of every layer."""
        labelled = jnp.issubdtype(support.y.dtype, jnp.integer)
        points = support.x if labelled else jnp.concatenate([support.x, support.y], axis=-1)
        mask = None if support.mask is None else support.mask > 0
        if self.order == "sorted":
            order = jnp.argsort(support.x[:, 0])
            points, mask = points[order], None if mask is None else mask[order]
        ahead = self._last(params["forward"], points, mask)
        back = self._last(params["backward"], points[::-1], None if mask is None else mask[::-1])
        return _modulate_all(params["heads"], jnp.concatenate([ahead, back]), self.kind)

    def _last(self, cell: Any, points: Array, mask: Array | None) -> Array:
        """The hidden state after the last point. Points that do not count leave it as it is."""
        from_input, from_state = cell["weight"][:, : self.inputs], cell["weight"][:, self.inputs :]
        read = points @ from_input.T + cell["bias"]
        state = memory = jnp.zeros(self.hidden, points.dtype)
        for i, row in enumerate(read):  # a loop in the program would cost more than these few products
            before = state, memory
            enter, forget, new, out = jnp.split(row + from_state @ state, 4)
            memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
            state = jax.nn.sigmoid(out) * jnp.tanh(memory)
            if mask is not None:
                state, memory = (jnp.where(mask[i], a, b) for a, b in zip((state, memory), before, strict=True))
        return state


@dataclass(frozen=True)
class ImageEncoder:
    """Four 3×3 convolutions of stride 2 with batch norm and ReLU, mean over space, 128 units, mean over the support images.

    It sees no labels. Source: the released classification code of Vuorio et al. 2019.
    """

    channels: int
    modulated: tuple[tuple[str, int], ...]
    widths: tuple[int, ...] = (32, 64, 128, 256)
    kind: Modulation = "film"

    def init(self, key: PRNGKeyArray) -> dict[str, Any]:
        """`conv0..`, `norm0..`, `linear`, and `heads` by layer."""
        keys = jax.random.split(key, len(self.widths) + 2)
        params: dict[str, Any] = {}
        before = self.channels
        for i, width in enumerate(self.widths):
            params[f"conv{i}"] = {"weight": layers.xavier_uniform(keys[i], (3, 3, before, width))}
            params[f"norm{i}"] = layers.norm_weights(width)
            before = width
        params["linear"] = layers.uniform_linear(keys[-2], before, 128)
        params["heads"] = _heads(keys[-1], 128, dict(self.modulated), self.kind)
        return params

    def apply(self, params: Any, support: Split) -> dict[str, Any]:
        """The modulation of every layer."""
        x = support.x
        for i in range(len(self.widths)):
            norm = params[f"norm{i}"]
            x = layers.conv(x, params[f"conv{i}"]["weight"], "patches", stride=2)
            x = jax.nn.relu(layers.batch_norm(x, norm["scale"], norm["shift"], mask=support.mask))
        x = jnp.mean(x, axis=(1, 2)) @ params["linear"]["weight"].T + params["linear"]["bias"]
        return _modulate_all(params["heads"], mean_of(jax.nn.relu(x), support.mask), self.kind)
