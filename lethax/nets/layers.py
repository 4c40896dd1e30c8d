"""Convolutions, norms and pools that stay fast under weights for each task and second derivatives.

Images are [n, height, width, channels], kernels [height, width, in, out].
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from lethax.errors import DataError
from lethax.nets import convolution
from lethax.precision import wide

ConvForm = Literal["native", "patches"]


def check_entry(x: Array, expected: tuple[int | None, ...], remedy: str) -> None:
    """Raise DataError while a program is traced, unless examples x [n, ...] have the shape that a net reads; None is any size."""
    found = tuple(x.shape[1:])
    if len(found) != len(expected) or any(want not in (None, got) for got, want in zip(found, expected, strict=True)):
        reads = ", ".join("any" if size is None else str(size) for size in expected)
        raise DataError(
            f"examples have the shape [{', '.join(map(str, found))}], but this net reads [{reads}]: {remedy}."
        )


def conv(
    x: Float[Array, "n h w i"], kernel: Float[Array, "kh kw i o"], form: ConvForm = "native", stride: int = 1
) -> Float[Array, "n h2 w2 o"]:
    """Convolution with zero padding that keeps the size at stride 1; no bias.

    "native" is XLA's convolution of stride 1 with derivatives of our own, see `convolution`: the fastest on a CPU. "patches" is one
    matrix product over shifted copies, for any stride: batched over per-task kernels it makes no grouped convolutions.
    """
    height, width = kernel.shape[:2]
    if form == "native":
        assert stride == 1
        return convolution.conv(x, kernel)
    if height == width == stride == 1:
        return x @ kernel[0, 0]
    padded = jnp.pad(x, ((0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0)))
    rows, columns = x.shape[1:3]
    shifted = [padded[:, i : i + rows : stride, j : j + columns : stride] for i in range(height) for j in range(width)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def same(extent: int, kernel: int, stride: int) -> tuple[int, int]:
    """The zeros before and after `extent` entries of TensorFlow's "same": ⌈extent/stride⌉ entries come out; an odd one is after."""
    total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
    return total // 2, total - total // 2


def depthwise(x: Float[Array, "n h w c"], kernel: Float[Array, "k k c"], stride: int = 1) -> Float[Array, "n h2 w2 c"]:
    """Convolution of each channel by itself, padded by `same`; no bias.

    It is a sum over shifted copies: on a CPU it takes from a sixth to a hundredth of the time of XLA's own grouped convolution.
    """
    size, (rows, columns) = kernel.shape[0], (-(-extent // stride) for extent in x.shape[1:3])
    above, left = (same(extent, size, stride) for extent in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), above, left, (0, 0)))
    down, across = stride * (rows - 1) + 1, stride * (columns - 1) + 1
    total = jnp.zeros((x.shape[0], rows, columns, x.shape[-1]), x.dtype)
    for i in range(size):
        for j in range(size):
            total += padded[:, i : i + down : stride, j : j + across : stride] * kernel[i, j]
    return total


def batch_norm(
    x: Float[Array, "n *space c"],
    scale: Float[Array, "*J c"],
    shift: Float[Array, "*J c"],
    *,
    step: int | Array = 0,
    reference: int = 0,
    mask: Float[Array, " r"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "n *space c"]:
    """scale (x − m) / √(v + eps) + shift, with the biased moments m, v of the batch itself; there is no running state.

    The moments are those of the first `reference` examples, of all where that is 0, and of these r only those whose `mask` is 1.
    Per-step norms have scale and shift [J, c]; row `step` is used, the last row beyond J. All is computed in float32 at least, and
    the result has the type of x.
    """
    if scale.ndim == 2:
        row = jnp.minimum(step, scale.shape[0] - 1)
        scale, shift = scale[row], shift[row]
    dtype, x = x.dtype, wide(x)
    seen = x[:reference] if reference else x
    axes = tuple(range(x.ndim - 1))
    weight = None if mask is None else wide(mask[: seen.shape[0]]).reshape(-1, *[1] * (x.ndim - 1))
    mean = _moment(seen, axes, weight)
    variance = _moment(jnp.square(seen - mean), axes, weight)
    factor = scale * lax.rsqrt(variance + eps)
    return (x * factor + (shift - mean * factor)).astype(dtype)


def _moment(x: Array, axes: tuple[int, ...], weight: Array | None) -> Array:
    """The mean over the axes, where `weight` is that of each example."""
    if weight is None:
        return jnp.mean(x, axis=axes)
    return jnp.mean(jnp.sum(x * weight, axis=0), axis=tuple(range(x.ndim - 2))) / jnp.sum(weight)


def max_pool(x: Float[Array, "n h w c"], padding: int = 0) -> Float[Array, "n h2 w2 c"]:
    """Take the largest of each 2 × 2 window, with stride 2. An odd row or column at the end is dropped.

    The place of the maximum, the first one on ties, is held constant, so derivatives of any order are selections and cheap;
    the derivative of XLA's own window reduction is several times slower.
    """
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-jnp.inf)
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    corners = [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
    top = lax.stop_gradient(jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3])))
    chosen = corners[3]
    for corner in (corners[2], corners[1], corners[0]):
        chosen = jnp.where(lax.stop_gradient(corner) >= top, corner, chosen)
    return chosen


def leaky_relu(x: Float[Array, "*shape"], slope: float) -> Float[Array, "*shape"]:
    """x where x > 0, else slope · x; the slope is held constant, exact almost everywhere."""
    return x * lax.stop_gradient(jnp.where(x > 0, 1.0, slope).astype(x.dtype))


def modulate(x: Float[Array, "n *space c"], modulation: dict[str, Array] | None) -> Float[Array, "n *space c"]:
    """x · factor + shift per channel, as a task encoder says; None changes nothing."""
    return x if modulation is None else x * modulation["factor"] + modulation["shift"]


def linear(x: Float[Array, "n i"], weight: Float[Array, "i o"], bias: Float[Array, " o"]) -> Float[Array, "n o"]:
    """x W + b."""
    return x @ weight + bias


def xavier_uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """Uniform in ±√(6 / (fan_in + fan_out)); the fans of a kernel count its receptive field."""
    field = 1
    for extent in shape[:-2]:
        field *= extent
    bound = (6.0 / ((shape[-2] + shape[-1]) * field)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def uniform_linear(key: PRNGKeyArray, inputs: int, outputs: int) -> dict[str, Array]:
    """`weight` [out, in] and `bias` [out], uniform in ±1/√in: what PyTorch's linear layers start from."""
    of_weight, of_bias = jax.random.split(key)
    bound = inputs**-0.5
    return {
        "weight": jax.random.uniform(of_weight, (outputs, inputs), minval=-bound, maxval=bound),
        "bias": jax.random.uniform(of_bias, (outputs,), minval=-bound, maxval=bound),
    }


def norm_weights(channels: int, steps: int = 0) -> dict[str, Array]:
    """Make scales of 1 and shifts of 0, with a row for each inner step if `steps` is not 0."""
    shape = (steps, channels) if steps else (channels,)
    return {"scale": jnp.ones(shape), "shift": jnp.zeros(shape)}
