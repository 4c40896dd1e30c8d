"""The outer step: reduction, clamps, schedule, and what happens to a meta-gradient that is no number."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lethax import meta_batch, optimizer, trees
from lethax.data.curves import family
from lethax.devices import over_chunks
from lethax.domains import domain_of
from lethax.errors import RecipeError
from lethax.meta_batch import Plan, draw_batch, outer_step
from lethax.methods import L2F, MAML
from lethax.nets import MLP, Conv4
from lethax.objectives import CrossEntropy, SquaredError
from lethax.outer import begin, fit, not_finite
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.records import Episode, EpisodeShape, Split

pytestmark = pytest.mark.usefixtures("x64")

# Steps of the gradient itself in Adam's place, so that they can be read.
PLAN = Plan(EpisodeShape(1, 5, 10), total=4, batch=4, transform=optax.sgd(1.0))
LEARNER = L2F(MLP(hidden=(8,), spread=0.5), objective=SquaredError(), steps=1)
TASKS, SOURCE, _ = family("sinusoid")


@functools.partial(jax.jit, static_argnums=0)
def step(plan, state, source):
    return outer_step(LEARNER, plan, state, *draw_batch(TASKS, source, plan, state))


def moved(plan, key, source=SOURCE):
    """How far one outer step goes, tensor by tensor."""
    state = jax.jit(begin, static_argnums=(0, 1))(LEARNER, plan, key)
    after, info = step(plan, state, source)
    assert int(after.step) == 1
    return jax.tree.map(lambda a, b: a - b, state.meta, after.meta), info


def test_sum_and_mean_of_the_meta_batch(key):
    together, _ = moved(PLAN, key)
    mean, _ = moved(dataclasses.replace(PLAN, reduction="mean"), key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 4 * b, rtol=1e-10, atol=1e-12), together, mean)


@pytest.mark.parametrize("reduction,chunk", [("sum", 1), ("mean", 2)])
def test_chunks_of_a_meta_batch_give_its_meta_gradient(key, reduction, chunk):
    whole, seen = moved(dataclasses.replace(PLAN, reduction=reduction), key)
    added, also = moved(dataclasses.replace(PLAN, reduction=reduction, task_chunk=chunk), key)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    jax.tree.map(same, added, whole)
    jax.tree.map(same, also, seen)


def test_meta_batches_drawn_before_the_loop_are_those_drawn_within_it(key, monkeypatch):
    """Steps 1 to 3 of a run, which has taken one already, beside a step at a time."""
    plan = dataclasses.replace(PLAN, transform=optax.sgd(1e-3))
    first, _ = step(plan, jax.jit(begin, static_argnums=(0, 1))(LEARNER, plan, key), SOURCE)
    one, losses = first, []
    for _ in range(3):
        one, info = step(plan, one, SOURCE)
        losses.append(info["loss"])
    for most in (meta_batch._DRAWN_AHEAD, 0):
        monkeypatch.setattr(meta_batch, "_DRAWN_AHEAD", most)
        last, info = jax.jit(lambda state: plan.several(LEARNER, state, TASKS, SOURCE, 3))(first)
        assert int(last.step) == 4
        np.testing.assert_allclose(info["loss"], losses, rtol=1e-10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), last.meta, one.meta)


def test_a_chunk_is_the_largest_that_divides_the_episodes():
    sizes = []

    def function(items):
        sizes.append(len(items))
        return items, jnp.sum(items)

    items = jnp.arange(6)
    for size, expected in ((0, 6), (4, 3), (5, 3), (1, 1), (9, 6)):
        each, total = over_chunks(function, items, size, jnp.zeros((), items.dtype))
        assert sizes.pop() == expected and total == 15 and list(each) == list(items)


def test_chunks_take_less_memory():
    """Of a convolutional net, most of the memory is what the backward pass keeps of each episode."""
    net = Conv4(way=2, image=16, channels=1, filters=4, conv_form="patches")
    learner = MAML(net, CrossEntropy(), steps=1, order=1)
    plan = Plan(EpisodeShape(2, 1, 8), total=1, batch=8)

    def memory(plan):
        state = jax.eval_shape(lambda: begin(learner, plan, jax.random.key(0)))
        part = lambda n: Split(jnp.zeros((8, n, 16, 16, 1)), jnp.zeros((8, n), int))  # noqa: E731
        keys = jax.random.split(jax.random.key(0), 8)
        program = jax.jit(outer_step, static_argnums=(0, 1)).lower(
            learner, plan, state, Episode(part(2), part(16)), keys
        )
        return program.compile().memory_analysis().temp_size_in_bytes

    assert memory(dataclasses.replace(plan, task_chunk=2)) < 0.5 * memory(plan)


def test_the_clamp_spares_the_attenuator(key):
    free, _ = moved(PLAN, key)
    cut, _ = moved(dataclasses.replace(PLAN, clamp=1e-3), key)
    assert jnp.abs(free["start"]["layer1"]["bias"]).max() > 0.002
    np.testing.assert_allclose(cut["start"]["layer1"]["bias"], free["start"]["layer1"]["bias"], rtol=1e-10)
    for ours, whole in zip(jax.tree.leaves(cut["weights"]), jax.tree.leaves(free["weights"]), strict=True):
        np.testing.assert_allclose(ours, np.clip(whole, -1e-3, 1e-3), atol=1e-12)


def test_bounds_on_norms(key):
    whole, _ = moved(dataclasses.replace(PLAN, clip_norm=1e-2), key)
    np.testing.assert_allclose(trees.norm(whole), 1e-2, rtol=1e-4)
    each, _ = moved(dataclasses.replace(PLAN, clip_tensor_norm=1e-3), key)
    assert all(jnp.linalg.norm(leaf.ravel()) < 1.0001e-3 for leaf in jax.tree.leaves(each))


def test_bounds_hold_for_gradients_whose_squares_are_infinite():
    large = {"weights": {"a": jnp.array([3e30, -4e30], jnp.float32)}}
    for bound in (optimizer.clip_norm(10.0), optimizer.clip_tensor_norm(10.0)):
        np.testing.assert_allclose(bound(large)["weights"]["a"], [6.0, -8.0], rtol=1e-6)
    seen = optimizer.clamp(10.0)({"weights": {"a": jnp.array([3e30, -jnp.inf, jnp.nan])}})["weights"]["a"]
    np.testing.assert_array_equal(seen, [10.0, -jnp.inf, jnp.nan])


def test_a_gradient_that_adam_cannot_square_moves_nothing():
    """Adam would keep the square, which is Inf, and never move that entry again."""
    params = {"weights": jnp.zeros(2, jnp.float32)}
    adam = dataclasses.replace(PLAN, skip=True, transform=optax.adam(0.1)).optimizer()
    first = adam.init(params)
    large = {"weights": jnp.array([1.0, 1e20], jnp.float32)}
    updates, state = adam.update(large, first, params)
    assert not optimizer.usable(large).any() and not jnp.any(updates["weights"])
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(first)))
    clipping = dataclasses.replace(PLAN, skip=True, clip_norm=1.0).optimizer()
    assert jnp.any(clipping.update(large, clipping.init(params), params)[0]["weights"])


def test_a_step_that_is_no_number_is_named_or_skipped(key):
    broken = SOURCE._replace(high=SOURCE.high.at[0, 0].set(jnp.inf))
    skipping = dataclasses.replace(PLAN, skip=True)
    still, info = moved(skipping, key, broken)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(still)) and not jnp.all(info["finite"])
    meta = begin(LEARNER, PLAN, key).meta
    for _, seen in fit(LEARNER, begin(LEARNER, PLAN, key), TASKS, broken, PLAN):
        step, tensor = not_finite(seen, meta, 0)
        assert step == 0 and "/" in tensor
        break


def test_a_bound_on_the_whole_norm_does_not_hide_which_gradient_is_no_number(key):
    class Broken(MAML):
        def loss(self, meta, episode, **more):
            loss, info = super().loss(meta, episode, **more)
            return loss + jnp.nan * meta["weights"]["layer1"]["bias"].sum(), info

    learner = Broken(LEARNER.net, LEARNER.objective, LEARNER.rule, LEARNER.start, steps=LEARNER.steps)
    for plan in (PLAN, dataclasses.replace(PLAN, clip_norm=10.0)):
        state = begin(learner, plan, key)
        _, seen = next(iter(fit(learner, state, TASKS, SOURCE, plan)))
        assert not_finite(seen, state.meta, 0) == (0, "weights/layer1/bias")


def rates_of(plan):
    """Under a constant gradient Adam's step is its rate."""
    adam = plan.optimizer()

    def step(state, _):
        update, state = adam.update(jnp.ones(()), state)
        return state, -update

    return np.asarray(jax.jit(lambda: jax.lax.scan(step, adam.init(jnp.zeros(())), length=plan.total)[1])())


