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
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from lethax import native
from lethax.errors import RecipeError
from lethax.precision import wide

_FEW = 32  # channels
_LARGE = 100  # positions of a picture from which the gradient of a kernel is faster picture by picture


def conv(x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "n h w o"]:
    """Convolve with zero padding that keeps the size. The sides of the kernel are odd: RecipeError otherwise.

    On CPUs it and its derivatives are native kernels, where there are such; within `native.off` it is XLA's own convolution, which
    programs that convert compiled functions know. Derivatives have the precision of products that JAX is set to here, wherever
    they are computed.
    """
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise RecipeError(
            f"a kernel has sides of {kernel.shape[0]} and {kernel.shape[1]}; both have to be odd, such as 3."
        )
    precision: str | None = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # made when JAX starts
    return _differentiable(x, kernel, precision, native.allowed())


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _differentiable(x: Array, kernel: Array, precision: str | None, natively: bool) -> Array:
    if natively:
        return _conv_p.bind(
            x, kernel, height=kernel.shape[0], width=kernel.shape[1], precision=precision, natively=True
        )
    return _conv(x, kernel, precision=precision)


@partial(_differentiable.defjvp, symbolic_zeros=True)
def _(
    precision: str | None, natively: bool, primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Array, Any]:
    (x, kernel), (of_x, of_kernel) = primals, tangents
    how = {"height": kernel.shape[0], "width": kernel.shape[1], "precision": precision, "natively": natively}
    parts = [
        *([] if isinstance(of_x, SymbolicZero) else [_conv_p.bind(of_x, kernel, **how)]),
        *([] if isinstance(of_kernel, SymbolicZero) else [_conv_p.bind(x, of_kernel, **how)]),
    ]
    out = _differentiable(x, kernel, precision, natively)
    return out, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(out)


def _conv(x: Array, kernel: Array, *, precision: str | None = None, **_: Any) -> Array:
    height, width = kernel.shape[:2]
    around, axes = [(height // 2, height // 2), (width // 2, width // 2)], ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), around, dimension_numbers=axes, precision=precision)


def _back(g: Array, kernel: Array, *, precision: str | None, **_: Any) -> Array:
    """The convolution with the kernel turned, and its inputs and outputs exchanged."""
    return _conv(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), precision=precision)


def _correlate(x: Array, g: Array, *, height: int, width: int, precision: str | None, **_: Any) -> Array:
    """w̄[i, j, a, b] = Σ_{n, r, s} x[n, r + i − kh/2, s + j − kw/2, a] ȳ[n, r, s, b], as XLA has it."""
    zero = jnp.zeros((height, width, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _conv(x, kernel, precision=precision), zero)(g)[0]


def _correlate_on_cpu(x: Array, g: Array, *, height: int, width: int, precision: str | None, **_: Any) -> Array:
    """The same, by the form that is faster on CPUs for these sizes. Both are as fast in a loop, where XLA's own takes for ever."""
    if x.shape[1] * x.shape[2] < _LARGE:
        return _exchanged(x, g, height=height, width=width, precision=precision)
    return _by_picture(wide(x), wide(g), height=height, width=width).astype(x.dtype)


def _exchanged(x: Array, g: Array, *, height: int, width: int, precision: str | None) -> Array:
    """A convolution of the pictures by ȳ, with channels and pictures exchanged: x [i, h, w, n] by ȳ [h, w, n, o].

    It is what XLA makes of its own form, but outside loops alone: within one it keeps the form that it has no fast program for.
    """
    around, axes = [(height // 2, height // 2), (width // 2, width // 2)], ("NHWC", "HWIO", "NHWC")
    pictures, grads = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    y = lax.conv_general_dilated(pictures, grads, (1, 1), around, dimension_numbers=axes, precision=precision)
    return y.transpose(1, 2, 0, 3)


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


def _devices_of(context: Any) -> int:
    """The devices of this process that the program which is lowered runs on; they share the cores."""
    axes = context.module_context.axis_context
    count = axes.mesh.size if hasattr(axes, "mesh") else axes.num_devices
    return max(int(count) // jax.process_count(), 1)


def _primitive(name: str, function: Any, handler: str, on_cpu: Any = None, **attributes: Any) -> Primitive:
    """An operation of JAX that `function` computes, on a CPU the native kernel `handler`, or where there is none `on_cpu`."""
    primitive = Primitive(f"lethax_{name}")
    compiled = jax.jit(primitive.bind, static_argnames=("height", "width", "precision", "natively"))

    def computed(*arguments: Any, **how: Any) -> Any:
        with jax.disable_jit(False):  # where jit is off, the call would come back to here without end
            return compiled(*arguments, **how)

    primitive.def_impl(computed)

    def abstract(*arguments: Any, **how: Any) -> jax.core.ShapedArray:
        made = jax.eval_shape(partial(function, **how), *arguments)
        return jax.core.ShapedArray(made.shape, made.dtype)

    def batched(arguments: Any, axes: Any, **how: Any) -> tuple[Array, int]:
        return jax.vmap(partial(function, **how), in_axes=axes)(*arguments), 0

    by_xla = mlir.lower_fun(on_cpu or function, multiple_results=False)

    def lowered(context: Any, *arguments: Any, natively: bool, **how: Any) -> Any:
        if (
            not natively
            or not native.fits(context.avals_in, context.avals_out)
            or (target := native.target(handler)) is None
        ):
            return by_xla(context, *arguments, natively=natively, **how)
        devices = np.int64(_devices_of(context))
        return jax.ffi.ffi_lowering(target)(context, *arguments, devices=devices, **attributes)

    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    mlir.register_lowering(primitive, lowered, platform="cpu")
    return primitive


_conv_p = _primitive("conv", _conv, "conv", turned=np.bool_(False))
_back_p = _primitive("back", _back, "conv", turned=np.bool_(True))
_correlate_p = _primitive("correlate", _correlate, "correlation", _correlate_on_cpu)
# Of each: the cotangent ȳ and the operand that stays give the cotangent of the first operand, then that of the second.
ad.defbilinear(
    _conv_p,
    lambda g, x, kernel, **how: _back_p.bind(g, kernel, **how),
    lambda g, x, kernel, **how: _correlate_p.bind(x, g, **how),
)
ad.defbilinear(
    _back_p,
    lambda x, g, kernel, **how: _conv_p.bind(x, kernel, **how),
    lambda x, g, kernel, **how: _correlate_p.bind(x, g, **how),
)
ad.defbilinear(
    _correlate_p,
    lambda kernel, x, g, **how: _back_p.bind(g, kernel, **how),
    lambda kernel, x, g, **how: _conv_p.bind(x, kernel, **how),
)
