"""Inputs for `fuzz.py`: small valid files of every kind, and seeded changes of them, blind ones and such that know the form."""

import io
import json
import pickle
import pickletools
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

INTERESTING = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 62,
]
ODD_TEXT = [
    "",
    " ",
    "\0",
    "\n",
    "\x1b[2J",
    "\ud800",
    "é",
    "../x",
    "/x",
    "\\",
    "[/red]",
    "a" * 5000,
    "NaN",
    "null",
    "-1",
    "1e400",
    "9" * 5000,
]

Change = Callable[[random.Random, bytes], bytes]


def blind(rng: random.Random, blob: bytes, others: list[bytes]) -> bytes:
    """One change of bytes that knows nothing of the form."""
    data = bytearray(blob)
    at = rng.randrange(len(data) + 1)
    match rng.randrange(8):
        case 0 if data:
            for _ in range(rng.choice([1, 1, 2, 8, 32])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[at:]
        case 2:
            number = rng.choice(INTERESTING) + rng.choice([-1, 0, 1])
            size = rng.choice([1, 2, 4, 8])
            data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, rng.choice(["little", "big"]))
        case 3:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            data[at : at + rng.choice([0, 4, 64])] = other[begin : begin + rng.choice([1, 8, 64, 1024])]
        case 4:
            del data[at : at + rng.choice([1, 2, 8, 64])]
        case 5:
            data[at:at] = data[at : at + rng.choice([1, 8, 512])] * rng.choice([1, 2, 50])
        case 6:
            data[at:at] = rng.choice([b"\0", b"\xff", b"(", b"[", b"{", b'"', b"9"]) * rng.choice([1, 10, 3000])
        case _:
            data += rng.randbytes(rng.choice([1, 16, 512]))
    return bytes(data)


ODD_JSON: list[object] = [
    None, True, -1, 0, 2**62, 10**30, 1e308, float("nan"), [], {}, [[]], {"a": None}, "a", ["a", None], [1, "a"],
    [["a", "", -1]], [["a", "", 2**62]],
]  # fmt: skip


def of_json(rng: random.Random, blob: bytes) -> bytes:
    """One value anywhere in it left out, doubled, or replaced by one of another kind; what is no JSON changes as text."""
    try:
        root = [json.loads(blob)]
    except ValueError:
        return of_text(rng, blob)
    places: list[tuple[dict[object, object] | list[object], object]] = []
    todo: list[object] = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, dict | list):
            places += [(node, key) for key in (node if isinstance(node, dict) else range(len(node)))]
            todo += node.values() if isinstance(node, dict) else node
    node, key = rng.choice(places)
    match rng.randrange(6):
        case 0 if node is not root:
            del node[key]  # type: ignore[arg-type]
        case 1 if isinstance(node, list) and node is not root:
            node *= 2
        case 2 if isinstance(node, dict):
            node[rng.choice(ODD_TEXT)] = node.pop(key)
        case 3:
            node[key] = rng.choice(ODD_TEXT)  # type: ignore[index]
        case _:
            node[key] = rng.choice(ODD_JSON)  # type: ignore[index]
    return json.dumps(root[0]).encode() if rng.random() < 0.8 else of_text(rng, blob)


def of_text(rng: random.Random, blob: bytes) -> bytes:
    """A number, string, bracket or line of JSON, TOML or CSV replaced by an odd one."""
    text = blob.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r'-?\d+(\.\d+)?|"[^"]*"|true|false|null|[][{},:=]|\n', text))
    if not found:
        return blob
    spot = rng.choice(found)
    odd = rng.choice(ODD_TEXT)
    new = rng.choice([
        str(rng.choice(INTERESTING)), json.dumps(odd), odd, "[" * rng.choice([1, 2000]), "{}", "[[1], 2]", "1e308", "inf",
        spot[0] * 2,
        '{"a": 1}', "[null]", "true", ",", "\n",
    ])  # fmt: skip
    return (text[: spot.start()] + new + text[spot.end() :]).encode("utf-8", "surrogatepass")


