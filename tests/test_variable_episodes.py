"""Episodes of any number of classes and examples: published formulas, what is drawn how often, padding that changes nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax.data.ahead import Ahead, prefetched
from lethax.data.buckets import QUERY, SUPPORT, PaddedEpisodes, PaddedExamples, bucket, episodes_of, padded
from lethax.data.store import Store, open_store
from lethax.data.variable_episodes import BENCHMARK, EpisodeRules, Pool, VariableEpisodes, pool, shots_and_query, some
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, RecipeError
from lethax.methods import build
from lethax.nets import Conv4
from lethax.objectives import CrossEntropy, VariableCrossEntropy
from lethax.records import Episode, Split

RULES = BENCHMARK


def flat(counts: list[int], name: str = "a", groups: list[list[int]] | None = None, whole: bool = False) -> Pool:
    starts = np.cumsum([0, *counts])
    return Pool(name, starts, np.array(counts), tuple(map(np.array, groups or [])), whole)


@pytest.mark.parametrize("beta, support, shots", [
    (0.0, 5, [1, 1, 1, 1, 1]), (0.03, 11, [1, 2, 4, 1, 1]), (0.5, 141, [6, 25, 77, 11, 20]), (0.999, 273, [10, 49, 150, 21, 39]),
])  # fmt: skip
def test_golden_numbers(beta: float, support: int, shots: list[int]) -> None:
    """Made independently of this code; of the sum of `shots`, `support` is the bound."""
    found, query = shots_and_query(np.array([20, 60, 500, 33, 100]), beta, np.array([0, 0.5, -0.5, 0.25, -0.25]), RULES)
    assert query == 10 and found.tolist() == shots and found.sum() <= support


def test_an_episode_depends_on_its_number_alone() -> None:
    pools = [flat([30] * 12, "a"), flat([25] * 9, "b")]
    first, other = VariableEpisodes(pools), VariableEpisodes(pools)
    numbers = [0, 5, 3, 5, 10**9]
    before = {n: first.draw(n) for n in numbers}
    for n in reversed(numbers):
        again = other.draw(n)
        jax.tree.map(np.testing.assert_array_equal, again, before[n])
        jax.tree.map(np.testing.assert_array_equal, other.sizes(n), again.sizes)
    assert len({tuple(one.support.tolist()) for one in before.values()}) == 4
    for changed in (VariableEpisodes(pools, seed=1), VariableEpisodes([flat([30] * 12, "c"), pools[1]])):
        assert any(changed.draw(n).support.tolist() != before[n].support.tolist() for n in numbers)


def test_the_numbers_of_a_seed_stay() -> None:
    """Results of a seed are compared over years: a change of these numbers is one for the changelog."""
    drawn = VariableEpisodes([flat([30, 40, 50, 25, 60, 33, 20, 100], "a")], seed=7).draw(3)
    assert drawn.sizes.classes.tolist() == [2, 4, 6, 1, 7] and drawn.sizes.shots.tolist() == [40, 15, 7, 13, 51]
    assert drawn.support[:8].tolist() == [84, 112, 108, 76, 85, 78, 79, 83] and drawn.queries[-4:].tolist() == [
        340,
        298,
        303,
        262,
    ]


def test_examples_are_of_their_classes_and_met_once() -> None:
    pools = [
        flat([4, 30, 7, 600, 12, 90], "a"),
        flat([20] * 80, "b", [list(range(i, i + 16)) for i in range(0, 80, 16)]),
    ]
    stream = VariableEpisodes(pools)
    for number in range(300):
        sizes, support, queries = stream.draw(number)
        one = pools[sizes.source]
        way, counts = len(sizes.classes), one.counts[sizes.classes]
        assert len(set(sizes.classes.tolist())) == way and 5 <= way <= (6, 16)[sizes.source]
        assert sizes.query == min(10, counts.min() // 2)
        assert (sizes.shots >= 1).all() and (sizes.shots + sizes.query <= counts).all() and sizes.shots.sum() <= 500
        for rows, each in ((support, sizes.shots), (queries, [sizes.query] * way)):
            found = np.searchsorted(one.starts, rows, side="right") - 1
            np.testing.assert_array_equal(found, np.repeat(sizes.classes, each))
        assert len(np.unique(np.concatenate([support, queries]))) == len(support) + len(queries)
        if sizes.source == 1:
            assert len(set((sizes.classes // 16).tolist())) == 1, "of one alphabet"


def often(values: list[int], wanted: dict[int, float]) -> None:
    """Each value comes as often as it should, within four deviations."""
    n = len(values)
    assert set(values) <= set(wanted)
    for value, share in wanted.items():
        assert abs(values.count(value) - n * share) < 4 * np.sqrt(n * share * (1 - share)) + 1e-9, value


def test_how_often() -> None:
    pools = [flat([20] * 60, "flat"), flat([20] * 12, "alphabets", [list(range(5)), list(range(5, 12))])]
    graph = [[0, 1, 2, 3], [0, 1, 2, 3, 4], list(range(5, 65)), list(range(400))]
    stream = VariableEpisodes([*pools, flat([20] * 400, "graph", graph, True)])
    drawn = [stream.sizes(number) for number in range(6000)]
    often([one.source for one in drawn], dict.fromkeys(range(3), 1 / 3))
    ways = [[len(one.classes) for one in drawn if one.source == source] for source in range(3)]
    often(ways[0], {way: 1 / 46 for way in range(5, 51)})
    often(ways[1], {5: 1 / 2 + 1 / 6, 6: 1 / 6, 7: 1 / 6})
    often(ways[2], {5: 1 / 2, 50: 1 / 2})  # the node of 4 leaves is too small, and that of 400 too large
    often([one.classes[0] for one in drawn if one.source == 0], dict.fromkeys(range(60), 1 / 60))
    often(
        [int(one.classes[3]) for one in drawn if one.source == 2 and len(one.classes) == 50],
        dict.fromkeys(range(5, 65), 1 / 60),
    )


def test_support_sizes_and_imbalance() -> None:
    """Of five equal classes: S is uniform, the mean of k_c grows with beta, and no class is favoured."""
    stream = VariableEpisodes([flat([1000] * 5)])
    shots = np.stack([stream.sizes(n).shots[np.argsort(stream.sizes(n).classes)] for n in range(3000)])
    total = shots.sum(1)
    assert abs(total.mean() - 250) < 4 * 144 / np.sqrt(3000) + 5 and total.min() < 15 and 490 < total.max() <= 500
    np.testing.assert_allclose(shots.mean(0), total.mean() / 5, rtol=0.05)
    ratios = shots[total > 300].max(1) / shots[total > 300].min(1)
    assert 3 < ratios.max() < 4.3, "weights from one half to two"


def test_fixed_shapes() -> None:
    pools = [
        flat([30] * 12, "a", [list(range(8)), list(range(8, 12))]),
        flat([30] * 70, "b", [list(range(60)), [1, 2]], True),
    ]
    for number in range(60):
        sizes, support, queries = VariableEpisodes(pools, EpisodeRules(way=5, shot=3, query=7)).draw(number)
        assert len(sizes.classes) == 5 and sizes.shots.tolist() == [3] * 5 and len(support) == 15 and len(queries) == 35
        assert sizes.source == 1 or sizes.classes.max() < 8, "only groups of five classes or more"
    assert all(len(VariableEpisodes(pools, EpisodeRules(way=5)).sizes(n).shots) == 5 for n in range(20))
    assert all(set(VariableEpisodes(pools, EpisodeRules(shot=2)).sizes(n).shots) == {2} for n in range(20))


@pytest.mark.parametrize("pools, rules, says", [
    ([flat([20] * 4)], RULES, "a has 4 classes; an episode needs 5"),
    ([flat([20] * 9, groups=[[0, 1, 2, 3], [4, 5, 6, 7, 8]])], EpisodeRules(way=6), "needs 6 that belong together"),
    ([flat([20] * 9), flat([20, 20, 1, 20, 20], "b")], RULES, "class 2 of b has 1 example; .* 1 of it and at least 1"),
    ([flat([20] * 9)], EpisodeRules(shot=11), "class 0 of a has 20 examples; an episode takes 11 of it"),
    ([flat([20] * 9)], EpisodeRules(query=20), "an episode takes 1 of it and 20 as queries"),
    ([Pool("a", np.arange(6) * 100, np.full(5, 9000))], RULES, "only 100 examples are there; episodes may take 510"),
])  # fmt: skip
def test_what_no_episode_can_be_drawn_from(pools: list[Pool], rules: EpisodeRules, says: str) -> None:
    with pytest.raises(DataError, match=says):
        VariableEpisodes(pools, rules)


def test_rules_that_are_none() -> None:
    with pytest.raises(RecipeError, match="way of an episode is 0"):
        EpisodeRules(way=0)
    for wrong in ({"most_way": 4}, {"most_support": 49}):
        with pytest.raises(RecipeError, match="the first cannot be above the second"):
            EpisodeRules(**wrong)
    with pytest.raises(RecipeError, match="501 classes and 500 support examples at most, where each class needs one"):
        EpisodeRules(way=501)
    assert EpisodeRules(way=501, shot=1).way == 501


def test_some_is_uniform() -> None:
    random = np.random.Generator(np.random.Philox(0))
    pairs = [tuple(some(4, 2, random).tolist()) for _ in range(4000)]
    often([4 * a + b for a, b in pairs], {4 * a + b: 1 / 12 for a in range(4) for b in range(4) if a != b})
    assert sorted(some(50, 50, random).tolist()) == list(range(50))


def made(root: Path, relations: dict | None, above: str = "") -> Store:
    with StoreWriter(root, "own", mean=(0.5,), std=(0.5,), source={}) as writer:
        listed = [(f"c{c}", above and f"{above}{c // 5}", 4 + c) for c in range(10)]
        out = writer.split("train", (2, 2, 1), listed, relations)
        out[:] = np.arange(len(out))[:, None, None, None]
    return open_store("own", root)


def test_pools_of_stores(tmp_path: Path) -> None:
    plain = pool(made(tmp_path, None, "g"), "train")
    assert plain.groups == () and plain.counts.tolist() == list(range(4, 14)) and plain.name == "own/train"
    within = pool(made(tmp_path, {"within": "superclasses", "counts": [600] * 10}, "g"), "train")
    assert [group.tolist() for group in within.groups] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] and not within.whole
    assert within.counts.tolist() == [600] * 10
    graph = pool(made(tmp_path, {"groups": {"n1": [3, 4], "n2": [0, 9]}}), "train")
    assert graph.whole and [group.tolist() for group in graph.groups] == [[3, 4], [0, 9]]
    with pytest.raises(DataError, match="own has no test split, only train"):
        pool(open_store("own", tmp_path), "test")


@pytest.mark.parametrize("relations", [
    {"counts": [1] * 10}, {"counts": [20] * 9}, {"counts": ["x"] * 10}, {"groups": {"n": [10]}}, {"groups": {"n": [1, 1]}},
    {"groups": {"n": [[1]]}}, {"groups": [1]}, {"groups": {"n": 3}}, {"counts": [1 << 70] * 10},
])  # fmt: skip
def test_damaged_relations(relations: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the manifest of own/train is damaged.*prepare own again"):
        pool(made(tmp_path, json.loads(json.dumps(relations))), "train")


def test_padded_arrays(tmp_path: Path) -> None:
    store = made(tmp_path, None)
    stream = VariableEpisodes([pool(store, "train")])
    drawn = [stream.draw(n) for n in range(3)]
    found = padded(drawn, [store.splits["train"]])
    for i, (sizes, support, queries) in enumerate(drawn):
        of_support, of_query = (
            (found.support, support, sizes.shots, SUPPORT),
            (found.query, queries, sizes.query, QUERY),
        )
        for part, rows, each, allowed in (of_support, of_query):
            n, size = len(rows), part.mask.shape[1]
            assert size in allowed and part.pixels.shape == (3, size, 2, 2, 1)
            assert part.mask[i].tolist() == [1.0] * n + [0.0] * (size - n)
            assert part.pixels[i, :n, 0, 0, 0].tolist() == rows.tolist() and not part.pixels[i, n:].any()
            assert part.labels[i, :n].tolist() == np.repeat(np.arange(len(sizes.classes)), each).tolist()
            assert not part.labels[i, n:].any()
    assert [bucket(n, QUERY) for n in (1, 100, 101, 500, 501)] == [100, 100, 200, 500, 501]
    assert max(SUPPORT) == RULES.most_support == RULES.most_way * RULES.most_query


def test_prefetching() -> None:
    assert list(prefetched(range(7), ahead=3)) == list(range(7)) and list(prefetched([])) == []

    def broken():  # noqa: ANN202
        yield 1
        raise DataError("of the disk")

    items = prefetched(broken(), ahead=4)
    assert next(items) == 1
    with pytest.raises(DataError, match="of the disk"):
        next(items)
    made: list[int] = []
    endless = prefetched(made.append(i) or i for i in range(10**9))  # type: ignore[func-returns-value]
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]
    assert len(made) < 9, "what is not used is not made"


def test_padding_changes_neither_loss_nor_meta_gradient(x64: None) -> None:
    """MAML of second order: three classes in a head of five and padded arrays, and in a head of three and arrays as they are."""
    random = np.random.default_rng(0)
    labels = {"support": [0, 0, 1, 2, 2, 2], "query": [0, 1, 2]}
    parts = {}
    for name, ys in labels.items():
        pixels = np.zeros((1, 9, 8, 8, 1), np.uint8)
        pixels[0, : len(ys)] = random.integers(0, 256, (len(ys), 8, 8, 1))
        padding = [0] * (9 - len(ys))
        parts[name] = PaddedExamples(
            pixels, np.array([ys + padding], np.int32), np.array([[1.0] * len(ys) + padding], np.float32)
        )

    def learner(way: int, objective: CrossEntropy):  # noqa: ANN202
        net = Conv4(way, 8, 1, 3, stages=2)
        return build("maml", net, rate=0.1, attenuator={}, objective=objective, steps=2, norm="support")

    wide, narrow = learner(5, VariableCrossEntropy()), learner(3, CrossEntropy())
    meta = jax.jit(wide.init)(jax.random.key(0))
    (head,) = (name for name, heads in wide.net.head(meta["weights"]).items() if any(jax.tree.leaves(heads)))

    def first(weights: dict) -> dict:
        return {**weights, head: jax.tree.map(lambda leaf: leaf[..., :3], weights[head])}

    @jax.jit
    def program(meta: dict, found: PaddedEpisodes):  # noqa: ANN202
        episode = jax.tree.map(lambda leaf: leaf[0], episodes_of(found, (0.5,), (0.5,)))
        (n, m) = (len(ys) for ys in labels.values())
        plain = Episode(
            Split(episode.support.x[:n], episode.support.y[:n]), Split(episode.query.x[:m], episode.query.y[:m])
        )
        of = lambda one, meta, episode: jax.value_and_grad(one.loss, has_aux=True)(meta, episode)  # noqa: E731
        return of(wide, meta, episode), of(narrow, {**meta, "weights": first(meta["weights"])}, plain)

    ((loss, info), grads), ((expected, plain), others) = program(meta, PaddedEpisodes(parts["support"], parts["query"]))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_array_equal(info["score"], plain["score"])
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)  # noqa: E731
    jax.tree.map(near, first(grads["weights"]), others["weights"])
    assert all(not jnp.any(leaf[..., 3:]) for leaf in jax.tree.leaves(grads["weights"][head])), (
        "nobody asks for the others"
    )


def test_outputs_of_absent_classes_do_not_count() -> None:
    logits, labels = jnp.array([[1.0, 2.0, 90.0], [3.0, 0.5, jnp.nan]]), jnp.array([1, 0])
    objective, plain = VariableCrossEntropy(), CrossEntropy()
    np.testing.assert_allclose(objective.loss(logits, labels), plain.loss(logits[:, :2], labels))
    assert objective.score(logits, labels) == 1.0


def test_a_stream_that_failed_begins_anew() -> None:
    """What could not be read is said each time that it is asked for, and is there when it can be read again."""
    broken = [True]

    def numbers(stream: str, first: int, count: int) -> Iterator[int]:
        while True:
            if broken[0] and first >= 2:
                raise OSError("gone")
            yield first
            first += count

    ahead = Ahead(numbers)
    assert [ahead.take("a", 0, 1), ahead.take("a", 1, 1)] == [0, 1]
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            ahead.take("a", 2, 1)
    broken[0] = False
    assert ahead.take("a", 2, 1) == 2
