"""Every gate, loss, logit and meta-gradient of the authors' own code, in float64 to 1e-9."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_arrays import Golden

from lethax import trees
from lethax.methods import L2F, MAML
from lethax.nets import Conv4, ResNet12
from lethax.objectives import CrossEntropy

pytestmark = pytest.mark.usefixtures("x64")

VARIANTS = ["maml_first", "maml_second", "l2f_first", "l2f_second"]
NETS = {
    "conv4_5way1shot_28px": (lambda form: Conv4(image=28, filters=8, conv_form=form), 3, 1),
    "resnet12_5way1shot_32px": (lambda form: ResNet12(conv_form=form), 2, None),
}
# Every pair of a form of convolution and of a loop stands here, for the variant that it compiles fastest; both pairs that the
# command line takes (native, unroll and patches, scan) in second order with gates and without.
FORMS = {
    ("conv4_5way1shot_28px", "maml_first"): ("native", "scan"),
    ("conv4_5way1shot_28px", "l2f_first"): ("patches", "unroll"),
    ("conv4_5way1shot_28px", "l2f_second"): ("patches", "scan"),
}
golden = functools.cache(Golden)


def learner_of(file: str, variant: str):
    make, steps, _ = NETS[file]
    form, loop = FORMS.get((file, variant), ("native", "unroll"))
    kind = L2F if variant.startswith("l2f") else MAML
    return kind(make(form), steps=steps, order=1 if variant.endswith("first") else 2, loop=loop)


def run(file: str, variant: str):
    data, learner = golden(file), learner_of(file, variant)
    gated = variant.startswith("l2f")
    shapes = jax.eval_shape(learner.net.init, jax.random.key(0))
    adapted = trees.names(trees.partition(shapes, learner.net.adapted(shapes))[0])
    meta = jax.tree.map(jnp.asarray, data.meta(NETS[file][2], gated, adapted))
    meta["weights"].pop("attenuator", None)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def differentiate(meta, episode):
        fast, info = learner.adapt(meta, episode.support)
        outputs = learner.predict(fast, episode.query.x)
        return learner.objective.loss(outputs, episode.query.y), ({**info, "fast": fast.weights}, outputs)

    episodes = jax.tree.map(jnp.asarray, data.episodes(np.float64))
    tasks = [jax.tree.map(lambda leaf, i=i: leaf[i], episodes) for i in range(len(episodes.support.x))]
    values, grads = zip(*(differentiate(meta, task) for task in tasks), strict=True)
    losses, (infos, logits) = [loss for loss, _ in values], zip(*(rest for _, rest in values), strict=True)
    return data, adapted, sum(losses), infos, logits, losses, jax.tree.map(lambda *parts: sum(parts), *grads)


def check_forward(file, variant, result):
    data, adapted, value, infos, logits, losses, _ = result
    a = data.arrays
    close = dict(rtol=1e-9, atol=1e-11)
    data.check_adapted(variant, NETS[file][2], infos[0]["fast"], **close)
    np.testing.assert_allclose(value, a[f"{variant}/total_loss"], **close)
    np.testing.assert_allclose(np.stack(losses), a[f"{variant}/query_loss_per_step"][:, -1], **close)
    np.testing.assert_allclose(np.stack([i["support_losses"] for i in infos]), a[f"{variant}/support_loss"], **close)
    np.testing.assert_allclose(np.stack(logits), a[f"{variant}/query_logits_last"], **close)
    if variant.startswith("l2f"):
        order = data.permutation(adapted)
        np.testing.assert_allclose(np.stack([i["gates"] for i in infos]), a[f"{variant}/gamma"][:, order], **close)
        embedding = np.stack([i["embedding"] for i in infos])
        np.testing.assert_allclose(embedding, a[f"{variant}/embedding"][:, order], **close)
        head = [i for i, name in enumerate(adapted) if name.startswith("head")]
        assert np.all(np.abs(embedding[:, head]) < 1e-12)  # softmax gradients sum to 0
        at_theta = np.stack([i["support_loss_at_theta"] for i in infos])
        np.testing.assert_allclose(at_theta, a[f"{variant}/support_loss_at_theta"], **close)


def check_gradient(file, variant, result):
    data, adapted, _, infos, _, _, grads = result
    extent = NETS[file][2]
    flat = dict(grads["weights"])
    stored = data.tree(f"{variant}/grad/", extent)
    if variant.startswith("l2f") and "attenuator" in stored:
        expected = data.attenuator(stored.pop("attenuator"), adapted)
        jax.tree.map(lambda e, g: np.testing.assert_allclose(g, e, rtol=1e-9, atol=1e-11), expected, grads["start"])
    stored.pop("attenuator", None)
    ours = dict(zip(trees.names(flat), jax.tree.leaves(flat), strict=True))
    for name, leaf in zip(trees.names(stored), jax.tree.leaves(stored), strict=True):
        np.testing.assert_allclose(ours[name], leaf, rtol=1e-9, atol=1e-11, err_msg=name)
    sums = [k for k in data.arrays if k.startswith(f"{variant}/gradsum/") and "attenuator" not in k]
    for key in sums:
        name = key.split("/")[-1]
        leaf = ours["/".join(data.path(name))]
        leaf = np.asarray(leaf).T if name == "linear.weights" else np.asarray(leaf)
        leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        line, step = leaf.ravel(), leaf.size // 8
        expected = [leaf.size, np.linalg.norm(line), line.sum(), *line[:8], *(line[:: max(step, 1)][:8])]
        np.testing.assert_allclose(
            expected[: len(data.arrays[key])], data.arrays[key], rtol=1e-9, atol=1e-10, err_msg=name
        )
    assert len(stored) + len(sums) > 0
    if not sums:
        assert set(trees.names(stored)) == set(ours)


QUICKEST = ("conv4_5way1shot_28px", "l2f_second")  # to compile of those with gates and second derivatives
# ResNet12 compiles slowly. Gates and second order at once cover what is its own; the rest is of the methods, with Conv4.
CASES = [
    (file, variant) for file in NETS for variant in VARIANTS if file.startswith("conv4") or variant == "l2f_second"
]


@pytest.mark.parametrize(
    "file,variant", [pytest.param(*case, marks=[pytest.mark.numeric] if case == QUICKEST else []) for case in CASES]
)
def test_the_authors_own_arrays(file, variant):
    result = run(file, variant)
    check_forward(file, variant, result)
    check_gradient(file, variant, result)
    result[0].check_complete(variant)


@pytest.mark.parametrize("file", NETS)
def test_float32(file):
    """Losses at the start to 1e-4, a hundred times the rounding of these sums. Gradients, and with them what follows a step,
    cannot be compared in float32: where one maximum of a pool is another they jump by percents."""
    data, net = golden(file), NETS[file][0]("native")
    weights = data.meta(NETS[file][2], False, [])["weights"]
    weights.pop("attenuator", None)
    weights = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights)
    support = jax.tree.map(jnp.asarray, data.episodes(np.float32).support)
    outputs = jax.jit(jax.vmap(net.apply, (None, 0)))(weights, support.x)
    assert outputs.dtype == jnp.float32
    losses = jax.vmap(CrossEntropy().loss)(outputs, support.y)
    np.testing.assert_allclose(losses, data.arrays["maml_second/support_loss"][:, 0], rtol=1e-4)