def test_a_call_ends_where_the_learner_switches(key):
    learner = dataclasses.replace(LEARNER, second_order_from=3, multi_step_until=5, multi_step_epoch=1)
    whole, short = (dataclasses.replace(PLAN, total=8, chunk=chunk) for chunk in (8, 1))
    ends = [
        (int(state.step), state.meta) for state, _ in fit(learner, begin(learner, whole, key), TASKS, SOURCE, whole)
    ]
    assert [step for step, _ in ends] == [3, 5, 8]
    *_, (last, _) = fit(learner, begin(learner, short, key), TASKS, SOURCE, short)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ends[-1][1], last.meta)


@pytest.mark.parametrize("least,at", [(1e-5, {0: 1e-3, 500: 5.05e-4, 999: 1.0244e-5}), (1e-3, {0: 1e-3, 999: 1e-3})])
def test_cosine_in_stairs(least, at):
    """The released schedule, an epoch a stair; a rate that ends where it began is constant."""
    rates = rates_of(Plan(EpisodeShape(1, 1, 1), total=1_000, min_rate=least))
    for place, expected in at.items():
        np.testing.assert_allclose(rates[place], expected, rtol=1e-3)  # the published digits


@pytest.mark.parametrize("total", [40, 400, 750, 1_000, 1_001])
def test_cosine_falls_to_its_end_whatever_the_number_of_steps(total):
    """No jump, no plateau at the end: 750 steps of epochs of 500 had their last third at the end value, 400 never annealed."""
    rates = rates_of(Plan(EpisodeShape(1, 1, 1), total=total, epoch=500, rate=1.0, min_rate=0.0))
    fraction = np.floor(np.arange(total) * 100 / total) / 100
    np.testing.assert_allclose(rates, (1 + np.cos(np.pi * fraction)) / 2, atol=1e-7)
    assert rates[-1] < 0.01 and np.abs(np.diff(rates)).max() < 2.6 / min(total, 100)


