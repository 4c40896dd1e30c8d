"""Meta-Dataset as a domain: training on miniature sources, resuming, a column for each test source, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_folders import stated

from lethax import checkpoint, cli, meta_batch, outer, reproduce
from lethax.data.buckets import QUERY, SUPPORT
from lethax.data.writer import StoreWriter
from lethax.domains import domain_of
from lethax.errors import DataError, RecipeError
from lethax.files import write_atomic
from lethax.meta_batch import episode_keys
from lethax.recipe import Recipe
from lethax.recipe.resolve import fit, resolve
from lethax.records import Episode, EpisodeShape, Split
from lethax.report import cells, columns
from lethax.runs import making, training
from lethax.runs.evaluation import evaluate_run
from lethax.runs.folder import checkpoints, open_run

SPLITS = {"omniglot": ("train", "val", "test"), "aircraft": ("train", "val", "test"), "traffic_sign": ("test",)}
ANY = EpisodeShape(0, 0, 0)  # which episodes of any shape do not read
SMALL = {"filters": 3, "inner_steps": 1, "val_episodes": 2, "epoch": 3, "steps": 6, "weight_decay": 1e-4}


def write_source(root: Path, source: str, image: int = 16) -> None:
    """A source of six classes of four pictures each, whose colours say the class, with noise."""
    random = np.random.default_rng(len(source))
    name = f"metadataset-{source}"
    with StoreWriter(root, name, mean=(0.5,) * 3, std=(0.5,) * 3, source={"kind": "metadataset"}) as writer:
        for split in SPLITS[source]:
            array = writer.split(split, (image, image, 3), [(f"{split}{i}", "", 4) for i in range(6)])
            colours = np.repeat(random.integers(0, 200, (6, 1, 1, 3)), 4, axis=0)
            array[:] = colours + random.integers(0, 50, array.shape)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for source in SPLITS:
        write_source(root, source)
    return root


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("LETHAX_DATA", str(root))


def recipe_of(**values):
    return fit(Recipe.of(**{"data": "metadataset", "method": "maml", **SMALL, **values}))[0]


def trained(folder: Path, **values):
    run = making.create(recipe_of(**values), folder)
    for _ in training.train(run):
        pass
    return run


def state_of(run):
    fresh = training.Recorder(run, run.learner(), run.plan()).fresh
    return fresh, checkpoint.newest(checkpoints(run), fresh)[0]


@pytest.fixture(scope="module")
def l2f(tmp_path_factory: pytest.TempPathFactory, root: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHAX_DATA", str(root))
        return trained(tmp_path_factory.mktemp("runs") / "l2f", method="l2f")


def test_training_moves_the_weights(l2f) -> None:
    fresh, state = state_of(l2f)
    moved = [bool((a != b).any()) for a, b in zip(*(jax.tree.leaves(s.meta) for s in (fresh, state)), strict=True)]
    assert int(state.step) == 6 and sum(moved) > len(moved) / 2
    assert l2f.recipe.metadataset.train == "omniglot,aircraft" and l2f.recipe.inner.head == "prototypes"


def test_a_resumed_run_has_the_same_bits(l2f, tmp_path: Path) -> None:
    run = making.create(l2f.recipe, tmp_path / "run")
    statuses = training.train(run)
    for status in statuses:
        if status.step == 2:
            statuses.close()
            break
    for _ in training.train(open_run(tmp_path / "run")):
        pass
    again, whole = state_of(run)[1], state_of(l2f)[1]
    assert all(
        np.array_equal(a, b) for a, b in zip(*(jax.tree.leaves((s.meta, s.optim)) for s in (again, whole)), strict=True)
    )


def test_a_column_for_each_test_source(l2f, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["evaluate", str(l2f.folder), "--episodes", "3", "--steps", "2", "--json"])
    records = json.loads(capsys.readouterr().out)
    assert [record["data"] for record in records] == [f"metadataset-{name}" for name in SPLITS]
    for record in records:
        scores = np.array(record["per_episode"])
        assert record["n"] == 3 and record["norm"] == "support" and len(record["by_inner_steps"]) == 3
        assert record["ci95"] == pytest.approx(1.96 * scores.std() / 3**0.5)
    assert len({record["episodes_hash"] for record in records}) == 3
    again = evaluate_run(l2f, episodes=3, ensemble=1, steps=1, seed=0, data="traffic_sign")
    assert again.record["per_episode"] == records[2]["per_episode"]
    part = evaluate_run(l2f, episodes=2, ensemble=1, steps=1, seed=0, split="val", data="omniglot").record
    assert (part["data"], part["split"]) == ("metadataset-omniglot", "val")
    fixed = evaluate_run(l2f, episodes=1, ensemble=1, steps=1, seed=0, data="aircraft", changed={"way": 3, "shot": 1})
    assert (fixed.record["way"], fixed.record["shot"]) == (3, 1)
    words = ["evaluate", str(l2f.folder), "--episodes", "2", "--steps", "1", "--data", "omniglot"]
    assert cli.main([*words, "--way", "0", "--shot", "0"]) == 0 and cli.main([*words, "--way", "1"]) == 2
    cli.main(["evaluate", str(l2f.folder), "--episodes", "2", "--steps", "1", "--split", "val", "--pictures"])
    shown = "".join(capsys.readouterr())
    assert "any-way any-shot" in shown and "metadataset-aircraft" in shown and "metadataset-traffic_sign" not in shown
    assert shown.count("-curve.png") == len(list((l2f.folder / "evaluations").glob("*-val-*-curve.png"))) >= 2


def test_programs_are_one_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program of a step is traced once for each pair of padded sizes, whatever the number of classes."""
    recipe = recipe_of(steps=25, val_episodes=1, inner_steps=0, head="prototypes")
    domain = domain_of(recipe)
    inputs, plan = domain.inputs(recipe), domain.plan(recipe)
    learner, (tasks, source) = domain.learner(recipe, inputs), domain.family(recipe, "train")
    shapes, state = set(), outer.begin(learner, plan, jax.random.key(0))
    before = meta_batch._step._cache_size()
    for number in range(25):
        arrays = tasks.fetch(source, ANY, state.key, number, 1, episode_keys)
        shapes.add((arrays.support.labels.shape, arrays.query.labels.shape))
    for _ in outer.fit(learner, state, tasks, source, plan):
        pass
    assert meta_batch._step._cache_size() - before == len(shapes) <= len(SUPPORT) * len(QUERY)


