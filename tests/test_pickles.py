"""Pickles: plain data are read, whatever wrote them; everything else is refused before it can act or take memory."""

import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opcodes import line, text

from lethax.data import machine, pickles
from lethax.data.pickles import load_pickle
from lethax.errors import DataError

NDARRAY, DTYPE = line("numpy", "ndarray"), line("numpy", "dtype")
MULTI = "numpy.core.multiarray"


def typed(code: str, order: str = "<", fields: bytes = b"NNN") -> bytes:
    """Opcodes of a numpy.dtype."""
    return (
        DTYPE
        + b"("
        + text(code)
        + b"K\x00K\x01tR(K\x03"
        + text(order)
        + fields
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def array(code: str, shape: bytes, content: bytes, order: str = "<") -> bytes:
    """A pickle of one array, as it may be written by hand."""
    empty = line(MULTI, "_reconstruct") + b"(" + NDARRAY + b"K\x00\x85C\x01btR"
    body = b"(K\x01" + shape + typed(code, order) + b"K\x00B" + struct.pack("<I", len(content)) + content + b"tb"
    return b"\x80\x03" + empty + body + b"."


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


def test_arrays_stay_in_their_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps({"x": np.arange(1 << 20)}, protocol=2))
    (tmp_path / "b").write_bytes(pickle.dumps({"x": np.arange(1 << 20)}, protocol=4))
    tracemalloc.start()
    found = load_pickle(tmp_path / "b", "b")["x"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[-1] == (1 << 20) - 1 and not found.flags.writeable and peak < 1 << 20
    assert load_pickle(tmp_path / "a", "a")["x"][-1] == (1 << 20) - 1  # through `_codecs.encode`, in pieces


def test_strings_of_python_2() -> None:
    blob = b"\x80\x02}q\x00(U\x04datar\x01\x00\x00\x00U\x02\xe9au."
    assert load_pickle(blob, "a") == {b"data": b"\xe9a"} and load_pickle(blob, "a", "latin1") == {"data": "\xe9a"}
    protocol_0 = b"(dp0\nS'a\\x00\\'b'\np1\n(lp2\nI01\naL12L\naF0.5\naVx\\u00e9\nag1\nas."
    assert load_pickle(protocol_0, "a") == {b"a\0'b": [True, 12, 0.5, "x\xe9", b"a\0'b"]}


def long(value: bytes, code: bytes = b"B") -> bytes:
    return code + struct.pack("<I", len(value)) + value


ONE = array("f4", b"K\x01\x85", bytes(4))


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (ONE, ""),
        # what Python's own machine would call, look up or fill
        (line("os", "system") + text("true") + b"\x85R.", "asks for os.system"),
        (line("numpy", "load") + b".", "asks for numpy.load"),
        (text("builtins") + text("eval") + b"\x93.", "asks for builtins.eval"),
        (b"K\x01K\x02\x93.", "asks for int.int"),
        (NDARRAY + b"K\x01\x85" + typed("O") + b"C\x08AAAAAAAA\x87R.", "array of type 'O'"),
        (NDARRAY + b"(K\x01\x85" + typed("u1") + b"C\x08AAAAAAAAJ\x00\xff\xff\xfftR.", "uses ndarray for something else"),
        (NDARRAY + b")R.", "uses ndarray"),
        (NDARRAY + b")\x81.", "has the opcode"),
        (NDARRAY + b")}\x92.", "has the opcode"),
        (b"(" + NDARRAY + b"K\x01o.", "has the opcode"),
        (b"(inumpy\nndarray\n.", "has the opcode"),
        (b"Pid\n.", "has the opcode"), (b"K\x01Q.", "has the opcode"),
        (b"\x82\x01.", "has the opcode"), (b"\x83\x01\x00.", "has the opcode"), (b"\x84\x01\x00\x00\x00.", "has the opcode"),
        (b"\x97.", "has the opcode"), (b"K\x01\x98.", "has the opcode"), (b"\x8f.", "has the opcode"),
        (b"(\x91.", "has the opcode"),
        (line("_codecs", "encode") + b"}" + text("__defaults__") + b")sb.", "array of objects"),
        (line("_codecs", "encode") + text("a") + text("rot13") + b"\x86R.", "uses encode for something else"),
        (b"K\x01)R.", "no word of an array"), (NDARRAY + b"]R.", "no word of an array"),
        (line(MULTI, "scalar") + line("numpy", "dtype") + b"C\x01a\x86R.", "uses scalar"),
        (line(MULTI, "_reconstruct") + b"(" + DTYPE + b"K\x00\x85C\x01btR.", "uses _reconstruct"),
        (b"]q\x00}b.", "array of objects"), (b"}" + NDARRAY + b"K\x01s.", "as key"), (b"}K\x01\x85K\x01s.", "has a tuple as key"),
        (b"C\x03abcK\x00K\x01s.", "sets an item of a bytes"), (ONE[:-1] + b"K\x00K\x01s.", "sets an item of a ndarray"),
        (ONE[:-1] + b"}b.", "array of objects"), (NDARRAY + b".", "a name or a part"), (typed("f4") + b".", "a name or a part"),
        (line(MULTI, "_reconstruct") + b"(" + NDARRAY + b"K\x00\x85C\x01btR.", "a name or a part"),
        # types
        (array("V8", b"K\x01\x85", bytes(8)), "array of type 'V8'"),
        (array("M8", b"K\x01\x85", bytes(8)), "array of type 'M8'"),
        (array("U1000000000", b"K\x01\x85", bytes(8)), "array of type 'U1000000000'"),
        (array("U0", b"J\x80\x96\x98\x00\x85", b""), "array of type 'U0'"),
        (array("S0", b"J\x80\x96\x98\x00\x85", b""), "array of type 'S0'"),
        (array("f4,f4", b"K\x01\x85", bytes(8)), "array of type 'f4,f4'"),
        (array("f4", b"K\x01\x85", bytes(4), "?"), r"array of type '\?f4'"),
        (array("u1", b"K\x01\x85", b"a").replace(b"NNN", b"N(tN"), "array of objects"),
        (array("b1", b"K\x01\x85", b"\x02"), "neither true nor false"),
        (array("U1", b"K\x01\x85", b"\xff" * 4), "no characters"), (array("U1", b"K\x01\x85", b"\0\0\xd8\0", ">"), "no characters"),
        # shapes
        (array("f4", b"J\xff\xff\xff\xff\x85", bytes(4)), "which none can have"),
        (array("f4", b"\x88\x85", bytes(4)), "which none can have"),
        (array("f4", b"K\x02\x85", bytes(4)), "4 bytes for an array"),
        (array("f4", b"\x8a\x0a" + bytes(9) + b"\x01\x85", bytes(4)), "which none can have"),
        (array("f4", b"(" + b"J\x00\x00\x00\x40" * 3 + b"t", bytes(4)), "which none can have"),
        (array("f4", b"(K\x00" + b"J\x00\x00\x00\x40" * 3 + b"t", b""), "which none can have"),
        (array("f4", b"(" + b"K\x01" * 33 + b"t", bytes(4)), "which none can have"),
        (array("f4", NDARRAY + b"\x85", bytes(4)), "which none can have"),
        # damage
        (b"", "is damaged"), (b"K", "is damaged"), (b".", "is damaged"), (b"h\x07.", "is damaged"), (b"a.", "is damaged"),
        (b"e.", "is damaged"), (b"u.", "is damaged"), (b"(K\x01d.", "is damaged"), (b"\x87.", "is damaged"),
        (b"\x95\xff", "is damaged"),
        (b"I" + b"9" * 5000 + b"\n.", "a number of 5,000 digits"),
        (b"\x8b\x00\x00\x10\x00" + bytes(1 << 20) + b".", "1,048,576 bytes"),
        (b"p-1\n.", "is damaged"), (b"Np99999999999999999999\n.", "no place of its memo"),
        (b"X\x01\x00\x00\x00\xff.", "is damaged"),
        (b"B\xff\xff\xff\x7fabc.", "is damaged"), (b"\x8e" + b"\xff" * 8 + b"abc.", "is damaged"), (b"S'a\n.", "without quotes"),
        (b"(" * 100 + b".", "is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused(blob: bytes, says: str) -> None:
    if not says:
        np.testing.assert_array_equal(load_pickle(blob, "by hand"), np.zeros(1, np.float32))
        return
    with pytest.raises(DataError, match=says):
        load_pickle(blob, "by hand")


TENFOLD = b"]" + b"".join(b"\x94]" + b"(" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"e" for i in range(30))
SELF = b"]q\x00h\x00a."
MARKS = b"(" * 60_000


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"Nr\x00\x10\x00\x00.", None),  # a gap in the memo
        (b"Nr\x00\x00\x00\x10.", "more than 1 MiB"),
        (TENFOLD + b".", "the same lists within each other"),
        (TENFOLD + b"\x85" + array("u1", b"h\x1d\x85", b"a")[2:], "none can have"),
        (TENFOLD + text("a") + b"\x93.", "asks for list.a"), (SELF, "more than 32 deep"),
        (b"]" * 40 + b"a" * 39 + b".", "more than 32 deep"),
        (MARKS, "more than 1 MiB of memory"), (b"]2" * 30_000, "more than 1 MiB of memory"), (b"N\x94" * 30_000, "more than 1 MiB"),
        (b"(" + b"]" * 50_000 + b"l.", "more than 1 MiB"), (b"N" + b"2" * 200_000 + b".", "more than 1 MiB"),
        (text("\U0001f600" + "a" * 300_000) + b".", "more than 1 MiB"),
    ],
)  # fmt: skip
def test_small_files_take_little_memory(blob: bytes, says: str | None) -> None:
    """The bound is 1 MiB here, and the peak beside it no more than the stack's own growth."""
    tracemalloc.start()
    try:
        if says is None:
            assert load_pickle(blob, "small", values=1 << 20) is None
        else:
            with pytest.raises(DataError, match=says):
                load_pickle(blob, "small", values=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_long_string_can_only_be_in_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, pickles):
        monkeypatch.setattr(module, "SHORT", 1000)
    assert load_pickle(pickle.dumps(np.zeros(2000, np.uint8)), "a").shape == (2000,)
    for value in (bytes(2000), "a" * 2000):
        with pytest.raises(DataError, match="a string of 2000 bytes"):
            load_pickle(pickle.dumps([value]), "a")


