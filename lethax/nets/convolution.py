"""A convolution of stride 1 whose derivatives, of any order and mode, are fast on a CPU.

XLA's own gradient of a kernel takes three to ten times as long on a CPU as the convolution itself. Here the convolution and its two
derivatives are three bilinear operations, each of which is the transpose of the others:

    y = conv(x, w),        x̄ = back(ȳ, w),        w̄ = correlate(x, ȳ)

The derivatives of a bilinear operation are the operation itself, so each of the three may be computed in the form that is fastest
for its shape, and derivatives of any order stay exact.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_FEW = 32  # channels
_LARGE = 200  # positions of a picture from which the gradient of a kernel is faster picture by picture


@jax.custom_jvp
def conv(x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "n h w o"]:
    """Convolve with zero padding that keeps the size. The sides of the kernel are odd.

    It is XLA's own convolution, which programs that convert compiled functions know; only its derivatives are ours.
    """
    return _conv(x, kernel)


@partial(conv.defjvp, symbolic_zeros=True)
def _(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Any]:
    (x, kernel), (of_x, of_kernel) = primals, tangents
    size = {"height": kernel.shape[0], "width": kernel.shape[1]}
    parts = [
        *([] if isinstance(of_x, SymbolicZero) else [_conv_p.bind(of_x, kernel, **size)]),
        *([] if isinstance(of_kernel, SymbolicZero) else [_conv_p.bind(x, of_kernel, **size)]),
    ]
    out = conv(x, kernel)
    return out, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(out)


def _conv(x: Array, kernel: Array, **_: int) -> Array:
    height, width = kernel.shape[:2]
    around = [(height // 2, height // 2), (width // 2, width // 2)]
    return lax.conv_general_dilated(x, kernel, (1, 1), around, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _back(g: Array, kernel: Array, **_: int) -> Array:
    """The convolution with the kernel turned, and its inputs and outputs exchanged."""
    return _conv(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))


def _correlate(x: Array, g: Array, *, height: int, width: int) -> Array:
    """w̄[i, j, a, b] = Σ_{n, r, s} x[n, r + i − kh/2, s + j − kw/2, a] ȳ[n, r, s, b], as XLA has it."""
    zero = jnp.zeros((height, width, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _conv(x, kernel), zero)(g)[0]


def _correlate_on_cpu(x: Array, g: Array, *, height: int, width: int) -> Array:
    """The same, by the form that is faster on CPUs for these sizes."""
    large = x.shape[1] * x.shape[2] >= _LARGE
    return (_by_picture if large else _correlate)(x, g, height=height, width=width)


def _by_picture(x: Array, g: Array, *, height: int, width: int) -> Array:
    """A sum over pictures of one matrix product for each entry of the kernel.

    A padded picture is a matrix [inputs, positions]. Moved by i rows and j columns it is the same matrix from its column
    i · (w + kw − 1) + j on, so that no patches are built. ȳ has zeros where a row ends, which takes out what runs over it.
    """
    n, _, columns, inputs = x.shape
    around = ((0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0))
    pictures = jnp.pad(x, around).reshape(n, -1, inputs).swapaxes(1, 2)
    line = columns + width - 1
    grads = jnp.pad(g, ((0, 0), (0, 0), (0, width - 1), (0, 0))).reshape(n, -1, g.shape[-1])
    grads = grads[:, : grads.shape[1] - width + 1]  # zeros, which a last row has no picture behind
    moves = [i * line + j for i in range(height) for j in range(width)]

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        picture, grad = pair
        moved = [picture[:, move : move + grad.shape[0]] for move in moves]
        if inputs < _FEW:  # products of so few rows are slow: all entries at once
            return total + (jnp.concatenate(moved) @ grad).reshape(total.shape), None
        return total + jnp.stack([m @ grad for m in moved]), None

    zero = jnp.zeros((height * width, inputs, g.shape[-1]), x.dtype)
    total, _ = lax.scan(add, zero, (pictures, grads))
    return total.reshape(height, width, inputs, g.shape[-1])


def _primitive(name: str, function: Any, on_cpu: Any = None) -> Primitive:
    """An operation of JAX that `function` computes, on a CPU `on_cpu` if there is such."""
    primitive = Primitive(f"lethax_{name}")
    primitive.def_impl(jax.jit(on_cpu or function, static_argnames=("height", "width")))

    def abstract(*arguments: Any, **size: int) -> jax.core.ShapedArray:
        made = jax.eval_shape(partial(function, **size), *arguments)
        return jax.core.ShapedArray(made.shape, made.dtype)

    def batched(arguments: Any, axes: Any, **size: int) -> tuple[Array, int]:
        return jax.vmap(partial(function, **size), in_axes=axes)(*arguments), 0

    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    if on_cpu is not None:
        mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    return primitive


_conv_p = _primitive("conv", _conv)
_back_p = _primitive("back", _back)
_correlate_p = _primitive("correlate", _correlate, _correlate_on_cpu)
# Of each: the cotangent ȳ and the operand that stays give the cotangent of the first operand, then that of the second.
ad.defbilinear(
    _conv_p,
    lambda g, x, kernel, **size: _back_p.bind(g, kernel, **size),
    lambda g, x, kernel, **size: _correlate_p.bind(x, g, **size),
)
ad.defbilinear(
    _back_p,
    lambda x, g, kernel, **size: _conv_p.bind(x, kernel, **size),
    lambda x, g, kernel, **size: _correlate_p.bind(x, g, **size),
)
ad.defbilinear(
    _correlate_p,
    lambda kernel, x, g, **size: _back_p.bind(g, kernel, **size),
    lambda kernel, x, g, **size: _conv_p.bind(x, kernel, **size),
)