def test_episodes_follow_from_key_and_number_alone() -> None:
    recipe = recipe_of()
    tasks, source = domain_of(recipe).family(recipe, "train")
    key = jax.random.key(5)
    first = [tasks.fetch(source, ANY, key, n, 2, episode_keys) for n in (0, 2, 4)]
    for n, one in ((4, first[2]), (0, first[0]), (2, first[1])):
        jax.tree.map(np.testing.assert_array_equal, tasks.fetch(source, ANY, key, n, 2, episode_keys), one)
    single = tasks.fetch(source, ANY, key, 3, 1, episode_keys)
    count = int(single.support.mask.sum())
    assert np.array_equal(single.support.pixels[0, :count], first[1].support.pixels[1, :count])


@pytest.mark.parametrize("method, head", [("maml", "zero"), ("l2f", "vector"), ("l2f", "prototypes")])
def test_padding_changes_no_number(method: str, head: str) -> None:
    """Loss, score and meta-gradient of a padded episode are those of the episode without what pads it."""
    recipe = recipe_of(method=method, head=head)
    domain = domain_of(recipe)
    learner, (tasks, source) = domain.learner(recipe, domain.inputs(recipe)), domain.family(recipe, "train")
    key = jax.random.key(0)
    whole = jax.tree.map(lambda leaf: leaf[0], tasks.episodes(tasks.fetch(source, ANY, key, 0, 1, episode_keys)))
    counts = [int(part.mask.sum()) for part in whole]
    bare = Episode(*(Split(part.x[:n], part.y[:n]) for part, n in zip(whole, counts, strict=True)))
    meta = learner.init(jax.random.key(1))
    step = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))
    (loss, info), grads = step(meta, whole)
    (wanted, known), bare_grads = step(meta, bare)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4) and float(info["score"]) == pytest.approx(
        float(known["score"])
    )
    norm = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(bare_grads))
    for g, b in zip(jax.tree.leaves(grads), jax.tree.leaves(bare_grads), strict=True):
        np.testing.assert_allclose(g, b, atol=2e-4 * max(norm, 1.0))
    if method == "l2f":
        np.testing.assert_allclose(info["gates"], known["gates"], rtol=1e-4)
        read = np.abs(info["embedding"]).max()
        assert (read < 1e-6) == (head != "prototypes")  # what gates of a blind head read is rounding


def test_defaults_are_the_benchmarks() -> None:
    plain, gated = (resolve(Recipe.of(data="metadataset", method=method)) for method in ("maml", "l2f"))
    assert (plain.inner.head, gated.inner.head, plain.net.norm, plain.inner.order) == (
        "zero",
        "prototypes",
        "support",
        1,
    )
    assert (plain.episode.way, plain.episode.shot, plain.outer.batch, plain.outer.full_steps) == (0, 0, 1, 75_000)
    assert resolve(Recipe.of(data="metadataset", method="boil")).inner.head == "prototypes"
    assert resolve(Recipe.of(data="glyphs", method="boil")).inner.head == "trained"
    assert resolve(Recipe.of(data="metadataset", method="cavia")).inner.head == "trained"
    note = fit(Recipe.of(data="metadataset", method="l2f", head="zero"))[1]
    assert "training on omniglot, aircraft" in note and "gates are equal for all tasks" in note
    second = resolve(Recipe.of(data="metadataset", method="l2f", order=2, way=5, shot=2, norm="batch"))
    assert (second.inner.order, second.episode.way, second.net.norm) == (2, 5, "batch")


