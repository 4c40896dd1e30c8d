"""Networks: the published sizes, and what follows from norms, scales and heads in closed form."""

import dataclasses
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import trees
from lethax.errors import DataError, RecipeError
from lethax.methods import L2F, LSLR, MAML, SGD
from lethax.nets import MLP, Contextual, Conv4, ResNet12, layers
from lethax.nets.policy import GaussianPolicy
from lethax.objectives import CrossEntropy
from lethax.records import Episode, Split

pytestmark = pytest.mark.usefixtures("x64")

TINY = Conv4(way=3, image=8, channels=1, filters=4, stages=2)


def shapes_of(net):
    return jax.eval_shape(net.init, jax.random.key(0))


def moving(net):
    return trees.partition(shapes_of(net), net.adapted(shapes_of(net)))[0]


def gates_of(net):
    meta = jax.eval_shape(L2F(net).init, jax.random.key(0))
    return len(L2F(net).gate_names()), trees.size(meta["start"])


@pytest.mark.parametrize(
    "filters,image,channels,way,features,total,inner",
    [
        (32, 84, 3, 5, 800, 32_773, 32_517),
        (48, 84, 3, 5, 1_200, 69_893, 69_509),
        (64, 84, 3, 5, 1_600, 120_837, 120_325),
        (48, 32, 3, 5, 192, 64_853, 64_469),
        (64, 32, 3, 5, 256, 114_117, 113_605),
        (64, 28, 1, 20, 64, 112_980, 112_468),
    ],
)
def test_sizes_of_conv4(filters, image, channels, way, features, total, inner):
    net = Conv4(way, image, channels, filters)
    weights = shapes_of(net)
    assert (trees.size(weights), trees.size(moving(net))) == (total, inner)
    x = jax.ShapeDtypeStruct((7, image, image, channels), float)
    assert jax.eval_shape(net.features, weights, x).shape == (7, features)
    assert jax.eval_shape(net.apply, weights, x).shape == (7, way)
    assert gates_of(net) == (6, 84)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_sizes_of_resnet12(variant):
    net = ResNet12(variant=variant)
    weights = shapes_of(net)
    assert (trees.size(weights), trees.size(moving(net))) == (7_999_365, 7_991_685)
    kernels = [leaf.size for name, leaf in zip(trees.names(moving(net)), jax.tree.leaves(moving(net)), strict=True)]
    assert [sum(kernels[4 * b : 4 * b + 4]) for b in range(4)] == [75_648, 376_832, 1_507_328, 6_029_312]
    assert gates_of(net) == (18, 684)


@pytest.mark.parametrize("variant,image,extents", [
    ("code", 84, [42, 21, 11, 11]), ("code", 32, [16, 8, 5, 5]),
    ("paper", 84, [42, 21, 10, 5]), ("paper", 32, [16, 8, 4, 2]),
])  # fmt: skip
def test_pools_of_resnet12(variant, image, extents):
    found, x = [], jax.ShapeDtypeStruct((1, image, image, 1), float)
    for block in range(4):
        x = jax.eval_shape(lambda y, block=block: ResNet12(variant=variant)._pool(y, block), x)
        found.append(x.shape[1])
    assert found == extents


@pytest.fixture
def episode(key):
    """Three classes, two shots, two queries a class."""
    labels = jnp.repeat(jnp.arange(3), 2)
    images = jax.random.normal(key, (2, 6, 8, 8, 1))
    return Episode(Split(images[0], labels), Split(images[1], labels))


def test_a_head_of_zeros_knows_nothing(key, episode):
    weights = jax.jit(TINY.init)(key)
    weights["head"] = jax.tree.map(jnp.zeros_like, weights["head"])
    loss = CrossEntropy().loss(jax.jit(TINY.apply)(weights, episode.query.x), episode.query.y)
    np.testing.assert_allclose(loss, log(3), rtol=1e-12)


def test_scaled_kernels_before_a_norm_change_little_but_their_gradients(key, episode):
    """f(c θ) = f(θ) up to eps, ∇ becomes ∇/c, and ⟨θ_l, ∇_l⟩ is 0 for every kernel."""
    x, y, _ = episode.query
    weights = jax.jit(TINY.init)(key)
    half = trees.map_named(lambda name, w: 0.5 * w if name.startswith("conv") else w, weights)
    loss = jax.jit(jax.value_and_grad(lambda w: CrossEntropy().loss(TINY.apply(w, x), y)))
    (value, grads), (same, larger) = loss(weights), loss(half)
    np.testing.assert_allclose(same, value, rtol=1e-3)
    for stage in range(TINY.stages):
        g, w = grads[f"conv{stage}"]["weight"], weights[f"conv{stage}"]["weight"]
        np.testing.assert_allclose(0.5 * larger[f"conv{stage}"]["weight"], g, rtol=0.05, atol=1e-3 * jnp.abs(g).max())
        assert jnp.abs(jnp.vdot(w, g)) < 1e-3 * jnp.linalg.norm(w) * jnp.linalg.norm(g)


