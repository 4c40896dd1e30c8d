"""Native kernels compute what XLA computes, on every kind of processor, and are done without where they cannot be had."""

import logging
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lethax import hardware, native
from lethax.nets import convolution, layers

needs_compiler = pytest.mark.skipif(
    not native.wanted() or hardware.compiler() is None, reason="no native kernels here: no C++ compiler was found"
)
x86 = hardware.processor().kind == "x86_64"
BUILDS = {"this processor": (), "AVX2": ("-mno-avx512f",), "SSE": ("-mno-avx",)} if x86 else {"this processor": ()}
# Pictures, rows, columns, inputs, outputs, sides of the kernel. A block has up to 6 positions, 64 inputs and 4 vectors of outputs.
SHAPES = [
    (3, 7, 5, 3, 48, 3, 3), (2, 4, 4, 70, 16, 3, 3), (5, 1, 1, 16, 80, 3, 3), (2, 2, 3, 130, 32, 5, 5), (1, 3, 300, 16, 16, 3, 3),
    (4, 20, 20, 16, 144, 1, 1), (30, 5, 5, 64, 64, 3, 3), (2, 9, 8, 16, 16, 3, 5), (1, 70, 2, 5, 16, 7, 1),
]  # fmt: skip


@pytest.fixture(scope="module", params=BUILDS)
def kernels(request, tmp_path_factory):
    """The conv and the correlation of a build, as functions."""
    name = f"test-{request.param.replace(' ', '-')}"
    suffix = native.register(native.build(tmp_path_factory.mktemp("native") / f"{name}.so", *BUILDS[request.param]))

    def conv(x, kernel, outputs, turned=False, devices=1):
        made = jax.ShapeDtypeStruct((*x.shape[:3], outputs), jnp.float32)
        call = jax.ffi.ffi_call(f"lethax_conv_{suffix}", made)
        return call(x, kernel, turned=np.bool_(turned), devices=np.int64(devices))

    def correlation(x, g, sides, devices=1):
        made = jax.ShapeDtypeStruct((*sides, x.shape[-1], g.shape[-1]), jnp.float32)
        return jax.ffi.ffi_call(f"lethax_correlation_{suffix}", made)(x, g, devices=np.int64(devices))

    return conv, correlation


def by_hand(x, kernel):
    """The convolution in float64, one entry of the kernel at a time."""
    (kh, kw), (rows, columns) = kernel.shape[:2], x.shape[1:3]
    padded = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    return sum(padded[:, a : a + rows, b : b + columns] @ kernel[a, b] for a in range(kh) for b in range(kw))


def close(found, expected):
    return np.abs(np.asarray(found) - expected).max() < 1e-5 * np.abs(expected).max()


@needs_compiler
@pytest.mark.parametrize("n,h,w,inputs,outputs,kh,kw", SHAPES)
def test_each_kernel_computes_its_formula(kernels, n, h, w, inputs, outputs, kh, kw):
    conv, correlation = kernels
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(n, h, w, inputs)), random.normal(size=(kh, kw, inputs, outputs))
    g = random.normal(size=(n, h, w, outputs))
    x32, kernel32, g32 = (jnp.asarray(a, jnp.float32) for a in (x, kernel, g))
    assert close(conv(x32, kernel32, outputs), by_hand(x, kernel))
    around = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    windows = np.array([[around[:, a : a + h, b : b + w] for b in range(kw)] for a in range(kh)])
    assert close(correlation(x32, g32, (kh, kw)), np.einsum("abnrsi,nrso->abio", windows, g, optimize=True))
    # A kernel turned is told by its own transpose: outputs become inputs, in whole vectors here.
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    assert close(conv(x32, jnp.asarray(turned, jnp.float32), outputs, turned=True), by_hand(x, kernel))


@needs_compiler
def test_threads_change_no_bit(kernels):
    conv, correlation = kernels
    random = np.random.default_rng(1)
    x, kernel, g = (
        random.normal(size=s).astype(np.float32) for s in ((9, 20, 20, 32), (3, 3, 32, 32), (9, 20, 20, 32))
    )
    one, several = (np.asarray(conv(x, kernel, 32, devices=devices)) for devices in (8, 1))
    np.testing.assert_array_equal(one, several)
    one, several = (np.asarray(correlation(x, g, (3, 3), devices=devices)) for devices in (8, 1))
    np.testing.assert_array_equal(one, several)


def curvature(conv):
    """Second derivatives of two convolutions: all three operations, and the derivatives of each."""

    def loss(x, kernel):
        return jnp.sum(jnp.tanh(conv(jnp.tanh(conv(x, kernel)), kernel)) ** 2)

    def gradients(x, kernel):
        return jax.grad(loss, (0, 1))(x, kernel)

    return jax.grad(lambda x, kernel: sum(jnp.vdot(a, jnp.cos(a)) for a in gradients(x, kernel)), (0, 1))


@needs_compiler
def test_derivatives_of_any_order_call_the_kernels_and_are_those_of_xla():
    random = np.random.default_rng(2)
    x, kernel = (jnp.asarray(random.normal(size=s), jnp.float32) for s in ((4, 6, 6, 16), (3, 3, 16, 16)))
    program = jax.jit(curvature(layers.conv)).lower(x, kernel / 12)
    for name in ("lethax_conv_", "lethax_correlation_"):
        assert name in program.as_text()
    ours = program.compile()(x, kernel / 12)
    with native.off():
        plain = jax.jit(curvature(layers.conv)).lower(x, kernel / 12)
        assert "lethax_" not in plain.as_text()
        theirs = plain.compile()(x, kernel / 12)
    for found, expected in zip(ours, theirs, strict=True):
        assert jnp.abs(found - expected).max() < 1e-4 * jnp.abs(expected).max()