@pytest.mark.parametrize("values, error, message", [
    ({"metadataset_train": "omniglto"}, RecipeError, "'omniglto', which is no source.*Did you mean 'omniglot'"),
    ({"metadataset_train": "omniglot,omniglot"}, RecipeError, "names omniglot twice"),
    ({"metadataset_train": "fungi"}, DataError, "lethax data prepare metadataset-fungi"),
    ({"metadataset_train": "traffic_sign"}, DataError, "metadataset-traffic_sign has no training classes"),
    ({"way": 1}, RecipeError, "episode.way is 1; .*give 2, or 0 to draw it"),
    ({"way": -1}, RecipeError, "episode.way is -1; it has to be at least 1"),
    ({"way": 7}, DataError, "6 classes; an episode needs 7 that belong together: lower --way"),
    ({"shot": 4}, DataError, "has 4 examples; an episode takes 4 of it and at least 1 as queries: lower --shot"),
    ({"net": "mlp"}, RecipeError, "net 'mlp' does not fit data 'metadataset': it holds images"),
])  # fmt: skip
def test_what_cannot_be(values, error, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        making.create(recipe_of(**values), tmp_path / "run")


def test_without_a_source_it_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match="no source of Meta-Dataset with training classes is prepared. Make it with: lethax data"
    ):
        recipe_of()


def test_sources_of_several_sizes_are_named_before_anything_is_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = recipe_of()
    for source, image in (("omniglot", 16), ("aircraft", 8)):
        write_source(tmp_path, source, image)
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    said = r"omniglot has \(16, 16, 3\), metadataset-aircraft has \(8, 8, 3\)\): prepare them with one --image"
    with pytest.raises(DataError, match=said):
        recipe_of()
    assert recipe_of(metadataset_train="omniglot").metadataset.train == "omniglot"
    with pytest.raises(DataError, match=said):
        domain_of(recipe).columns(recipe, "test")


def test_ranks_are_shared_where_intervals_overlap() -> None:
    found = columns.ranks(
        {"a": {"x": (50.0, 1.0), "y": (9.0, 1.0)}, "b": {"x": (49.0, 1.0), "y": (20.0, 1.0)}, "c": {"x": (10.0, 1.0)}}
    )
    assert found == {"a": 1.5, "b": 1.5, "c": 3.0}  # y is not of all


def test_table_c_has_what_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column is judged, and the table says how the missing ones are made. Scores are given here, and none is computed."""
    judged = []
    monkeypatch.setattr(reproduce, "evaluate_run", lambda run, **options: judged.append(options["data"]))
    monkeypatch.setattr(reproduce, "write_evaluation", lambda result: None)
    found = reproduce.jobs(cells.find("table-c"), tmp_path / "runs", budget=1, steps=1, seeds=1)
    for number, job in enumerate(found):
        (job.open().folder / "evaluations").mkdir()
        stated(job.folder, 1)
        for name in SPLITS:
            scores = {"n": 2, "per_episode": [0.1 * number, 0.3], "by_inner_steps": [{}] * (job.judged_steps + 1)}
            record = {"data": name, "score": "accuracy", "checkpoints": [1], "episodes_hash": name, **scores}
            write_atomic(
                job.folder / "evaluations" / f"metadataset-{name}-test-seed0-n600-best1.json", json.dumps(record)
            )
    (found[0].folder / "evaluations" / "metadataset-aircraft-test-seed0-n600-best1.json").unlink()
    reproduce.judge(found[0], iter)
    assert judged == ["metadataset-aircraft"]
    text, paths = reproduce.write(found, "lethax reproduce table_c", tmp_path)
    rows = json.loads(paths[0].read_text())["cells"]
    assert [row["head"] for row in rows] == ["prototypes", "zero", "prototypes"]
    assert [len(row["columns"]) for row in rows] == [2, 3, 3] and rows[0]["trained_on"] == ["omniglot", "aircraft"]
    assert rows[1]["columns"]["omniglot"]["paired"]["mean"] == pytest.approx(5.0)
    assert rows[0]["published"]["omniglot"] == [72.26, 1.63] and "| fungi | not prepared | 20.20 ± 1.08 |" in text
    assert "Make it with: lethax data prepare metadataset-fungi" in text and "no reproduction" in text