def test_equal_rows_of_per_step_norms_are_a_shared_norm(key, episode):
    """In the outputs; the shared meta-gradient is the sum over the rows."""
    shared = MAML(TINY, steps=2)
    rows = dataclasses.replace(shared, net=dataclasses.replace(TINY, norm_steps=2))
    meta = jax.jit(shared.init)(key)
    repeated = trees.map_named(lambda n, w: jnp.stack([w, w]) if n.startswith("norm") else w, meta["weights"])
    loss = jax.jit(jax.value_and_grad(lambda m, how: how.loss(m, episode)[0]), static_argnums=1)
    (value, grads), (same, by_row) = loss(meta, shared), loss({**meta, "weights": repeated}, rows)
    np.testing.assert_allclose(same, value, rtol=1e-10)
    for name in ("scale", "shift"):
        of_rows = by_row["weights"]["norm1"][name].sum(axis=0)
        np.testing.assert_allclose(of_rows, grads["weights"]["norm1"][name], rtol=1e-9, atol=1e-12)


def test_equal_rates_of_tensors_and_steps_are_maml(key, episode):
    plain, several = MAML(TINY, rule=SGD(0.05), steps=2), MAML(TINY, rule=LSLR(0.05), steps=2)
    meta = jax.jit(several.init)(key)
    loss = jax.jit(lambda m, how: how.loss(m, episode)[0], static_argnums=1)
    np.testing.assert_allclose(loss({**meta, "rule": {}}, plain), loss(meta, several), rtol=1e-10)


@pytest.mark.parametrize("norm,alone", [("batch", False), ("support", True), ("support+1", True)])
def test_a_label_depends_on_its_neighbours_in_one_norm_mode_alone(norm, alone, key, episode):
    learner = MAML(TINY, steps=1, norm=norm)
    predict = jax.jit(learner.predict)
    fast, _ = jax.jit(learner.adapt)(jax.jit(learner.init)(key), episode.support)
    together = predict(fast, episode.query.x)
    single = jnp.concatenate([predict(fast, x[None]) for x in episode.query.x[:3]])
    assert np.allclose(single, together[:3], rtol=1e-9, atol=1e-12) == alone


@pytest.mark.parametrize(
    "net,shape,message",
    [
        (Conv4(image=28, channels=1), (5, 32, 32, 3), r"shape \[32, 32, 3\], but this net reads \[28, 28, 1\]"),
        (Conv4(image=28, channels=1), (5, 784), r"shape \[784\], but this net reads \[28, 28, 1\]"),
        (ResNet12(channels=3), (5, 32, 32, 1), r"\[32, 32, 1\], but this net reads \[any, any, 3\]: make it with"),
        (MLP(inputs=64), (5, 63), r"\[63\], but this net reads \[64\]"),
        (Contextual(MLP(inputs=64)), (5, 63), r"\[63\], but this net reads \[64\]"),
        (GaussianPolicy(3, 2), (5, 4), r"\[4\], but this net reads \[3\]"),
    ],
)
def test_examples_of_another_shape_are_refused_before_anything_runs(net, shape, message, key):
    with pytest.raises(DataError, match=message):
        jax.eval_shape(lambda: net.apply(net.init(key), jnp.zeros(shape)))


def test_images_that_a_net_pools_away_are_refused(key):
    with pytest.raises(RecipeError, match="image is 8; 4 stages halve it so often, and need 16 pixels"):
        Conv4(image=8)
    for variant, depth, size in (("paper", 4, 16), ("code", 4, 4), ("code", 5, 8), ("code", 2, 4)):
        net = ResNet12(channels=1, widths=(2,) * depth, variant=variant)
        assert net.smallest == size
        whole = jax.eval_shape(lambda net=net, size=size: net.apply(net.init(key), jnp.zeros((2, size, size, 1))))
        assert whole.shape == (2, 5)
        with pytest.raises(DataError, match=f"images are {size - 1} px; this net pools them away and needs {size}"):
            jax.eval_shape(lambda net=net, size=size: net.apply(net.init(key), jnp.zeros((2, size - 1, size - 1, 1))))


def test_moments_count_more_examples_than_bfloat16_can():
    """257 is no number of bfloat16, in which a net's inputs may come."""
    x = jnp.arange(300, dtype=jnp.bfloat16)[:, None]
    mask = (jnp.arange(300) < 257).astype(jnp.bfloat16)
    one = jnp.ones(1)
    found = layers.batch_norm(x, one, 0 * one, mask=mask)[:257].astype(float)
    np.testing.assert_allclose(np.mean(found), 0.0, atol=2e-3)
