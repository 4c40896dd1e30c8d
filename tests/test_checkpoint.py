"""A checkpoint comes back bit for bit, and nothing else is taken for one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from lethax import checkpoint
from lethax.errors import CheckpointError, RunError


class State(NamedTuple):
    meta: dict[str, Any]
    slots: tuple[Any, ...]
    key: jax.Array


DTYPES = ("float32", "bfloat16", "float16", "int32", "int8", "uint32", "bool")


def state(seed: int = 0) -> State:
    raw = jax.random.bits(jax.random.key(seed), (2, 3), "uint32")
    meta = {name: (raw % 7).astype(name) for name in DTYPES} | {"scalar": jnp.float32(seed), "none": jnp.zeros((0, 3))}
    return State({"conv0": meta}, (jnp.arange(3), [jnp.ones(2)]), jax.random.split(jax.random.key(seed), 2))


def raw_bytes(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    data = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return str(leaf.dtype), tuple(leaf.shape), np.asarray(data).tobytes()


def same(a: Any, b: Any) -> bool:
    structures: list[Any] = [jax.tree.structure(a), jax.tree.structure(b)]
    return structures[0] == structures[1] and all(
        raw_bytes(x) == raw_bytes(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return checkpoint.path_of(tmp_path, "step", 1500)


def test_path_of(tmp_path: Path) -> None:
    assert checkpoint.path_of(tmp_path, "step", 1500) == tmp_path / "step-00001500.safetensors"


def test_files_of_other_names_are_not_ours(tmp_path: Path) -> None:
    """Names that anybody may have given: a copy, a number of other digits, a folder."""
    names = ["step-mine", "step-00000500-copy", "step-00000500 (1)", "step-500", "step-٠٠٠٠٠٥٠٠", "step--0000500"]
    for name in names:
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "step-00000700.safetensors").mkdir()
    paths = write_steps(tmp_path, 100_000_000, 5)
    assert checkpoint.numbered(tmp_path, "step") == {5: paths[1], 100_000_000: paths[0]}
    checkpoint.prune(tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == len(names) + 1
    assert checkpoint.numbered(tmp_path / "none", "best") == {}


def test_equal_states_are_equal_files(path: Path) -> None:
    """The library's own writer has the metadata in another order almost every time."""
    files = set()
    for _ in range(8):
        checkpoint.save(path, state(3), {"best": [[0.5, 10]]})
        files.add(path.read_bytes())
    assert len(files) == 1


def test_files_of_earlier_versions_are_read(path: Path) -> None:
    """The library wrote those."""
    arrays = {"a": np.arange(3, dtype=np.float32), "b": np.array(7, np.int32)}
    meta = {"format": "1", "info": '{"step": 3}', "sha256": checkpoint._digest(arrays, '{"step": 3}')}
    path.write_bytes(safetensors.numpy.save(arrays, meta))
    tree, info = checkpoint.load(path, {"a": jnp.zeros(3), "b": jnp.int32(0)})
    assert same(tree, {"a": jnp.arange(3.0), "b": jnp.int32(7)}) and info == {"step": 3}


def test_round_trip_is_bit_for_bit(path: Path) -> None:
    info = {"best": [[0.5, 10]], "note": "ü😀", "nothing": None}
    checkpoint.save(path, state(3), info)
    found, read = checkpoint.load(path, state(0))
    assert same(found, state(3)) and read == info == checkpoint.read_info(path)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    assert jax.random.uniform(found.key[1]) == jax.random.uniform(state(3).key[1])


def test_special_floats_keep_their_bits(path: Path) -> None:
    tree = {"a": jnp.array([0x7FC00001, 0xFFC12345, 0x80000000, 1, 0x7F800000], jnp.uint32).view(jnp.float32)}
    checkpoint.save(path, tree, {})
    assert same(checkpoint.load(path, tree)[0], tree)


def test_adam_goes_on_as_if_never_stored(path: Path) -> None:
    adam = optax.adam(optax.cosine_decay_schedule(0.1, 10))
    weights = {"w": jnp.arange(3.0), "b": jnp.ones((), jnp.bfloat16)}
    slots = adam.update(weights, adam.init(weights))[1]
    checkpoint.save(path, (weights, slots), {})
    found, back = checkpoint.load(path, (weights, adam.init(weights)))[0]
    assert same((found, back), (weights, slots))
    assert same(adam.update(found, back), adam.update(weights, slots))


def test_float64_of_jax(path: Path, x64: None) -> None:
    tree = {"a": jnp.array([1 / 3, 1e-300]), "n": jnp.array(2**40)}
    assert tree["a"].dtype == jnp.float64
    checkpoint.save(path, tree, {})
    assert same(checkpoint.load(path, tree)[0], tree)


def test_float64_of_jax_is_never_rounded(path: Path) -> None:
    like = {"a": jax.ShapeDtypeStruct((2,), np.dtype("float64"))}
    checkpoint.save(path, {"a": np.array([1 / 3, 1e-300])}, {})
    with pytest.raises(CheckpointError, match="a is float64, which JAX would round"):
        checkpoint.load(path, like)


