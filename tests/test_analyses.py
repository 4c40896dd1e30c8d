"""Analyses of trained runs: attenuation and loss surfaces against closed forms, and `lethax analyse`."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import cli, progress, trees
from lethax.analysis import attenuation, surface
from lethax.cli.arguments import What
from lethax.data.writer import StoreWriter
from lethax.errors import RecipeError, RunError
from lethax.methods import L2F, MAML, Attenuator, build
from lethax.methods.parts import normed_layers
from lethax.nets import MLP, Conv4, ResNet12, layers
from lethax.objectives import SquaredError
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.records import Episode, Split
from lethax.report import analyses as views
from lethax.rules import SGD, SignSGD
from lethax.runs import folder as folders
from lethax.runs import making
from lethax.runs.analyses import MEASURES, open_trained

NET = Conv4(way=3, image=8, channels=1, filters=4, stages=2)
NORMED = ("conv0", "conv1")


def episode_of(key, net=NET, examples=6):
    of_support, of_query = jax.random.split(key)
    y = jnp.arange(examples) % net.way
    images = (examples, net.image, net.image, net.channels)
    return Episode(Split(jax.random.normal(of_support, images), y), Split(jax.random.normal(of_query, images), y))


@pytest.fixture
def no_epsilon(monkeypatch):
    """Batch norms without the small number that keeps them from being exactly blind to scale."""
    monkeypatch.setattr(layers, "batch_norm", partial(layers.batch_norm, eps=0.0))


def close(a, b):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), a, b)


# Attenuation


@pytest.mark.usefixtures("x64", "no_epsilon")
def test_a_batch_norm_is_blind_to_scale_and_divides_the_gradient(key):
    """f(γw) = f(w) and ∇f(γw) = ∇f(w) / γ for what a batch norm follows; not for the head."""
    weights, gamma = NET.init(key), 0.3
    support = episode_of(key).support

    def loss(weights):
        return jnp.mean(jnp.square(NET.apply(weights, support.x) - 1.0))

    derive = jax.jit(jax.value_and_grad(loss))
    value, grads = derive(weights)
    for layer in NORMED:
        scaled, of_scaled = derive(attenuation.attenuated(weights, layer, gamma))
        close(scaled, value)
        close(of_scaled[layer], jax.tree.map(lambda g: g / gamma, grads[layer]))
    assert abs(derive(attenuation.attenuated(weights, "head", gamma))[0] - value) > 1e-3


def test_what_a_batch_norm_follows():
    assert normed_layers(NET) == NORMED and normed_layers(MLP()) == ()
    net = ResNet12(widths=(2, 2))
    assert normed_layers(net) == tuple(f"block{b}/{k}" for b in (0, 1) for k in ("conv0", "conv1", "conv2", "shortcut"))


@pytest.mark.usefixtures("x64", "no_epsilon")
@pytest.mark.parametrize("scope", ["layer", "filter"])
def test_the_effects_of_a_gate_before_a_batch_norm_are_those_of_the_rate(key, scope):
    """γθ with α computes what θ with α/γ² does, and γθ with αγ² what θ with α does: along all inner steps."""
    episode = episode_of(key)
    options = {"rule": SGD(rate=0.3), "steps": 2}
    gated = L2F(NET, attenuator=Attenuator(scope=scope), **options)
    meta = gated.init(key)

    def path(**fields):
        start = Attenuator(scope=scope, **fields)
        return jax.jit(partial(MAML(NET, start=start, **options).path, steps=2))(meta, episode)[0]

    both, neither = path(), path(ungated=NORMED)
    close(path(acts="rate", normed=NORMED), both)
    close(path(acts="size", normed=NORMED), neither)
    assert np.abs(both[0] - neither[0]).max() < 1e-10 < 1e-3 < np.abs(both[-1] - neither[-1]).max()


@pytest.mark.usefixtures("x64")
def test_every_step_paces_by_the_gates_of_its_own_step(key):
    """With gates by hand a step from w moves layer l by α γ_l⁻² g_l, at every step, and the weights stay as they are."""
    start = Attenuator(scope="layer", fixed=(0.5, 0.2, 1.0), acts="rate", normed=NORMED, every_step=True)
    learner, plain = (MAML(NET, start=s, rule=SGD(rate=0.1), steps=2) for s in (start, None))
    meta, support = {**learner.init(key)}, episode_of(key).support
    stops = learner.inner_path(meta, support, 2).stops
    after_one = {**meta, "weights": {**meta["weights"], **jax.tree.map(lambda w: w[1], stops_only(stops))}}
    for begun, j in ((meta, 0), (after_one, 1)):
        there = plain.inner_path(begun, support, 1).stops
        for layer, gate in zip(("conv0", "conv1", "head"), (0.5, 0.2, 1.0), strict=True):
            usual = jax.tree.map(lambda w: w[1] - w[0], there[layer])
            close(
                jax.tree.map(lambda w, j=j: w[j + 1] - w[j], stops[layer]),
                jax.tree.map(lambda g, s=gate: g / s**2, usual),
            )


def stops_only(stops):
    return {name: layer for name, layer in stops.items() if jax.tree.leaves(layer)}


def test_a_recipe_can_ask_for_the_rate_alone(key):
    learner = build("l2f", NET, rate=0.1, attenuator={"acts": "rate"}, steps=1)
    assert learner.start.acts == "rate" and learner.start.normed == NORMED
    grads = jax.jit(jax.grad(lambda meta: learner.loss(meta, episode_of(key))[0]))(learner.init(key))
    assert float(trees.norm(grads["start"])) > 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert build("l2f", NET, rate=0.1, attenuator={}, steps=1).start == Attenuator()


@pytest.mark.parametrize("name, net, said", [
    ("l2f", MLP(), "gate.acts is size, for layers that a batch norm follows, but MLP has none"),
    ("anil+l2f", NET, "moves only the last layer, which no batch norm follows"),
])  # fmt: skip
def test_a_rate_that_acts_nowhere_is_refused(name, net, said):
    with pytest.raises(RecipeError, match=said):
        build(name, net, rate=0.1, attenuator={"acts": "size"})


@pytest.mark.parametrize("name, options", [
    ("sign_maml+l2f", {}), ("l2f", {"rule": SignSGD()}), ("alfa+l2f", {}), ("imaml+l2f", {}), ("l2f", {"inner_clamp": 1.0}),
])  # fmt: skip
def test_a_rate_cannot_act_for_gates_where_steps_are_not_linear(name, options):
    with pytest.raises(RecipeError, match="gate.acts is rate, which needs inner steps that are linear"):
        build(name, NET, rate=0.1, attenuator={"acts": "rate"}, **options)


def test_gates_are_ordered_by_depth_and_summed_up():
    names = ["head/bias", "layer10/weight", "layer2/weight", "log_std"]
    per_task = np.array([[0.1, 0.5, 0.9, 1.0], [0.3, 0.5, 0.7, 1.0]])
    found = attenuation.gates(names, per_task)
    assert found.names == ["layer2/weight", "layer10/weight", "head/bias", "log_std"]
    summary = found.summary()
    np.testing.assert_allclose(summary["mean"], [0.8, 0.5, 0.2, 1.0])
    np.testing.assert_allclose(summary["std"], [0.1, 0.0, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(summary["q50"], [0.8, 0.5, 0.2, 1.0])
    np.testing.assert_allclose(summary["q05"], [0.71, 0.5, 0.11, 1.0])


def test_by_hand_scales_one_layer_and_compares_on_the_same_episodes():
    meta = {
        "weights": {"a": {"bias": jnp.ones(1), "weight": jnp.ones(2)}, "b": {"weight": jnp.full(4, 2.0)}},
        "rule": {},
    }
    calls = []

    def judge(meta):
        assert meta["rule"] == {}
        calls.append(1)
        total = sum(float(leaf.sum()) for leaf in jax.tree.leaves(meta["weights"]))
        return np.array([total, 2 * total])

    found = attenuation.by_hand("sum", judge, meta, ["a", "b"], (0.5, 1.0))
    np.testing.assert_allclose(found.scores, [[[9.5, 19.0], [11.0, 22.0]], [[7.0, 14.0], [11.0, 22.0]]])
    assert len(calls) == 3 and found.change(0, 0).mean == -2.25 and found.change(1, 1).ci95 == 0
    with pytest.raises(ValueError, match="the last factor is 0.5"):
        attenuation.by_hand("sum", judge, meta, ["a"], (1.0, 0.5))


def test_scaled_weights_are_an_attenuated_start(key):
    """θ with one layer scaled adapts as θ under an attenuator with these gates by hand."""
    episode, options = episode_of(key), {"rule": SGD(rate=0.1), "steps": 1}
    plain = MAML(NET, **options)
    gated = MAML(NET, start=Attenuator(scope="layer", fixed=(1.0, 0.5, 1.0)), **options)
    meta = plain.init(key)
    scaled = {**meta, "weights": attenuation.attenuated(meta["weights"], "conv1", 0.5)}
    outputs = [
        jax.jit(partial(one.path, steps=1))(m, episode)[0] for one, m in ((plain, scaled), (gated, meta), (plain, meta))
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    assert np.abs(outputs[1][1] - outputs[2][1]).max() > 1e-3


# Surfaces


def test_an_analysis_may_leave_the_start_out_where_a_task_starts_from_prototypes():
    learner = build("l2f", MLP(inputs=2, hidden=(3,), outputs=2), rate=0.1, attenuator={}, steps=1, head="prototypes")
    support = Split(jnp.eye(2), np.array([0, 1]))
    meta = learner.init(jax.random.key(0))
    assert jax.eval_shape(replace(learner, start=None).adapt, meta, support)


def test_a_random_direction_has_the_norms_of_the_filters(key):
    weights = NET.init(key)
    moving, _ = trees.partition(weights, NET.adapted(weights))
    found = surface.filter_normalised(jax.random.key(1), moving)  # not the key of the weights
    for layer in (*NORMED, "head"):
        mine, theirs = (tree[layer]["weight"].reshape(-1, tree[layer]["weight"].shape[-1]) for tree in (found, moving))
        np.testing.assert_allclose(*(np.linalg.norm(w, axis=0) for w in (mine, theirs)), rtol=1e-5)
        assert abs(float(jnp.vdot(mine, theirs))) < 0.5 * float(jnp.vdot(theirs, theirs))
    assert not found["head"]["bias"].any()


@pytest.mark.usefixtures("x64")
def test_a_plane_holds_the_ends_of_the_path_and_a_quadratic_has_its_closed_form(key):
    path = {"w": jax.random.normal(key, (4, 3, 2)), "b": jax.random.normal(key, (4, 2))}
    of = surface.plane(key, path)
    first, last = (jax.tree.map(lambda stop, at=at: stop[at], path) for at in (0, -1))
    jax.tree.map(np.testing.assert_array_equal, surface.point(of, 0.0, 0.0), first)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-14), surface.point(of, 1.0, 0.0), last)
    length = float(trees.norm(of.along))
    assert abs(float(trees.dot(of.along, of.across))) < 1e-12 * length**2
    np.testing.assert_allclose(float(trees.norm(of.across)), length, rtol=1e-12)
    np.testing.assert_allclose(of.stops[jnp.array([0, -1])], [[0.0, 0.0], [1.0, 0.0]], atol=1e-12)
    for stop, place in zip(range(4), np.asarray(of.stops), strict=True):  # what is left is orthogonal to both axes
        off = jax.tree.map(lambda w, on, j=stop: w[j] - on, path, surface.point(of, *place))
        assert max(abs(float(trees.dot(off, axis))) for axis in (of.along, of.across)) < 1e-12 * length**2

    found = surface.grid(lambda w: (0.5 * trees.dot(w, w), trees.dot(w, of.across)), of)
    x, y = np.meshgrid(found.along, found.across)
    at_0 = {name: float(trees.dot(first, axis)) for name, axis in (("x", of.along), ("y", of.across), ("0", first))}
    np.testing.assert_allclose(
        found.support, 0.5 * at_0["0"] + x * at_0["x"] + y * at_0["y"] + 0.5 * (x**2 + y**2) * length**2, rtol=1e-10
    )
    np.testing.assert_allclose(found.query, at_0["y"] + y * length**2, rtol=1e-10)
    assert found.at(0.0)[0] == pytest.approx(0.5 * at_0["0"]) and found.line()[0].shape == (surface.POINTS,)


def test_the_surface_of_a_task_has_the_losses_of_its_path(key):
    """At (0, 0) is the support loss of w_0, which L2F attenuated, and at (1, 0) the query loss that training sees."""
    learner = L2F(MLP(inputs=1, hidden=(6,)), objective=SquaredError(), rule=SGD(rate=0.05), steps=3)
    meta = learner.init(key)
    x = jax.random.normal(key, (2, 5, 1))
    episode = Episode(Split(x[0], jnp.sin(x[0])), Split(x[1], jnp.sin(x[1])))
    found = surface.of_task(learner, meta, episode, key, np.array([0.0, 1.0]), np.array([0.0]))
    loss, info = jax.jit(learner.loss)(meta, episode)
    np.testing.assert_allclose(found.at(0.0)[0], info["support_losses"][0], rtol=1e-5)
    np.testing.assert_allclose(found.at(1.0)[1], loss, rtol=1e-5)
    assert found.stops.shape == (4, 2) and found.moved > 0
    still = L2F(learner.net, objective=SquaredError(), rule=SGD(rate=0.0), steps=1)
    assert surface.of_task(still, meta, episode, key) is None
    zero = MAML(learner.net, SquaredError(), SGD(rate=0.05), steps=1, moved="head")
    zeros = {**meta, "weights": {**meta["weights"], "layer1": jax.tree.map(jnp.zeros_like, meta["weights"]["layer1"])}}
    assert surface.of_task(zero, zeros, episode, key) is None  # no filter of 0 gives a direction a length
    both = trees.mean([found, found._replace(support=found.support + 2.0)])
    np.testing.assert_allclose(both.support, found.support + 1.0)


# The command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tiny runs by name, which no test may change."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHAX_DATA", str(folder / "data"))
        with StoreWriter(None, "birds", mean=[0.5], std=[0.5], source={}) as writer:
            for split in ("train", "val", "test"):
                array = writer.split(split, (16, 16, 1), [(f"{split}{i}", "", 6) for i in range(3)])
                array[:] = np.random.default_rng(0).integers(0, 255, array.shape)
        shape = "--way 2 --shot 1 --query 2 --filters 2 --inner-steps 1 --steps 2 --epoch 1 --val-episodes 2".split()
        curves = "--steps 100 --epoch 100 --val-episodes 10 --filters 4".split()
        for name, words in {
            "birds-l2f": ["birds", "--method", "fomaml+l2f", *shape],
            "sin-maml": ["sinusoid", "--method", "maml", *curves],
            "sin-l2f": ["sinusoid", "--method", "l2f", *curves],
        }.items():
            assert cli.main(["train", *words, "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def analyse(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LETHAX_DATA", str(trained / "data"))
    monkeypatch.setattr(progress.console, "_width", 200)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        capsys.readouterr()
        code = cli.main(["analyse", *(str(trained / a) if (trained / str(a)).exists() else str(a) for a in args)])
        return code, *capsys.readouterr()

    return run


def test_every_analysis_has_a_measure_a_view_and_a_name():
    assert set(MEASURES) == set(views.VIEWS) == set(get_args(What))


def test_several_runs_stand_in_one_figure(analyse, tmp_path):
    code, out, err = analyse("sin-maml", "sin-l2f", "--what", "attenuation", "--tasks", 20)
    assert code == 0, err
    files = [Path("analyses") / f"attenuation.{kind}" for kind in ("json", "csv", "png", "svg")]
    assert f"written: {', '.join(map(str, files))}" in out and all(path.stat().st_size for path in files)
    with files[1].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 10 and {row["run"] for row in rows} == {"sin-maml", "sin-l2f"}
    whole = [row for row in rows if row["factor"] == "1.0"]
    assert {row["layer"] for row in whole} == {"layer0", "layer1", "layer2"} and {row["change"] for row in whole} == {
        "0.0"
    }
    record = json.loads(files[0].read_text())
    assert (record["what"], record["tasks"], record["split"]) == ("attenuation", 20, "test")
    assert [run["score"] for run in record["runs"]] == ["mse", "mse"] and len(record["rows"]) == len(rows)


def test_without_attenuation_it_is_what_evaluate_judges(analyse, trained, capsys):
    assert analyse("sin-maml", "--what", "attenuation", "--tasks", 5, "-o", "here", "--seed", 1)[0] == 0
    whole = json.loads(Path("here/attenuation.json").read_text())["rows"][-1]
    words = ["--episodes", "5", "--seed", "1", "--json"]
    assert cli.main(["evaluate", str(trained / "sin-maml"), *words]) == 0
    judged = json.loads(capsys.readouterr().out)[0]
    assert whole["factor"] == 1.0 and whole["mean"] == pytest.approx(judged["mean"], rel=1e-6)
    assert whole["ci95"] == pytest.approx(judged["ci95"], rel=1e-6)


@pytest.mark.parametrize("what, header, rows", [
    ("gates", "gate", 4), ("effects", "before a batch norm", 5), ("surface", "moved", 2 + surface.POINTS**2),
])  # fmt: skip
def test_a_single_run_has_its_analyses_in_its_folder(analyse, trained, what, header, rows):
    code, out, err = analyse("birds-l2f", "--what", what, "--tasks", 2)
    assert code == 0, err
    assert header in out and f"{what} of {trained / 'birds-l2f'} on 2 test tasks, seed 0" in out
    folder = trained / "birds-l2f" / "analyses"
    assert {f"{what}.{kind}" for kind in ("json", "csv", "png", "svg")} <= {path.name for path in folder.iterdir()}
    record = json.loads((folder / f"{what}.json").read_text())
    assert len(record["rows"]) == rows + (what == "gates") * 2


def test_equal_analyses_are_equal_files_even_of_a_run_with_a_hostile_name(analyse, trained, tmp_path):
    hostile = tmp_path / "_$\\frac{[red]\x1b"
    shutil.copytree(trained / "sin-l2f", hostile)
    for out in ("one", "two"):
        code, said, err = analyse(hostile, "sin-l2f", "--what", "gates", "--tasks", 3, "--out", out)
        assert code == 0, err
        assert "\x1b" not in said and "[red]" in said
    for kind in ("csv", "png", "svg"):
        assert Path(f"one/gates.{kind}").read_bytes() == Path(f"two/gates.{kind}").read_bytes()


@pytest.mark.parametrize("words, code, said", [
    ((), 2, "analyse needs at least one run folder"),
    (("sin-l2f", "sin-l2f"), 2, "is named twice"),
    (("sin-l2f", "--tasks", "0"), 2, "--tasks is 0; it has to be from 1 to 1,000,000"),
    (("sin-l2f", "birds-l2f"), 2, "is judged by its mse and"),
    (("nowhere",), 1, "is not a run"),
    (("sin-l2f", "sin-maml"), 1, "has no gates, as its method is maml: name runs of a method with L2F's start"),
    (("sin-l2f", "--what", "conflict", "--tasks", "1"), 1, "conflict compares tasks with each other"),
    (("sin-l2f", "--what", "effects"), 1, "has no gates before a batch norm"),
    (("sin-l2f", "--what", "lanscape"), 2, "--what is 'lanscape'; expected one of"),
])  # fmt: skip
def test_what_cannot_be_analysed_is_said_in_one_sentence(analyse, words, code, said):
    found, out, err = analyse(*words, *(() if "--what" in words else ("--what", "gates")))
    assert (found, out) == (code, "") and said in err and err.count("\n") == 1


def test_control_and_untraceable_learners_are_refused(analyse, trained, tmp_path):
    folder = tmp_path / "navigation"
    making.create(resolve(Recipe.of(data="navigation", method="l2f")), folder)
    code, _, err = analyse(folder, "--what", "gates")
    assert code == 1 and "whose tasks have no support and query sets" in err
    run = open_trained(folders.open_run(trained / "sin-maml"), tasks=1, split="test", seed=0)
    leo = run._replace(learner=build("leo", MLP(4, (), 2), rate=0.1, attenuator={}))
    refusals = {
        "gates": "has no gates",
        "effects": "no gates before a batch",
    }
    for what, analysis in MEASURES.items():
        with pytest.raises(RunError, match=refusals.get(what, "does not move the weights")):
            analysis.check(leo)
    birds = open_trained(folders.open_run(trained / "birds-l2f"), tasks=2, split="test", seed=0)
    gated = birds._replace(run=birds.run._replace(recipe=resolve(birds.run.recipe.with_values(gate_every_step=True))))
    for what in ("surface", "landscape", "conflict"):
        with pytest.raises(RunError, match="attenuates its weights before every inner step"):
            MEASURES[what].check(gated)
    with pytest.raises(RunError, match="inner steps that are not linear in the gradient"):
        MEASURES["effects"].check(birds._replace(learner=replace(birds.learner, inner_clamp=1.0)))
