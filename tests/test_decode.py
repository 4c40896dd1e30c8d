"""Pictures within a bound of memory: what flattening gives, what is refused by its header, and what threads wait for."""

import io
import os
import struct
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lethax.data import decode as module
from lethax.data import pictures
from lethax.data.decode import PictureError, PixelRoom, decode


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def noise(mode: str, channels: int, size: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, channels), np.uint8)
    return Image.fromarray(pixels.squeeze()).convert(mode)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("LA", 2), ("P", 3), ("1", 1), ("L", 1), ("RGB", 3)])
def test_strips_are_as_the_whole(mode: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transparent part is over white: c a + 255 (1 - a)."""
    blob = encoded(noise(mode, channels))
    whole = [decode(blob, 40, n) for n in (1, 3)]
    monkeypatch.setattr(module, "_STRIP", 100)  # strips of two lines
    for found, expected in zip([decode(blob, 40, n) for n in (1, 3)], whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    if mode == "RGBA":
        pixels = np.asarray(noise(mode, channels)).astype(float)
        over = (pixels[..., :3] * pixels[..., 3:] + 255 * (255 - pixels[..., 3:])) / 255
        np.testing.assert_allclose(whole[1], over, atol=1)


def test_sixteen_bits_keep_the_upper_eight() -> None:
    pixels = np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40
    found = decode(encoded(Image.fromarray(pixels)), 40, 1)
    np.testing.assert_array_equal(found[..., 0], pixels >> 8)


def test_what_takes_too_much_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = encoded(Image.new("RGBA", (600, 500)))
    monkeypatch.setattr(module, "_room", PixelRoom(3 << 20))
    with pytest.raises(PictureError, match="decoding it takes 3 MiB of memory, over 3"):
        decode(blob, 8)
    monkeypatch.setattr(module, "_room", PixelRoom(4 << 20))
    assert (decode(blob, 8) == 255).all()
    monkeypatch.setattr(module, "MAX_PIXELS", 299_999)
    with pytest.raises(PictureError, match="600 x 500 pixels"):
        decode(blob, 8)
    monkeypatch.undo()
    with pytest.raises(PictureError, match="^3,600,000,000 pixels, over 100 megapixels$"):  # more than Pillow opens
        decode(b"P6 60000 60000 255\n", 8)
    side = 1 << 20  # of a tile, in a picture of 8 x 8
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    with pytest.raises(PictureError, match="1048576 x 1048576 pixels"):
        decode(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(68), 8)


def test_threads_share_the_room() -> None:
    """Four pictures that take two fifths each: never more than two at a time, and all have their turn."""
    room, inside, most = PixelRoom(100), [0], [0]
    lock = threading.Lock()
    pause = threading.Barrier(2)

    def work() -> None:
        with room.take(40):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            pause.wait()
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2


def test_files_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one MiB from an archive, 64 of them, with 4 MiB for all that is held and 2 for a task."""
    monkeypatch.setattr(pictures, "_HELD_BYTES", 4 << 20)
    monkeypatch.setattr(pictures, "_BATCH_BYTES", 1 << 20)
    monkeypatch.setattr(pictures, "decode", lambda *_: np.zeros((2, 2, 1), np.uint8))
    tracemalloc.start()
    out = np.zeros((64, 2, 2, 1), np.uint8)
    pictures.fill(out, ((i, str(i), bytearray(1 << 20)) for i in range(64)), lambda *_: None, "pictures")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(PictureError, match="it is no plain file"):
        decode(tmp_path / "a.png", 8)


def test_the_decoders_own_words_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Of a TIFF that claims 300 samples a pixel, Pillow logs a line of its own."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 300, 278: 8, 279: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    blob = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(68)
    out = np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(pictures.BrokenPictures, match="picture a is broken"):
        pictures.fill(out, [(0, "a", blob)], lambda *_: None, "pictures")
    assert not caplog.records