def test_numpy_stays_numpy_whatever_its_strides(path: Path) -> None:
    tree = {"f64": np.arange(6.0).reshape(2, 3).T / 3, "step": np.arange(10)[::3], "zero": np.array(1 / 3)}
    checkpoint.save(path, tree | {"scalar": np.float64(1 / 3)}, {})
    found = checkpoint.load(path, tree | {"scalar": np.float64(0)})[0]
    assert type(found.pop("scalar")) is np.float64
    for name, value in tree.items():
        assert isinstance(found[name], np.ndarray) and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_keys_of_every_kind(path: Path, kind: str) -> None:
    tree = {"key": jax.random.key(5, impl=kind)}
    checkpoint.save(path, tree, {})
    found = checkpoint.load(path, {"key": jax.random.key(0, impl=kind)})[0]
    assert same(found, tree) and jax.random.key_impl(found["key"]) == jax.random.key_impl(tree["key"])


def test_arrays_are_stored_by_path_for_any_reader(path: Path) -> None:
    checkpoint.save(path, {"meta": {"conv0": {"kernel": jnp.ones(2)}}, "seq": [(jnp.zeros(1),)]}, {})
    assert sorted(safetensors.numpy.load_file(path)) == ["meta/conv0/kernel", "seq/0/0"]


@pytest.mark.parametrize("tree", [{}, jnp.ones(2), {"": jnp.ones(1)}, {"a b/ü": jnp.ones(1)}])
def test_odd_trees(path: Path, tree: Any) -> None:
    checkpoint.save(path, tree, {})
    assert same(checkpoint.load(path, tree)[0], tree)


def test_what_cannot_be_stored_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="two arrays have the path a/b"):
        checkpoint.save(path, {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}, {})
    with pytest.raises(CheckpointError, match="a is complex128"):
        checkpoint.save(path, {"a": np.ones(1, complex)}, {})
    with pytest.raises(CheckpointError, match="a is >i4"):
        checkpoint.save(path, {"a": np.ones(1, ">i4")}, {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.ones(2), "b": jnp.ones(1), "c": jnp.ones(1)}, "lacks c"),
        ({"a": jnp.ones(2)}, "has b, which"),
        ({"a": jnp.ones(3), "b": jnp.ones(1)}, r"a is float32\[2\], expected float32\[3\]"),
        ({"a": jnp.ones(2), "b": jnp.ones(())}, r"b is float32\[1\], expected float32\[\]"),
        ({"a": jnp.ones(2), "b": jnp.ones(1, jnp.bfloat16)}, r"b is float32\[1\], expected bfloat16\[1\]"),
        ({"a": jax.random.key(0), "b": jnp.ones(1)}, r"a is float32\[2\], expected uint32\[2\]"),
    ],
)
def test_first_path_that_does_not_fit_is_named(path: Path, like: Any, message: str) -> None:
    checkpoint.save(path, {"a": jnp.ones(2), "b": jnp.ones(1)}, {})
    with pytest.raises(CheckpointError, match=f"{path}.*{message}"):
        checkpoint.load(path, like)


def test_every_altered_byte_is_found(path: Path) -> None:
    tree = {"a": jnp.arange(3.0), "b": jnp.float32(1), "key": jax.random.key(1)}
    checkpoint.save(path, tree, {"best": [[0.5, 10]]})
    good = path.read_bytes()
    for at in range(len(good)):
        for value in {good[at] ^ 1, good[at] ^ 0x20, good[at] ^ 0x80, 9, 0, 255} - {good[at]}:
            path.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
            with pytest.raises(CheckpointError, match=str(path)):
                checkpoint.load(path, tree)
    path.write_bytes(good)
    checkpoint.load(path, tree)


def test_every_truncation_and_every_tail_is_found(path: Path) -> None:
    checkpoint.save(path, {"a": jnp.arange(3.0)}, {})
    good = path.read_bytes()
    for damaged in [good[:n] for n in range(len(good))] + [good + b"\0", good * 2]:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(path)):
            checkpoint.read_info(path)


def foreign(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "blob",
    [
        b"PK\x03\x04 a zip file",
        b"\x80\x04\x95 a pickle",
        (1 << 62).to_bytes(8, "little") + b"{}",
        foreign({}),
        foreign({"__metadata__": None}),
        foreign({"__metadata__": {"format": "2", "info": "{}", "sha256": ""}}),
        foreign({"__metadata__": {"format": "1"}}),
        foreign(b"[" * 100_000),
        foreign([]),
        foreign({"__metadata__": []}),
        *(foreign({"__metadata__": {"format": "1"}, "a": {"data_offsets": [0, end]}}) for end in ("x", None, math.inf)),
        foreign({"a": {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}}),
        foreign({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}) + b"1234",
        safetensors.numpy.save({"a": np.ones(2)}, {"format": "pt"}),
    ],
)
def test_foreign_files_are_refused(path: Path, blob: bytes) -> None:
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.read_info(path)


def test_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="cannot be read: it is no plain file; check that it is a file"):
        checkpoint.read_info(path)


