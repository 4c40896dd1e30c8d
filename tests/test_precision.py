"""Precisions of a network's passes: every method takes them, the border is float32, and what they cost is bounded."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from pictures_run import draw
from safetensors.numpy import load_file
from test_methods import NET, smooth_episode

from lethax import cli, trees
from lethax.domains import domain_of
from lethax.errors import CheckpointError, RecipeError
from lethax.methods import METHODS, build
from lethax.nets import Conv4
from lethax.precision import passes
from lethax.recipe import Recipe
from lethax.recipe.resolve import resolve
from lethax.records import Episode, Split
from lethax.runs import estimate
from lethax.runs.adapted import load_adapted

IMAGES = Conv4(
    way=2, image=16, channels=1, filters=4, stages=1
)  # 256 positions: a kernel's gradient is summed over pictures


def picture_episode() -> Episode:
    random = np.random.RandomState(0)
    splits = [Split(random.randn(4, 16, 16, 1), np.repeat(np.arange(2), 2)) for _ in range(2)]
    return Episode(*splits)


def differentiated(name: str, net: Any, precision: str, **options: Any) -> tuple[Any, Any]:
    """The function (loss, meta-gradient) of meta-parameters and an episode, and its meta-parameters."""
    learner = build(name, net, rate=0.1, attenuator={}, **{"steps": 1, "precision": precision, **options})
    return jax.value_and_grad(lambda m, e: learner.loss(m, e)[0]), jax.jit(learner.init)(jax.random.key(0))


def of_jax(episode: Episode) -> Episode:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float if leaf.dtype.kind == "f" else int), episode)


def error(found: Any, exact: Any) -> float:
    """‖found − exact‖ / ‖exact‖."""
    return float(trees.norm(jax.tree.map(jnp.subtract, found, exact)) / trees.norm(exact))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "maml+l2f"])
def test_the_border_of_every_method_is_float32_and_inside_is_bfloat16(name: str) -> None:
    function, meta = differentiated(name, NET, "bfloat16")
    program, (loss, grads) = jax.make_jaxpr(function, return_shape=True)(meta, of_jax(smooth_episode()))
    assert {leaf.dtype.name for leaf in (loss, *jax.tree.leaves(grads))} == {"float32"}
    products = set(re.findall(r":(\w+)\[\d+,\d+\] = dot_general", str(program)))
    assert "bf16" in products
    # Those of the attenuator, of ALFA's rule and of the correlations in LEO's outer loss are none of the net.
    assert "f32" not in products or any(part in name for part in ("l2f", "alfa", "leo"))


@pytest.mark.parametrize(
    ("name", "net", "options"),
    [
        ("l2f", NET, {}),
        ("leo+l2f", NET, {}),
        ("imaml", NET, {}),
        ("l2f", IMAGES, {}),
        ("mumomaml", IMAGES, {"head": "prototypes", "norm": "support", "loop": "scan"}),
    ],
)
def test_the_meta_gradient_in_bfloat16_is_near_that_in_float32(name: str, net: Any, options: dict[str, Any]) -> None:
    episode = of_jax(picture_episode() if net is IMAGES else smooth_episode())
    (_, exact), (loss, found) = (
        jax.jit(function)(meta, episode)
        for function, meta in (differentiated(name, net, precision, **options) for precision in ("float32", "bfloat16"))
    )
    assert np.isfinite(loss)
    assert 1e-4 < error(found, exact) < 0.2  # of 8 bits, not of 24


@pytest.mark.parametrize(("precision", "asked"), [("tf32", "HIGH"), ("float32", "HIGHEST")])
def test_every_product_asks_for_its_precision(precision: str, asked: str) -> None:
    """Those of derivatives too, which are lowered later. On a CPU no number changes: it is seen in the program alone."""
    net = Conv4(
        way=2, image=8, channels=1, filters=4, stages=1
    )  # few positions: larger ones have a form for CPUs alone
    weights, x = net.init(jax.random.key(0)), jnp.ones((2, 8, 8, 1))
    gradient = jax.grad(lambda w: jnp.sum(passes(net.apply, precision)(w, x)))
    said = jax.jit(lambda w: jax.jvp(gradient, (w,), (w,))[1]).lower(weights).as_text()
    assert set(re.findall(r"HIGH\w*|DEFAULT", said)) == {asked}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("navigation --precision tf32", "net.precision is tf32; data 'navigation' does not have that choice"),
        ("sinusoid --precision half", "--precision"),
    ],
)
def test_what_cannot_be_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *words.split(), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_float64_and_a_narrow_precision_are_refused(x64: None) -> None:
    recipe = resolve(Recipe.of(data="sinusoid", precision="bfloat16"))
    with pytest.raises(RecipeError, match="net.precision is bfloat16, but JAX_ENABLE_X64=1 asks for float64"):
        domain_of(recipe).learner(recipe)


def test_a_dry_run_takes_the_memory_of_the_precision() -> None:
    """Where a net is large for its weights, half the bytes of what is kept; the CPU's compiler widens some of it again."""
    parts = {
        "data": "sinusoid",
        "method": "maml",
        "inner_steps": 3,
        "filters": 40,
        "shot": 100,
        "query": 100,
        "steps": 1,
    }
    wide, narrow = (
        estimate.cost(resolve(Recipe.of(precision=name, **parts)), timed=False).memory
        for name in ("float32", "bfloat16")
    )
    assert narrow != wide