def test_validations_do_not_change_the_stairs():
    recipe = resolve(Recipe.of(data="sinusoid", method="maml_pp", epoch=50_000))
    assert domain_of(recipe).plan(recipe).stairs == 100


@pytest.mark.parametrize("rate", [1e-4, 1e-2])
def test_a_rate_alone_is_constant_and_a_second_one_is_not_above_it(rate):
    np.testing.assert_allclose(rates_of(Plan(EpisodeShape(1, 1, 1), total=5, rate=rate)), rate, rtol=1e-6)
    with pytest.raises(RecipeError, match="min_rate is 1.0; the rate falls to it"):
        Plan(EpisodeShape(1, 1, 1), total=5, rate=rate, min_rate=1.0).optimizer()


def test_as_many_stairs_as_steps_are_counted_beyond_32_bits():
    at = optimizer.annealed(1.0, 0.0, 50_000, 50_000)
    places = jnp.array([0, 25_000, 42_950, 49_999], jnp.int32)
    np.testing.assert_allclose(at(places), (1 + np.cos(np.pi * np.asarray(places) / 50_000)) / 2, atol=1e-3)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_weight_decay_leaves_norms_and_biases(steps, key):
    net = Conv4(way=2, image=4, channels=1, filters=2, stages=2, norm_steps=steps)
    found = optimizer.kernels(jax.eval_shape(L2F(net).init, key))
    names = [name for name, shrunk in zip(trees.names(found), jax.tree.leaves(found), strict=True) if shrunk]
    assert names == ["weights/conv0/weight", "weights/conv1/weight", "weights/head/weight"]