def test_of_foreign_files_of_any_size_the_header_alone_is_read(path: Path) -> None:
    """Most of it is a hole, which takes no room on the disk, and none in the memory."""
    checkpoint.save(path, {"a": jnp.ones(1)}, {})
    foreign_ = foreign(
        {"__metadata__": {"format": "pt"}, "a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1 << 30]}}
    )
    for blob, says in ((path.read_bytes(), "it has 268435456 bytes, expected"), (foreign_, "checkpoint format pt")):
        path.write_bytes(blob)
        os.truncate(path, 1 << 28)
        with pytest.raises(CheckpointError, match=says):
            checkpoint.read_info(path)


@pytest.mark.parametrize("info", ["[1]", "{", "[" * 100_000])
def test_signed_nonsense_is_refused(path: Path, info: str) -> None:
    meta = {"format": "1", "info": info, "sha256": checkpoint._digest({}, info)}
    path.write_bytes(safetensors.numpy.save({}, meta))
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.read_info(path)


def test_missing_file_and_folder(path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{path} does not exist"):
        checkpoint.read_info(path)
    with pytest.raises(CheckpointError, match=f"{path.parent} cannot be read: Is a directory"):
        checkpoint.read_info(path.parent)


def test_failed_replace_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    checkpoint.save(path, {"a": jnp.ones(1)}, {"step": 1})
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match="cannot be written: Input/output error"):
        checkpoint.save(path, {"a": jnp.zeros(1)}, {"step": 2})
    assert checkpoint.read_info(path) == {"step": 1}


DIE = """
import os, sys
from pathlib import Path
import jax.numpy as jnp
from lethax import checkpoint
os.replace = lambda *_: os._exit(9)
checkpoint.save(Path(sys.argv[1]), {"a": jnp.zeros(1)}, {"step": 2})
"""


def test_killed_process_leaves_the_old_one_and_its_leftover_is_ignored(path: Path) -> None:
    like = {"a": jnp.ones(1)}
    checkpoint.save(path, like, {"step": 1})
    assert subprocess.run([sys.executable, "-c", DIE, str(path)]).returncode == 9
    assert len(list(path.parent.glob("*.tmp")) + list(path.parent.glob(".*.tmp"))) >= 1
    found = checkpoint.newest(path.parent, like)
    assert found and same(found[0], like) and found[1:] == ({"step": 1}, path)
    checkpoint.prune(path.parent, keep=1)
    assert os.listdir(path.parent) == [path.name]


def write_steps(folder: Path, *steps: int) -> list[Path]:
    paths = [checkpoint.path_of(folder, "step", step) for step in steps]
    for path, step in zip(paths, steps, strict=True):
        checkpoint.save(path, {"a": jnp.float32(step)}, {"step": step})
    return paths


def test_newest_goes_by_number_and_skips_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    like = {"a": jnp.float32(0)}
    assert checkpoint.newest(tmp_path, like) is None
    paths = write_steps(tmp_path, 5, 99_999_999, 100_000_000)
    (tmp_path / "step-x.safetensors").write_bytes(b"")
    (tmp_path / "best-00000005.safetensors").write_bytes(b"")
    tree, info, path = checkpoint.newest(tmp_path, like) or pytest.fail("none found")
    assert (float(tree["a"]), info, path) == (1e8, {"step": 100_000_000}, paths[2])

    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    _, info, path = checkpoint.newest(tmp_path, like) or pytest.fail("none found")
    assert (info, path) == ({"step": 99_999_999}, paths[1])
    assert caplog.messages == [f"{tmp_path}: {paths[2].name} damaged and passed over, {path.name} used"]

    for path in paths[:2]:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.newest(tmp_path, like)
    assert all(path.name in str(caught.value) for path in paths)


def test_newest_of_another_net_is_no_damage(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 2)
    with pytest.raises(CheckpointError, match="step-00000002.safetensors lacks b"):
        checkpoint.newest(tmp_path, {"a": jnp.float32(0), "b": jnp.float32(0)})


@pytest.mark.parametrize(("keep", "left"), [(0, []), (1, [30]), (2, [20, 30]), (9, [5, 20, 30])])
def test_prune_keeps_the_newest(tmp_path: Path, keep: int, left: list[int]) -> None:
    write_steps(tmp_path, 20, 5, 30)
    (tmp_path / "best-00000001.safetensors").touch()
    checkpoint.prune(tmp_path, keep)
    expected = {"best-00000001.safetensors"} | {checkpoint.path_of(tmp_path, "step", step).name for step in left}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_another_precision_is_called_that(path: Path) -> None:
    checkpoint.save(path, {"a": np.array([1 / 3, 1e-300])}, {})
    with pytest.raises(CheckpointError, match="a is float64: it was trained with JAX_ENABLE_X64=1; go on with it"):
        checkpoint.load(path, {"a": jnp.zeros(2)})
    checkpoint.save(path, {"a": np.zeros(2, np.float32)}, {})
    with pytest.raises(
        CheckpointError, match="a is float32: it was trained without JAX_ENABLE_X64=1; go on without it"
    ):
        checkpoint.load(path, {"a": np.zeros(2)})
