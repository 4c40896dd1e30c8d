"""MAML++, ALFA and MuMoMAML: numeric cases in float64, and the authors' own arrays of MAML++ with and without L2F."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_arrays import Golden
from test_inner import TANH, Formula, differentiate, h4

from lethax import inner, trees
from lethax.methods import ALFA, L2F, LSLR, MAML, SGD, CurveEncoder, build, maml
from lethax.methods.mumomaml import ImageEncoder, modulation
from lethax.nets import MLP, Conv4
from lethax.objectives import CrossEntropy, SquaredError
from lethax.records import Episode, Progress, Split

pytestmark = pytest.mark.usefixtures("x64")

NOTHING = {"weights": {"w1": None, "w2": None}}


def test_rates_of_tensors_and_steps():
    episode, weights = h4()
    rates = {"w1": jnp.array([0.1, 0.05]), "w2": jnp.array([0.2, -0.1])}
    meta = {"weights": weights, "rule": rates, "start": {}}
    learner = MAML(TANH, SquaredError(), LSLR(), steps=2)
    fast, loss, grads = differentiate(learner, meta, episode)
    close = lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-9)  # noqa: E731
    close((fast["w1"], fast["w2"]), (0.857222720452, 1.256569382767))
    close(loss, 0.019561207978)
    close((grads["weights"]["w1"], grads["weights"]["w2"]), (-0.017433903338, 0.006335500731))
    close(grads["rule"]["w1"], (0.005178834363, 0.004141475235))
    close(grads["rule"]["w2"], (-0.001997465731, -0.001285017057))
    several = MAML(TANH, SquaredError(), LSLR(), steps=2, multi_step_until=5_000, multi_step_epoch=500)
    value, _ = jax.jit(several.loss)(meta, episode, progress=Progress(jnp.asarray(999), jnp.asarray(5_000)))
    close(value, 0.019445956686)
    outputs, _ = several.path(meta, episode, 2)
    close([several.objective.loss(o, episode.query.y) for o in outputs[1:]], (0.019305093995, 0.019561207978))
    assert several.at(4_999) == several and several.at(5_000).multi_step_until == 0


@pytest.mark.parametrize("epochs,epoch,early,last", [
    (10, 0, 0.2, 0.2), (10, 1, 0.18, 0.28), (10, 5, 0.1, 0.6), (10, 9, 0.02, 0.92), (10, 10, 0.006, 0.976),
    (10, 14, 0.006, 0.976), (10, 15, 0.006, 0.976), (15, 0, 0.2, 0.2), (15, 1, 0.186666666667, 0.253333333333),
    (15, 5, 0.133333333333, 0.466666666667), (15, 9, 0.08, 0.68), (15, 10, 0.066666666667, 0.733333333333),
    (15, 14, 0.013333333333, 0.946666666667), (15, 15, 0.006, 0.976),
])  # fmt: skip
def test_multi_step_weights(epochs, epoch, early, last):
    weights = maml.multi_step_weights(5, epoch, epochs)
    np.testing.assert_allclose(weights, [early] * 4 + [last], atol=1e-11)
    assert jnp.isclose(weights.sum(), 1.0)


def test_multi_step_weights_of_other_lengths():
    close = lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-11)  # noqa: E731
    close(maml.multi_step_weights(2, 1, 10), (0.45, 0.55))
    close(maml.multi_step_weights(4, 3, 15), (0.2, 0.2, 0.2, 0.4))
    close(maml.multi_step_weights(4, 14, 15), (*[1 / 60] * 3, 0.95))
    close(maml.multi_step_weights(1, 3, 10), (1.0,))


def test_a_multi_step_phase_shorter_than_an_epoch_is_one_epoch():
    episode, weights = h4()
    meta = {"weights": weights, "rule": {}, "start": {}}
    short, whole = (
        MAML(TANH, SquaredError(), steps=2, multi_step_until=100, multi_step_epoch=epoch) for epoch in (500, 100)
    )
    losses = [jax.jit(learner.loss)(meta, episode)[0] for learner in (short, whole)]
    assert np.isfinite(losses).all() and losses[0] == losses[1]


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_first_decay_of_alfa_follows_its_rate(rate, key):
    rule = build("alfa", MLP(), rate=rate, attenuator={}).rule.init(key, {"w": jnp.ones(2)}, 3)
    np.testing.assert_allclose(rule["decay"]["w"], [5e-4 * rate] * 3)


def test_alfa():
    episode, weights = h4()
    first = [(0.2, -0.1, 0.5, 0.3), (0.4, 0.1, -0.3, 0.2), (-0.5, 0.6, 0.1, 0.7), (0.3, 0.3, 0.2, -0.4)]
    second = [(0.6, 0.1, 0.2, 0.3), (0.2, 0.5, -0.1, 0.4), (-0.3, 0.2, 0.6, 0.1), (0.1, -0.2, 0.3, 0.5)]
    layer = lambda weight, bias: {"weight": jnp.array(weight), "bias": jnp.array(bias)}  # noqa: E731
    constant = lambda value: {"w1": jnp.array([value]), "w2": jnp.array([value])}  # noqa: E731
    rule = {
        "rate": constant(0.01), "decay": constant(5e-6),
        "layer0": layer(first, (0.05, 0.1, 0.2, -0.05)), "layer1": layer(second, (0.9, 0.8, 0.4, 0.5)),
    }  # fmt: skip
    # What the small network makes: alone in the step where the learned rates are 1, or the learned decays.
    seen = inner.gradient(MAML(TANH, SquaredError()).support_loss, weights, NOTHING, (episode.support, 0))[1]
    for part, made in (("rate", (1.494970927588, 1.287061777509)), ("decay", (0.945255036057, 0.930089046226))):
        only = {**rule, "rate": constant(0.0), "decay": constant(0.0), part: constant(1.0)}
        moved, along = ALFA().apply(only, weights, seen, 0), seen if part == "rate" else weights
        got = [(weights[name] - moved[name]) / along[name] for name in ("w1", "w2")]
        np.testing.assert_allclose(got, made, atol=1e-9)
    learner = MAML(TANH, SquaredError(), ALFA(), steps=1)
    fast, loss, grads = differentiate(learner, {"weights": weights, "rule": rule, "start": {}}, episode)
    np.testing.assert_allclose((fast["w1"], fast["w2"]), (0.895380705929, 1.295376655288), atol=1e-9)
    np.testing.assert_allclose(loss, 0.020634957331, atol=1e-9)
    of_weights = grads["weights"]["w1"], grads["weights"]["w2"]
    np.testing.assert_allclose(of_weights, (0.020666723291, 0.046462202505), atol=1e-9)
    whole = MAML(TANH, SquaredError(), ALFA(detached=False), steps=1)
    _, _, grads = differentiate(whole, {"weights": weights, "rule": rule, "start": {}}, episode)
    of_weights = grads["weights"]["w1"], grads["weights"]["w2"]
    np.testing.assert_allclose(of_weights, (0.020658520957, 0.046436023483), atol=1e-9)


@pytest.mark.parametrize("variants", [["mamlpp_second"], ["mamlpp_l2f_second", "mamlpp_l2f_second_late"]])
def test_golden(variants, monkeypatch):
    """Every loss, gate and meta-gradient; the stored shares of the steps are rounded to float32, so they are put in as they are."""
    data = Golden("conv4_mamlpp_4way2shot_20px")
    with_gates = data.settings["variants"][variants[0]]["att"]
    net = Conv4(way=4, image=20, channels=1, filters=6, norm_steps=4, conv_form="patches")
    options = dict(rule=LSLR(), steps=4, multi_step_until=15 * 500, loop="scan")
    learner = L2F(net, **options) if with_gates else MAML(net, **options)
    episodes = jax.tree.map(jnp.asarray, data.episodes(np.float64))

    @jax.jit
    def run(meta, shares):
        monkeypatch.setattr(maml, "multi_step_weights", lambda *_: shares)

        def total(meta):
            losses, infos = jax.vmap(lambda e: learner.loss(meta, e))(episodes)
            return jnp.sum(losses), infos

        outputs = jax.vmap(lambda e: learner.path(meta, e, 4)[0])(episodes)
        first = learner.adapt(meta, jax.tree.map(lambda leaf: leaf[0], episodes.support))[0].weights
        return jax.value_and_grad(total, has_aux=True)(meta), outputs[:, 1:], first

    multi_step_weights = maml.multi_step_weights
    for variant in variants:
        settings = data.settings["variants"][variant]
        shares = np.asarray(data.arrays[f"{variant}/msl_weights"], np.float64)
        np.testing.assert_allclose(multi_step_weights(4, settings["epoch"], 15), shares, rtol=1e-7)
        check_golden(data, variant, learner, lambda meta, shares=shares: run(meta, shares))


def golden_meta(data, net, gates):
    """Meta-parameters of the stored arrays, and where our tensors stand in the stored order."""
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    names = trees.names(trees.partition(shapes, net.adapted(shapes))[0])
    order = data.permutation(names)
    stored = [k.removeprefix("param/") for k in data.arrays if k.startswith("param/") and "task_learning" not in k]
    tree = data.tree("param/", 1, stored)
    attenuator = data.attenuator(tree.pop("attenuator"), names)
    rates = iter(data.arrays["param/task_learning_rate"].T[order])
    moving, _ = trees.partition(tree, net.adapted(tree))
    rule = jax.tree.map(lambda _: jnp.asarray(next(rates)), moving)
    meta = {"weights": tree, "rule": rule, "start": attenuator if gates else {}, "encoder": {}}
    return jax.tree.map(jnp.asarray, meta), names, order


def check_golden(data, variant, learner, run):
    a, settings = data.arrays, data.settings["variants"][variant]
    meta, names, order = golden_meta(data, learner.net, settings["att"])
    ((value, info), grads), outputs, first = run(meta)
    close = dict(rtol=1e-9, atol=1e-11)
    data.check_adapted(variant, 1, first, **close)
    np.testing.assert_allclose(outputs, a[f"{variant}/query_logits_all"], **close)
    np.testing.assert_allclose(outputs[:, -1], a[f"{variant}/query_logits_last"], **close)
    labels = data.episodes(np.float64).query.y
    losses = [
        [learner.objective.loss(o, jnp.asarray(y)) for o in along] for along, y in zip(outputs, labels, strict=True)
    ]
    np.testing.assert_allclose(losses, a[f"{variant}/query_loss_per_step"], **close)
    np.testing.assert_allclose(value, a[f"{variant}/total_loss"], **close)
    np.testing.assert_allclose(info["support_losses"], a[f"{variant}/support_loss"], **close)
    of_rates = a[f"{variant}/grad/task_learning_rate"].T[order]
    np.testing.assert_allclose(np.stack(jax.tree.leaves(grads["rule"])), of_rates, **close)
    if settings["att"]:
        for ours, stored in (("gates", "gamma"), ("embedding", "embedding")):
            np.testing.assert_allclose(info[ours], a[f"{variant}/{stored}"][:, order], **close)
        np.testing.assert_allclose(info["support_loss_at_theta"], a[f"{variant}/support_loss_at_theta"], **close)
    of_net = [
        k.removeprefix(f"{variant}/grad/") for k in a if k.startswith(f"{variant}/grad/") and "task_lear" not in k
    ]
    gradient = data.tree(f"{variant}/grad/", 1, of_net)
    if settings["att"]:
        jax.tree.map(
            lambda g, e: np.testing.assert_allclose(g, e, **close), grads["start"],
            data.attenuator(gradient.pop("attenuator"), names),
        )  # fmt: skip
    gradient.pop("attenuator", None)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, **close), grads["weights"], gradient)
    data.check_complete(variant)


def test_modulation():
    z, s, t = jnp.array([1, -2, 0.5]), jnp.array([0.1, -0.3, 0.7]), jnp.array([0.2, 0.4, -0.6])
    apply = lambda m: z * m["factor"] + m["shift"]  # noqa: E731
    close = lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-11)  # noqa: E731
    close(apply(modulation(jnp.concatenate([s, t]), "film")), (1.3, -1.0, 0.25))
    close(jax.nn.relu(apply(modulation(jnp.concatenate([s, t]), "film"))), (1.3, 0, 0.25))
    close(apply(modulation(s, "sigmoid")), (0.524979187479, -0.851114966377, 0.334093886084))
    close(apply(modulation(s, "softmax")), (0.286332859063, -0.383869310537, 0.260866242834))


def test_bound_of_the_inner_gradients():
    """Gradients (12, −3, −11) under a bound of 10 move the weights by (10, −3, −10)."""
    net = Formula(lambda w, x: x @ w["w"][:, None])
    # The mean squared error over three unit inputs with targets y has the gradient −2/3 y at w = 0.
    support = Split(jnp.eye(3), -1.5 * jnp.array([[12.0], [-3.0], [-11.0]]))
    meta = {"weights": {"w": jnp.zeros(3)}, "rule": {}, "start": {}}
    for bound, moved in ((0.0, (12, -3, -11)), (10.0, (10, -3, -10))):
        learner = MAML(net, SquaredError(), SGD(1.0), steps=1, inner_clamp=bound)
        np.testing.assert_allclose(-learner.adapt(meta, support)[0].weights["w"], moved, atol=1e-11)


@pytest.mark.parametrize("domain", ["curves", "images"])
def test_zero_modulation_is_maml(domain, key):
    """Heads of zeros under "film" are MAML, in the loss and in the net's meta-gradient; and the encoder has a gradient."""
    if domain == "curves":
        net, objective, steps = MLP(hidden=(8, 8), spread=0.5), SquaredError(), 2
        split = lambda k, n: Split(jax.random.normal(k, (n, 1)), jax.random.normal(k, (n, 1)) ** 2)  # noqa: E731
    else:
        net, objective, steps = Conv4(way=2, image=8, channels=1, filters=3, stages=2), CrossEntropy(), 1
        split = lambda k, n: Split(jax.random.normal(k, (2 * n, 8, 8, 1)), jnp.repeat(jnp.arange(2), n))  # noqa: E731
    episode = Episode(split(key, 3), split(jax.random.key(9), 4))
    options = dict(rate=0.05, attenuator={}, objective=objective, steps=steps)
    learner, plain = build("mumomaml", net, **options), build("maml", net, **options)
    meta = jax.jit(learner.init)(key)
    value = jax.jit(jax.value_and_grad(lambda m, learner: learner.loss(m, episode)[0]), static_argnums=1)
    assert any(jnp.any(g != 0) for g in jax.tree.leaves(value(meta, learner)[1]["encoder"]["heads"]))
    still = {**meta["encoder"], "heads": jax.tree.map(jnp.zeros_like, meta["encoder"]["heads"])}
    loss, grads = value({**meta, "encoder": still}, learner)
    expected, of_plain = value({**meta, "encoder": {}}, plain)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)  # noqa: E731
    jax.tree.map(near, grads["weights"], of_plain["weights"])


