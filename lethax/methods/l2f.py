"""L2F, learning to forget: attenuate the shared initialisation, per task and per layer, before adaptation.

    e = mean per tensor of ∇_θ L_D(θ),   γ = σ(W₂ relu(W₁ e + b₁) + b₂),   w_0 = γ ⊙ θ

One extra support pass; the gates γ are read from the gradient at θ. γ ≡ 1 is the method without L2F, bit for bit.
Baik, Hong, Lee, CVPR 2020, sections 3.2 and E.1.3. Differs: where paper and released code disagree, the defaults are the code's:
two linear layers, a gate for each tensor, a detached gradient.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lethax import trees
from lethax.errors import RecipeError
from lethax.nets import layers
from lethax.records import Info, Weights

Scope = Literal["network", "layer", "tensor", "filter", "parameter"]
Acts = Literal["weights", "rate", "size"]


@dataclass(frozen=True)
class Attenuator:
    """The attenuator of L2F: a small network that makes the gates of the initial weights from a gradient.

        γ = σ(W₂ relu(W₁ e + b₁) + b₂),   w_0 = γ ⊙ θ

    e has an entry for each of the L gates γ, read from the support gradient at θ. The layers have L → L → L units and PyTorch's
    uniform ±1/√L initialisation.

    Arguments:
        scope: what shares one gate. "tensor" is the released code's choice. "layer" (weight and bias together) is the paper's
            wording. "network" has one gate in all. "filter" has a gate for every output channel, and "parameter" maps each entry
            of the gradient by one small shared network; the last two are our reading of the paper's ablation.
        activation: the function that makes a gate of the network's output: "sigmoid", "identity" or "twice_sigmoid".
        fixed: L gates given by hand; then nothing is learned.
        task_dependent: False takes one learned vector of gates for all tasks.
        embedding: what is read of each gradient: its "mean", the mean of its absolute values ("mean_abs"), or its L2 "norm". Scope
            "parameter" reads each entry itself.
        embedding_scale: the factor that e is multiplied by.
        detached: False differentiates through the gradient that is read, which costs a Hessian-vector product.
        layers: the number of linear layers, 2 or 3.
        ungated: names of layers whose gates are 1; their gradients are read all the same.
        every_step: True attenuates the weights again before every inner step.
        bias_init: a number added to the last bias. With 4 the gates begin near 0.98, with 0 near a half.
        acts: what a gate acts on in the layers `normed`: "weights", w_0 = γθ with the rate α; "rate", w_0 = θ with α/γ²; or "size",
            w_0 = γθ with αγ². See `pace`.
        normed: names of layers that a batch norm follows; only read if `acts` is not "weights".
        kept: names of layers that have no gate and are not read.

    Returns:
        A start for `MAML` and `L2F`. `groups(weights)` names the gates, and `apply(params, gradient, weights)` gives (γ ⊙ weights,
        {"gates": γ [L], "embedding": e [L], "live": the share of hidden units that are not 0, the smallest of the hidden layers}).

    Raises:
        RecipeError: from `apply`, if `fixed` has another number of gates.

    Source: Baik, Hong, Lee, CVPR 2020, sections 3.2 and E.1.3. Differs: where paper and released code disagree, the defaults are
    the code's: two linear layers (paper: three), a gate for each tensor (paper: for each layer), a detached gradient.

    Example:
        >>> import jax, lethax
        >>> attenuator = lethax.Attenuator(scope="layer", bias_init=4.0)
        >>> weights = lethax.MLP(hidden=(8,)).init(jax.random.key(0))
        >>> attenuator.groups(weights)
        ['layer0', 'layer1']
        >>> params = attenuator.init(jax.random.key(1), weights)
        >>> gated, info = jax.jit(attenuator.apply)(params, weights, weights)  # weights stand in for a gradient
        >>> info["gates"].shape
        (2,)
    """

    scope: Scope = "tensor"
    activation: Literal["sigmoid", "identity", "twice_sigmoid"] = "sigmoid"
    fixed: tuple[float, ...] = ()
    task_dependent: bool = True
    embedding: Literal["mean", "mean_abs", "norm"] = "mean"
    embedding_scale: float = 1.0
    detached: bool = True
    layers: int = 2
    ungated: tuple[str, ...] = ()
    every_step: bool = False
    bias_init: float = 0.0
    acts: Acts = "weights"
    normed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def groups(self, like: Weights) -> list[str]:
        """The names of the gates that `apply` reports, in order: the network, or its layers, tensors or filters."""
        if self._shared():
            return [self.scope]
        like = self._gated(like)
        names = trees.names(like)
        if self.scope in ("tensor", "parameter"):
            return names
        if self.scope == "layer":
            return list(dict.fromkeys(trees.layer_of(name) for name in names))
        leaves = jax.tree.leaves(like)
        return [f"{name}:{i}" for name, leaf in zip(names, leaves, strict=True) for i in range(leaf.shape[-1])]

    def init(self, key: PRNGKeyArray, like: Weights) -> dict[str, Any]:
        """Make weights: `layer0..` with `weight` [out, in] and `bias` [out]; only a `bias` if gates do not depend on the task."""
        if self.fixed:
            return {}
        like = self._gated(like)
        outputs = 1 if self.scope == "parameter" else len(self.groups(like))
        inputs = len(trees.names(like)) if self.scope == "network" else outputs
        if not self.task_dependent:
            return {"bias": jnp.full(outputs, self.bias_init, float)}
        hidden = max(inputs, 8) if self.scope == "parameter" else inputs
        widths = [inputs, *[hidden] * (self.layers - 1), outputs]
        params = {}
        for i, of_layer in enumerate(jax.random.split(key, self.layers)):
            params[f"layer{i}"] = layers.uniform_linear(of_layer, widths[i], widths[i + 1])
        last = params[f"layer{self.layers - 1}"]
        last["bias"] = last["bias"] + self.bias_init
        return params

    def apply(self, params: Any, gradient: Weights, weights: Weights) -> tuple[Weights, Info]:
        """Compute γ ⊙ w. Info has e and the gates of `groups`: 1 for ungated layers, means over tensors for "parameter"."""
        others = {name: layer for name, layer in weights.items() if name in self.kept}
        gates, info = self._read(params, gradient, weights)
        if self.acts == "rate":
            gates = trees.map_named(
                lambda name, g: jnp.ones_like(g) if trees.layer_of(name) in self.normed else g, gates
            )
        gated = jax.tree.map(lambda gate, w: gate * w, gates, self._gated(weights))
        return {**gated, **others} if others else gated, info

    def pace(self, params: Any, gradient: Weights, weights: Weights) -> Weights | None:
        """Compute the factor of every inner step: γ⁻² or γ² in the layers `normed` if `acts` is "rate" or "size". None: all are 1.

        A batch norm that follows weights w makes f(γw) = f(w), so that ∇f(γw) = ∇f(w)/γ: a step α from γθ goes as far, relative to
        the weights, as a step α/γ² from θ. Under "rate" the net therefore computes what it does under "weights", and under "size"
        what it does without gates, but for the ε of the norm. This holds for gates that the weights of an output channel share, and
        for inner steps that are linear in the gradient.
        """
        if self.acts == "weights":
            return None
        power = -2 if self.acts == "rate" else 2
        gates, _ = self._read(params, gradient, weights)
        paces = trees.map_named(
            lambda name, g: g**power if trees.layer_of(name) in self.normed else jnp.ones_like(g), gates
        )
        return {**jax.tree.map(lambda _: jnp.ones(()), weights), **paces}

    def _read(self, params: Any, gradient: Weights, weights: Weights) -> tuple[Weights, Info]:
        """The gate of every tensor that has one, of a shape that broadcasts to it, and what `apply` tells of them."""
        gradient, weights = self._gated(gradient), self._gated(weights)
        embedding = self.embed(gradient)
        if self.scope == "parameter" and not self._shared():
            scaled = jax.tree.map(lambda g: self.embedding_scale * g.reshape(-1, 1), gradient)
            gates = jax.tree.map(lambda e, g: self._network(params, e).reshape(g.shape), scaled, gradient)
            flat = jnp.stack([jnp.mean(gate) for gate in jax.tree.leaves(gates)])
        else:
            flat, count = self._gates(params, embedding), len(self.groups(weights))
            if flat.shape != (count,):
                raise RecipeError(f"there are {flat.size} gates, but the weights need {count}: see `groups`.")
            gates = self._spread(flat, weights)
        if self.ungated:
            gates = trees.map_named(
                lambda name, g: jnp.ones_like(g) if trees.layer_of(name) in self.ungated else g, gates
            )
            layers_of = [name if self.scope == "layer" else trees.layer_of(name) for name in self.groups(weights)]
            flat = jnp.where(np.array([layer in self.ungated for layer in layers_of]), 1.0, flat)
        return gates, {"gates": flat, "embedding": embedding, **self._live(params, embedding)}

    def _live(self, params: Any, embedding: Array) -> Info:
        """The share of the hidden units that are not 0, in the layer where it is smallest. If none is left in a layer, the gates
        depend on no task and never will again."""
        if self.fixed or not self.task_dependent or self.scope == "parameter":
            return {}
        shares, hidden = [], embedding
        for i in range(self.layers - 1):
            hidden = jax.nn.relu(hidden @ params[f"layer{i}"]["weight"].T + params[f"layer{i}"]["bias"])
            shares.append(jnp.mean(hidden > 0))
        return {"live": jnp.min(jnp.stack(shares))}

    def _shared(self) -> bool:
        """Whether all weights have one gate: that of the network, or one that is no function of each parameter's gradient."""
        of_task = not self.fixed and self.task_dependent
        return self.scope == "network" or (self.scope == "parameter" and not of_task)

    def _gated(self, tree: Any) -> Any:
        return {name: layer for name, layer in tree.items() if name not in self.kept} if self.kept else tree

    def embed(self, gradient: Weights) -> Float[Array, " inputs"]:
        """Compute e, with one number for each tensor, layer or filter."""
        leaves = jax.tree.leaves(gradient)
        if self.scope == "filter":
            pieces = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves]
        elif self.scope == "layer":
            by_layer: dict[str, list[Array]] = {}
            for name, leaf in zip(trees.names(gradient), leaves, strict=True):
                by_layer.setdefault(trees.layer_of(name), []).append(leaf.ravel())
            pieces = [jnp.concatenate(parts)[:, None] for parts in by_layer.values()]
        else:
            pieces = [leaf.reshape(-1, 1) for leaf in leaves]
        if self.embedding == "mean":
            read = [jnp.mean(piece, axis=0) for piece in pieces]
        elif self.embedding == "mean_abs":
            read = [jnp.mean(jnp.abs(piece), axis=0) for piece in pieces]
        else:
            read = [_norm(piece) for piece in pieces]
        return self.embedding_scale * jnp.concatenate(read)

    def _gates(self, params: Any, embedding: Array) -> Array:
        if self.fixed:
            return jnp.asarray(self.fixed, embedding.dtype)
        if not self.task_dependent:
            return self._activate(params["bias"])
        return self._network(params, embedding)

    def _network(self, params: Any, x: Array) -> Array:
        for i in range(self.layers):
            x = x @ params[f"layer{i}"]["weight"].T + params[f"layer{i}"]["bias"]
            x = jax.nn.relu(x) if i < self.layers - 1 else self._activate(x)
        return x

    def _activate(self, x: Array) -> Array:
        if self.activation == "identity":
            return x
        return jax.nn.sigmoid(x) * (2.0 if self.activation == "twice_sigmoid" else 1.0)

    def _spread(self, flat: Array, weights: Weights) -> Any:
        """The gate of every tensor, of a shape that broadcasts to it."""
        leaves, structure = jax.tree.flatten(weights)
        if self.scope in ("network", "parameter"):
            return jax.tree.unflatten(structure, [flat[0]] * len(leaves))
        if self.scope == "filter":
            ends = [sum(leaf.shape[-1] for leaf in leaves[: i + 1]) for i in range(len(leaves))]
            return jax.tree.unflatten(
                structure, [flat[e - leaf.shape[-1] : e] for e, leaf in zip(ends, leaves, strict=True)]
            )
        groups = self.groups(weights)
        named = [name if self.scope == "tensor" else trees.layer_of(name) for name in trees.names(weights)]
        return jax.tree.unflatten(structure, [flat[groups.index(name)] for name in named])


def _norm(piece: Float[Array, "n k"]) -> Float[Array, " k"]:
    """The L2 norm of every column; at a column of zeros, which a dead filter has, its derivative counts as 0 and is not NaN."""
    squares = jnp.sum(jnp.square(piece), axis=0)
    lives = squares > 0
    return jnp.where(lives, jnp.sqrt(jnp.where(lives, squares, 1.0)), 0.0)