_PIECES = [
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n",
    b"c_codecs\nencode\n", b"cos\nsystem\n", b"c__builtin__\nbytes\n", b"R", b"b", b"\x81", b"\x92", b"o", b"(", b"t", b"e",
    b"u", b"s", b"d", b"l", b"a", b"0", b"1", b"2", b"N", b"\x88", b"]", b"}", b")", b"\x85", b"\x86", b"\x87", b"\x94",
    b"h\x00", b"j\x00\x00\x00\x10", b"r\xff\xff\xff\xff", b"X\x01\x00\x00\x00O", b"X\x03\x00\x00\x00V99",
    b"X\x02\x00\x00\x00U0", b"X\x01\x00\x00\x00>", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    b"\x8b\x04\x00\x00\x00abcd", b"I" + b"9" * 300 + b"\n", b"B\xff\xff\xff\x7f", b"\x96" + b"\xff" * 8, b"Pa\n", b"Q",
    b"\x82\x01", b"\x97", b"\x98", b"]q\x00(" + b"h\x00" * 10 + b"e", b"S'\\x00'\n", b"Vx\n", b"F1e999\n", b"i__main__\nx\n",
]  # fmt: skip


def of_pickle(rng: random.Random, blob: bytes) -> bytes:
    """Opcodes left out, doubled, exchanged, or put in from a list of those that matter."""
    try:
        places = [place for _, _, place in pickletools.genops(blob)]
    except Exception:
        return blind(rng, blob, [blob])
    codes = [blob[a:b] for a, b in zip(places, [*places[1:], len(blob)], strict=True)]
    for _ in range(rng.choice([1, 1, 2, 3, 5])):
        at = rng.randrange(len(codes))
        match rng.randrange(5):
            case 0:
                codes[at : at + 1] = []
            case 1:
                codes.insert(at, rng.choice(_PIECES))
            case 2:
                codes.insert(at, rng.choice(codes))
            case 3:
                codes[at] = rng.choice(_PIECES)
            case _:
                codes[at : at + 1] = [codes[at]] * rng.choice([2, 10, 100])
        codes = codes or [b"."]
    return b"".join(codes)


def of_zip(rng: random.Random, blob: bytes) -> bytes:
    """Written anew with odd names, contents, or fields of the headers."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as old:
            members = [(entry.filename, old.read(entry)) for entry in old.infolist()]
    except Exception:
        return blind(rng, blob, [blob])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])) as new:
        for name, content in members:
            if rng.random() < 0.3:
                name = rng.choice([name + "é", "../" + name, name * 40, "a/" + name, "x.npy"])
            if rng.random() < 0.3:
                content = rng.choice([b"", bytes(1 << rng.randrange(22)), blind(rng, content, [content])])
            entry = zipfile.ZipInfo(name)
            entry.external_attr = rng.choice([0] * 18 + [0o120777 << 16, 0o010644 << 16])
            new.writestr(entry, content)
    data = bytearray(out.getvalue())
    places = [match.start() for match in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
    if rng.random() < 0.5:
        at = rng.choice(places) + rng.randrange(4, 46)
        data[at : at + 4] = (rng.choice(INTERESTING) % (1 << 32)).to_bytes(4, "little")
    return bytes(data)


def of_tar(rng: random.Random, blob: bytes) -> bytes:
    """A field of a header set, and the header's checksum made right again."""
    plain = zlib.decompress(blob, 31) if blob[:2] == b"\x1f\x8b" else blob
    data = bytearray(plain)
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    for at in rng.sample(heads, min(len(heads), rng.choice([1, 1, 2]))):
        begin, size = rng.choice(
            [(0, 100), (100, 8), (124, 12), (156, 1), (156, 1), (156, 1), (157, 100), (345, 155), (386, 24), (483, 12)]
        )
        odd = rng.choice([
            b"g", b"x", b"L", b"K", b"S", b"1", b"2", b"5", b"6", b"7", b"-1", b"77777777777\0",
            b"\x80" + bytes(6) + b"\1" + bytes(4),
            b"\xff" * 12, b"../x", b"/x", b"caf\xe9", b"\x1b[2J\n", b"00000000000\0", b"00010000000\0", rng.randbytes(size),
        ])  # fmt: skip
        data[at + begin : at + begin + size] = odd[:size].ljust(size, b"\0")
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % (sum(data[at : at + 512]) % (1 << 18))
    return zlib.compress(bytes(data), 1, 31) if rng.random() < 0.3 else bytes(data)


