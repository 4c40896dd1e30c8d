"""Pictures that stay on the disk give the episodes, training and evaluation that pictures on the device give, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lethax import cli, evaluation, meta_batch, outer
from lethax.data import host
from lethax.data.source import class_split
from lethax.data.writer import StoreWriter
from lethax.errors import RecipeError
from lethax.records import EpisodeShape

SHAPE = EpisodeShape(way=3, shot=2, query=1)


@pytest.fixture(scope="module")
def split():
    random = np.random.RandomState(0)
    return class_split(random.randint(0, 256, (40, 16, 16, 3)).astype(np.uint8), np.repeat(np.arange(5), 8))


def family(split, monkeypatch, mib, rotate=False):
    monkeypatch.setenv(host.LIMIT, str(mib))
    return host.images_of(split, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), rotate)


@pytest.mark.parametrize("rotate", [False, True])
def test_episodes_are_those_of_the_device(split, monkeypatch, rotate):
    (here, pixels), (there, mapped) = (family(split, monkeypatch, mib, rotate) for mib in (1, 0))
    assert isinstance(there, host.HostImages) and there == family(split, monkeypatch, 0, rotate)[0]
    key = jax.random.key(3)
    for first in (0, 2, 4, 0):  # on, and back again
        ours = evaluation.draw(there, SHAPE, 2, mapped, key, jnp.asarray(first))
        jax.tree.map(
            np.testing.assert_array_equal, ours, evaluation.draw(here, SHAPE, 2, pixels, key, jnp.asarray(first))
        )
    plan, state = meta_batch.Plan(SHAPE, total=9, batch=2), outer.TrainState(None, None, jnp.asarray(3), key)
    ours, theirs = meta_batch._read(there, mapped, plan, state), meta_batch.draw_batch(here, pixels, plan, state)
    jax.tree.map(np.testing.assert_array_equal, ours[0], theirs[0])
    assert (ours[1] == theirs[1]).all()


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number(split, monkeypatch, given):
    with pytest.raises(RecipeError, match=f"LETHAX_DEVICE_DATA is {given}; expected a number of MiB, 0 or more"):
        family(split, monkeypatch, given)


def test_a_run_has_the_same_bits(tmp_path, monkeypatch, capsys):
    """Interrupted on the device, and gone on with on the host."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    random = np.random.RandomState(1)
    with StoreWriter(tmp_path / "data", "pictures", mean=(0.5,), std=(0.25,), source={}) as writer:
        for name in ("train", "val", "test"):
            out = writer.split(name, (16, 16, 1), [(f"{name}{c}", "", 5) for c in range(6)])
            out[:] = random.randint(0, 256, out.shape)
    train = "train pictures --method l2f --filters 4 --shot 1 --query 2 --batch 2 --inner-steps 1 --val-episodes 2 --epoch 2"
    for out, mib in (("device", "1000"), ("host", "0")):
        monkeypatch.setenv(host.LIMIT, mib)
        assert cli.main([*train.split(), "--steps", "4", "--out", out]) == 0
        assert cli.main(["evaluate", out, "--episodes", "3", "--steps", "1", "--baselines", "prototype", "--json"]) == 0
    for kind in ("step", "best"):
        one, other = (max((tmp_path / out / "checkpoints").glob(f"{kind}-*")) for out in ("device", "host"))
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    (one,), (other,) = ((tmp_path / out / "evaluations").glob("*.json") for out in ("device", "host"))
    assert one.read_text().replace("device", "host") == other.read_text()