def test_encoders_see_what_they_may(key):
    """A curve's encoder sorts the points unless it takes them as drawn; an image's reads no labels; "softmax" has no shift."""
    encoder = CurveEncoder(2, (("layer0", 5),), hidden=4)
    params, apply = jax.jit(encoder.init)(key), jax.jit(encoder.apply)
    support = Split(jnp.array([[1.0], [0.2], [-3.0]]), jnp.array([[0.5], [1.0], [2.0]]))
    read = apply(params, support)
    turned = apply(params, jax.tree.map(lambda leaf: leaf[::-1], support))
    jax.tree.map(np.testing.assert_array_equal, read, turned)
    drawn = jax.jit(replace(encoder, order="drawn").apply)
    jax.tree.map(np.testing.assert_array_equal, read, drawn(params, Split(support.x[::-1], support.y[::-1])))  # by x
    assert not np.allclose(read["layer0"]["shift"], drawn(params, support)["layer0"]["shift"])
    other = apply(params, support._replace(y=-support.y))
    assert not np.allclose(read["layer0"]["shift"], other["layer0"]["shift"])
    images = ImageEncoder(1, (("norm0", 4),), widths=(4, 8), kind="softmax")
    support = Split(jax.random.normal(key, (3, 8, 8, 1)), jnp.arange(3))
    seen = jax.jit(lambda k: images.apply(images.init(k), support))(key)
    np.testing.assert_allclose(seen["norm0"]["factor"].sum(), 1.0, rtol=1e-12)
    assert not np.any(seen["norm0"]["shift"])
