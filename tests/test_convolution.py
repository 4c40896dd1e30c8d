"""Our derivatives of a convolution are those of XLA's, in every mode and order, whatever form computes them."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from lethax.errors import RecipeError
from lethax.nets import convolution

pytestmark = pytest.mark.usefixtures("x64")

# Pictures of 15 rows and 14 columns are large, those of 4 small; 2 channels are few, 32 many.
SHAPES = [((15, 14), 2, (3, 3)), ((15, 14), 32, (3, 3)), ((4, 4), 32, (3, 3)),
          ((15, 14), 32, (3, 5)), ((15, 14), 2, (1, 1))]  # fmt: skip


def loss(conv, target, between):
    """Two convolutions by one kernel, so that second derivatives of every pair of operands are met."""
    return lambda x, w: jnp.sum(jnp.tanh(conv(jnp.tanh(conv(x, w)) @ between, w)) * target)


def gradients(f):
    return jax.grad(f, (0, 1))


def curvature(f, along):
    """Reverse over reverse mode."""
    return jax.grad(lambda x, w: sum(map(jnp.vdot, gradients(f)(x, w), along)), (0, 1))


def mixed(f, along):
    """Forward over reverse mode, which the inner loops use, and reverse mode over that: third derivatives."""
    return jax.grad(
        lambda x, w: sum(map(jnp.vdot, jax.jvp(gradients(f), (x, w), along)[1], along)),
        (0, 1),
    )


MODES = {
    "value": lambda f, along: f,
    "reverse": lambda f, along: gradients(f),
    "forward": lambda f, along: lambda x, w: jax.jvp(f, (x, w), along),
    "forward of one": lambda f, along: lambda x, w: jax.jvp(lambda w: f(x, w), (w,), along[1:]),
    "forward over reverse": lambda f, along: lambda x, w: jax.jvp(gradients(f), (x, w), along),
    "reverse over reverse": curvature,
    "third order": mixed,
    "of many kernels": lambda f, along: lambda x, w: jax.vmap(gradients(f), (None, 0))(x, jnp.stack([w, 2 * w])),
    "compiled": lambda f, along: jax.jit(mixed(f, along)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides,channels,kernel", SHAPES)
def test_derivatives_are_those_of_xla(sides, channels, kernel, mode):
    keys = jax.random.split(jax.random.key(0), 6)
    draw = jax.random.normal
    x, w = draw(keys[0], (3, *sides, channels)), draw(keys[1], (*kernel, channels, 4)) / channels
    target, between = draw(keys[2], (3, *sides, 4)), draw(keys[3], (4, channels))
    along = draw(keys[4], x.shape), draw(keys[5], w.shape)
    ours, theirs = (
        MODES[mode](loss(conv, target, between), along)(x, w) for conv in (convolution.conv, convolution._conv)
    )
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.abs(found - expected).max() < 1e-12 * (1 + jnp.abs(expected).max())


def test_a_gradient_of_a_kernel_in_a_loop_is_a_form_that_is_fast_there():
    """XLA turns a gradient of a kernel into a convolution that it is fast at, but not within a loop: ours is one from the start."""
    x, w = jnp.zeros((3, 4, 4, 32)), jnp.zeros((3, 3, 32, 4))
    gradient = jax.grad(lambda w, x: jnp.vdot(convolution.conv(x, w), convolution.conv(x, w)))
    loop = jax.jit(lambda w: jax.lax.scan(lambda w, _: (gradient(w, x), None), w, None, length=3)[0])
    text = loop.lower(w).as_text()
    assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in text
    assert "[f, 0, 1, b]" not in text


def test_a_gradient_of_a_kernel_runs_without_a_loop_elsewhere():
    """Its form for CPUs is one of its lowerings: an accelerator has XLA's own."""
    x, w = jnp.zeros((3, 15, 15, 32)), jnp.zeros((3, 3, 32, 4))
    gradient = jax.jit(jax.grad(lambda w: convolution.conv(x, w).sum()))
    for platform, loops in (("cpu", True), ("cuda", False)):
        program = export.export(gradient, platforms=[platform])(w).mlir_module()
        assert ("stablehlo.while" in program) == loops


def test_it_computes_where_jit_is_off(key):
    """As a user does who looks for an error."""
    x, kernel = jax.random.normal(key, (2, 6, 6, 3)), jax.random.normal(key, (3, 3, 3, 4))
    with jax.disable_jit():
        found = jax.grad(lambda w: convolution.conv(x, w).sum())(kernel)
    assert jnp.allclose(found, jax.grad(lambda w: convolution._conv(x, w).sum())(kernel))


def test_a_kernel_with_an_even_side_is_refused():
    with pytest.raises(RecipeError, match="a kernel has sides of 2 and 3; both have to be odd"):
        convolution.conv(jnp.zeros((1, 4, 4, 3)), jnp.zeros((2, 3, 3, 16)))
