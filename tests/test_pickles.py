"""Pickles: plain data are read, whatever wrote them; everything else is refused before it can act or take memory."""

import pickle

import numpy as np
import pytest

from lethax.data.pickles import load_pickle
from lethax.errors import DataError


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_plain_data_are_read(protocol: int) -> None:
    data = {
        "bytes": b"\x00\xff", "list": [1, (2.5, None)], "u1": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "big": np.arange(3, dtype=">i4"), "text": np.array(["ab", "c"]), "one": np.float32(1.5),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }  # fmt: skip
    found = load_pickle(pickle.dumps(data, protocol=protocol), "plain", encoding="latin1")
    assert list(found) == list(data) and found["bytes"] == data["bytes"] and found["list"] == data["list"]
    for name in ("u1", "big", "text", "one", "fortran"):
        np.testing.assert_array_equal(found[name], data[name])
        assert found[name].dtype == data[name].dtype.newbyteorder("=")  # type: ignore[attr-defined]


def test_pickled_objects_in_arrays_are_refused() -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    for data in (objects, [objects[:1]], np.zeros(2, dtype=[("a", "u1")])):
        with pytest.raises(DataError, match="expected"):
            load_pickle(pickle.dumps(data, protocol=4), "cache")
    whole = pickle.dumps(np.arange(100), protocol=2)
    for blob in (b"", whole[:-20], b"\x80\x04garbage", whole.replace(b"Kd\x85", b"K\x7f\x85")):
        with pytest.raises(DataError, match="cache is damaged .* fetch it again"):
            load_pickle(blob, "cache")