def of_png(rng: random.Random, blob: bytes) -> bytes:
    """A chunk changed, doubled or left out, with its checksum made right again."""
    if blob[:4] != b"\x89PNG":
        return blind(rng, blob, [blob])
    chunks, at = [], 8
    while at + 12 <= len(blob):
        (size,) = struct.unpack(">I", blob[at : at + 4])
        chunks.append((blob[at + 4 : at + 8], blob[at + 8 : at + 8 + size]))
        at += 12 + size
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    match rng.randrange(4):
        case 0:
            chunks[at] = kind, blind(rng, content, [content])
        case 1:
            chunks.insert(
                at,
                rng.choice(
                    [(b"tRNS", rng.randbytes(6)), (b"eXIf", b"MM\0*\0\0\0\x08" + rng.randbytes(40)), (kind, content)]
                ),
            )
        case 2:
            del chunks[at]
        case _:
            sides = [rng.choice([1, 4, 300, 60_000, 1 << 20]) for _ in range(2)]
            depth, colour = rng.choice([1, 2, 4, 8, 16]), rng.choice([0, 2, 3, 4, 6])
            chunks[0] = b"IHDR", struct.pack(">II5B", *sides, depth, colour, 0, 0, rng.choice([0, 1]))
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return blob[:8] + b"".join(packed)


def of_header(rng: random.Random, blob: bytes) -> bytes:
    """The JSON header of a .safetensors, with its length made right again."""
    size = int.from_bytes(blob[:8], "little")
    header = of_json(rng, blob[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + blob[8 + size :]


ODD_HEADER = [
    "-1", "9" * 40, "0", "'|O'", "'<U0'", "'<U999999'", "'V8'", "'>f4'", "'<f2'", "((" * 900, "True", "None", "(1,)", "99999999",
]  # fmt: skip


def of_npy(rng: random.Random, blob: bytes) -> bytes:
    """The text of the header, with its length made right again."""
    size = int.from_bytes(blob[8:10], "little")
    text = blob[10 : 10 + size].decode("latin1")
    found = list(re.finditer(r"\d+|'[^']*'|True|False|[(){},]", text)) or [re.match("", text)]
    spot = rng.choice(found)
    assert spot is not None
    odd = rng.choice(
        [
            "-1",
            "9" * 40,
            "0",
            "'|O'",
            "'<U0'",
            "'<U999999'",
            "'V8'",
            "'>f4'",
            "'<f2'",
            "((" * 900,
            "True",
            "None",
            "(1,)",
            "99999999",
        ]
    )
    text = text[: spot.start()] + odd + text[spot.end() :]
    return blob[:8] + struct.pack("<H", len(text) % (1 << 16)) + text.encode("latin1") + blob[10 + size :]


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)  # turned by a quarter


def pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    found = []
    for mode, forms in {
        "RGB": ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF"), "RGBA": ("PNG", "WEBP", "TIFF"), "P": ("PNG", "GIF", "BMP"),
        "L": ("JPEG", "PNG", "PPM", "TIFF"), "1": ("PNG", "PPM", "TIFF"), "CMYK": ("JPEG", "TIFF"), "I;16": ("PNG", "TIFF"),
    }.items():  # fmt: skip
        picture = Image.fromarray(pixels).convert(mode if mode != "I;16" else "I").convert(mode)
        for form in forms:
            for options in (
                {},
                {"progressive": True},
                {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
            ):
                if options and form not in ("JPEG", "PNG", "WEBP"):
                    continue
                file = io.BytesIO()
                picture.save(file, form, **options)
                found.append(file.getvalue())
    return found


def pickles(*values: object) -> list[bytes]:
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def tars(files: dict[str, bytes]) -> list[bytes]:
    found = []
    forms = (
        ("w", tarfile.USTAR_FORMAT),
        ("w", tarfile.GNU_FORMAT),
        ("w:gz", tarfile.PAX_FORMAT),
        ("w:xz", tarfile.PAX_FORMAT),
    )
    for mode, form in forms:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
            for name, content in files.items():
                entry = tarfile.TarInfo(name if form == tarfile.USTAR_FORMAT else f"{name}é" + "x" * 120)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        found.append(out.getvalue())
    return found


def zips(files: dict[str, bytes]) -> list[bytes]:
    found = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", kind) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        found.append(out.getvalue())
    return found
