"""Fixtures of all tests. Nothing here or below needs a network, a GPU, or data that the tests do not make."""

import gc
import importlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Compilation is most of the time of these tests; what they check does not depend on how hard the compiler tries.
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # its other emitters take a third of the time; JAX 0.12 has no such choice
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
    FLAGS.append(
        "--xla_cpu_parallel_codegen_split_count=1"
    )  # to divide a program for more threads takes a sixth of the time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])  # among equal flags the last one counts
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # a test has to meet the compiler, not an old result

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# The shapes and types of the numerical half are checked at every call, which is while a program is traced: compiled, they cost
# nothing. Elsewhere, arrays are keys and tables of NumPy.
CHECKED = [
    "baselines", "conjugate", "data.curves", "data.source", "devices", "evaluation", "gaussian", "inner", "learner", "meta_batch",
    "methods", "nets", "objectives", "optimizer", "outer", "precision", "pretrain", "records", "rl", "rules", "streams", "trees",
]  # fmt: skip
jaxtyping.install_import_hook([f"lethax.{name}" for name in CHECKED], "beartype.beartype")


def pytest_collection_finish() -> None:
    """Tracing makes very many objects that stay: to search them for garbage again and again takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    if hasattr(jax, "enable_x64"):
        context = jax.enable_x64(True)
    else:  # JAX before 0.8
        context = importlib.import_module("jax.experimental").enable_x64(True)
    with context:
        yield


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on pictures, and of pictures to adapt it to: see `pictures_run.make`."""
    import pictures_run

    return pictures_run.make(tmp_path_factory.mktemp("pictures"))