SHARED = typed("U1") + b"q\x01" + long(bytes(4000)) + b"q\x02" + line("numpy.core.numeric", "_frombuffer") + b"q\x03"
WIDE = typed("U999") + b"q\x01" + long(bytes(3996)) + b"q\x02" + line(MULTI, "scalar") + b"q\x03"


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (WIDE + b"h\x03h\x01h\x02\x86R" * 100 + b".", None),
        (WIDE + b"h\x03h\x01h\x02\x86R" * 300 + b".", "more than 1 MiB"),  # 4 kB each
        (line(MULTI, "scalar") + typed("S65537") + long(bytes(65537)) + b"\x86R.", "a string of 65537 bytes"),
        (SHARED + b"h\x03(h\x02h\x01M\xe8\x03\x85U\x01CtR" * 400 + b".", "the same values so often"),
        (NDARRAY + b"(" + b"N" * 7 + b"tR.", "uses ndarray with 7 values"),
        (b"}(" + b"".join(b"J" + struct.pack("<i", n << 20) + b"N" for n in range(1000)) + b"u.", "so often"),
        (b"Nq\x05h\x04.", "nothing is in the place 4"), (b"Nq\x01g-1\n.", "nothing is in the place -1"),
    ],
)  # fmt: skip
def test_few_bytes_ask_for_little_work(blob: bytes, says: str | None) -> None:
    if says is None:
        assert load_pickle(blob, "small", values=1 << 20) == ""
        return
    with pytest.raises(DataError, match=says):
        load_pickle(blob, "small", values=1 << 20)