X64 = """
import sys
from lethax import cli

def run(*words):
    assert cli.main(list(words)) == 0, words

small = "--epoch 2 --val-episodes 2 --batch 1 --inner-steps 1".split()
pictures = ["glyphs", "--method", "l2f", "--way", "2", "--shot", "1", "--query", "1", "--filters", "4", *small]
run("data", "prepare", "glyphs")
run("train", *pictures, "--steps", "2", "--out", "parts")
run("train", "--resume", "parts", "--steps", "4")
run("train", *pictures, "--steps", "4", "--out", "whole")
run("evaluate", "whole", "--episodes", "2")
run("predict", "whole", "--support", "support", "--query", "support", "--save", "model.safetensors")
run("export", "--model", "model.safetensors", "-o", "model.stablehlo")
run("train", "sinusoid", *small, "--steps", "2", "--out", "curves")
control = "--shot 1 --batch 1 --epoch 1 --val-episodes 1 --control.horizon 3 --steps 1 --filters 4".split()
run("train", "navigation", *control, "--out", "control")
"""


def test_all_is_float64_where_jax_is(tmp_path: Path) -> None:
    """JAX's own variable: from training to a program that predicts, with the same bits after a resume."""
    for i, name in enumerate(["one", "two"]):
        draw(tmp_path / "support", name, i, 2)
    env = {**os.environ, "JAX_ENABLE_X64": "1", "LETHAX_DATA": str(tmp_path / "data"), "LETHAX_CACHE": str(tmp_path)}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "true"  # the same programs several times
    done = subprocess.run([sys.executable, "-c", X64], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = {name: tmp_path / name / "checkpoints" for name in ("parts", "whole", "curves", "control")}
    files = {name: max(folder.glob("step-*.safetensors")) for name, folder in ends.items()}
    kept = {name: load_file(path) for name, path in files.items()}
    floats = [a.dtype for arrays in kept.values() for a in arrays.values() if a.dtype.kind == "f"]
    assert floats and set(floats) == {np.dtype(np.float64)}
    assert files["parts"].read_bytes() == files["whole"].read_bytes()
    program = export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    assert [aval.dtype.name for aval in program.out_avals] == [
        "float32"
    ]  # what it says of itself, and what any process takes
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 5
    with pytest.raises(CheckpointError, match="is float64: it was trained with JAX_ENABLE_X64=1"):
        load_adapted(tmp_path / "model.safetensors")