@needs_compiler
@pytest.mark.parametrize(
    "shape,outputs,dtype",
    [((2, 5, 5, 16), 20, jnp.float32), ((2, 5, 5, 16), 16, jnp.bfloat16), ((2, 5, 0, 16), 16, jnp.float32),
     ((0, 5, 5, 16), 16, jnp.float32), ((2, 5, 5, 0), 16, jnp.float32)],
    ids=["half a vector", "another type", "no columns", "no pictures", "no inputs"],
)  # fmt: skip
def test_what_kernels_do_not_take_is_left_to_xla(shape, outputs, dtype):
    x, kernel = jnp.ones(shape, dtype), jnp.ones((3, 3, shape[-1], outputs), dtype)
    program = jax.jit(convolution.conv).lower(x, kernel)
    assert "lethax_" not in program.as_text()
    theirs = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_array_equal(program.compile()(x, kernel), theirs)


def test_a_build_is_of_one_processor(tmp_path, monkeypatch):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path))
    place = native._place()
    assert place.parent == tmp_path / "native" and place == native._place()
    monkeypatch.setattr(hardware, "instructions", lambda: "model name: another")
    assert native._place() != place


@pytest.fixture
def anew(monkeypatch):
    """Forget what was built and said, during a test and after it."""
    native._registered.cache_clear()
    jax.clear_caches()
    yield
    native._registered.cache_clear()
    jax.clear_caches()


def computed(caplog):
    """A convolution by XLA, and what was said."""
    x, kernel = jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 16, 16))
    with caplog.at_level(logging.WARNING, "lethax"):
        program = jax.jit(lambda x: convolution.conv(convolution.conv(x, kernel), kernel)).lower(x)
    assert "lethax_" not in program.as_text()
    assert float(program.compile()(x)[0, 1, 1, 0]) > 0
    return [record.getMessage() for record in caplog.records]


def fake(folder, text):
    """A compiler that does what `text` says."""
    path = folder / "c++"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


linux = pytest.mark.skipif(not native.wanted(), reason="native kernels are for Linux")
BUT = "Training on images takes longer here, because the native kernels are missing: "
SO = " The results are the same to rounding. To leave this message out, set LETHAX_NATIVE=0."


@linux
def test_without_a_compiler_xla_computes_and_one_sentence_says_so(anew, caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path))
    monkeypatch.setattr(hardware, "compiler", lambda: None)
    assert native.state() == "none"
    assert computed(caplog) == [f"{BUT}no C++ compiler was found; install one, such as g++.{SO}"]


@linux
@pytest.mark.parametrize(
    "does,said",
    [
        ("echo a note >&2; echo 'x.cc:1: error: what is this' >&2; exit 1", "cannot build them (x.cc:1: error: what is this)."),
        ("exit 1", "cannot build them (it said nothing)."),
        ("exit 0", "made nothing (No such file or directory)."),
        ('for last; do :; done; echo rubbish > "$last"', "what the compiler made cannot be loaded"),
    ],
    ids=["fails", "fails silently", "makes nothing", "makes rubbish"],
)  # fmt: skip
def test_a_compiler_that_fails_is_started_once_and_leaves_nothing(anew, caplog, monkeypatch, tmp_path, does, said):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    tries = tmp_path / "tries"
    compiler = fake(tmp_path, f"echo >> {tries}; {does}")
    monkeypatch.setattr(hardware, "compiler", lambda: compiler)
    assert native.state() == "to be built"
    (sentence,) = computed(caplog)
    assert sentence.startswith(BUT) and said in sentence
    assert not list((tmp_path / "cache").rglob("*.so"))
    assert tries.read_text() == "\n"  # not once for each convolution


@linux
def test_a_compiler_that_does_not_end_is_stopped(anew, caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    compiler = fake(tmp_path, "exec sleep 100")
    monkeypatch.setattr(hardware, "compiler", lambda: compiler)
    monkeypatch.setattr(native, "_SECONDS", 0.2)
    assert computed(caplog) == [f"{BUT}the compiler {compiler} did not end within 0.2 seconds.{SO}"]


@linux
def test_a_cache_that_cannot_be_written_is_named(anew, caplog, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "file"))
    compiler = fake(tmp_path, 'for last; do :; done; echo > "$last"')
    monkeypatch.setattr(hardware, "compiler", lambda: compiler)
    (said,) = computed(caplog)
    assert "cannot be written" in said and str(tmp_path / "file") in said


@needs_compiler
@pytest.mark.parametrize("left", [0, 20, 5000])
def test_a_damaged_build_is_made_again_and_a_whole_one_needs_no_compiler(anew, monkeypatch, tmp_path, left):
    assert native.target("conv")  # builds it in the cache of this machine
    whole = native._place().read_bytes()
    native._registered.cache_clear()
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path))
    monkeypatch.setattr(hardware, "instructions", lambda: f"a processor of this test, {left}")  # a name of its own
    monkeypatch.setattr(native, "_compiled", lambda compiler, content=whole: content[: -native._DIGEST])
    place = native._place()
    place.parent.mkdir()
    place.write_bytes(bytes(left))
    assert native.state() == "to be built"
    name = native.target("conv")
    assert name == f"lethax_conv_{place.stem}" and native.state() == "built"
    native._registered.cache_clear()
    monkeypatch.setattr(hardware, "compiler", lambda: None)
    assert native.target("conv") == name


def test_kernels_can_be_declined(anew, caplog, monkeypatch):
    monkeypatch.setenv("LETHAX_NATIVE", "0")
    assert native.state() == "declined" and computed(caplog) == []