def test_an_array_is_filled_once_in_each_place_of_the_memo() -> None:
    empty = line(MULTI, "_reconstruct") + b"(" + NDARRAY + b"K\x00\x85C\x01btR" + b"q\x00" * 1000
    state = b"(K\x01K\x01\x85" + typed("u1") + b"K\x00C\x01atq\x01"
    found = load_pickle(b"](" + empty + state + b"b" + b"h\x00h\x00e.", "a")
    assert [list(array) for array in found] == [[97]] * 3


def test_arrays_in_any_order_of_axes_are_read_only() -> None:
    straight = np.arange(24).reshape(2, 3, 4)
    for value in (straight.transpose(2, 0, 1), straight.astype(">i8"), straight[:0], np.asfortranarray(straight)):
        for protocol in range(6):
            found = load_pickle(pickle.dumps(value, protocol), "a", "latin1")
            np.testing.assert_array_equal(found, value)
            assert not found.flags.writeable
    turned = line("numpy._core.numeric", "_frombuffer") + b"(C\x06abcdef" + typed("u1") + b"K\x02K\x03\x86U\x01K"
    assert load_pickle(turned + b"K\x01K\x00\x86tR.", "a").tolist() == [[97, 100], [98, 101], [99, 102]]
    for axes in (b"K\x01K\x01\x86", b"K\x01K\x02\x86", b"K\x00\x85"):
        with pytest.raises(DataError, match="is damaged"):
            load_pickle(turned + axes + b"tR.", "a")


def test_a_long_line_can_only_be_in_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, pickles):
        monkeypatch.setattr(module, "SHORT", 1000)
    for code in (b"S'%s'", b"V%s"):
        assert len(load_pickle(code % (b"a" * 1000) + b"\n.", "a", "latin1")) == 1000
        with pytest.raises(DataError, match="a string of 2000 bytes"):
            load_pickle(code % (b"a" * 2000) + b"\n.", "a", "latin1")


def test_a_file_full_of_holes_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TENFOLD + b".")
    os.truncate(tmp_path / "a", 1 << 40)
    with pytest.raises(DataError, match="the same lists within each other"):
        load_pickle(tmp_path / "a", "a", values=1 << 20)


def test_nothing_is_called(tmp_path: Path) -> None:
    class Acts:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/mark",)

    for protocol in range(6):
        with pytest.raises(DataError, match=r"asks for \w+.system, which no data file needs: it was not read"):
            load_pickle(pickle.dumps([Acts()], protocol), "evil")
    assert not (tmp_path / "mark").exists()
