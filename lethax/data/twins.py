"""Find pictures that are the same, pixel by pixel, and pictures that are nearly the same, without comparing all pairs.

Nearly the same are two pictures of which both hold: their difference hashes differ in few of 64 bits, and small gray copies
of them are correlated by at least `LIKE`. The hash says of each of 8 x 8 places of the picture whether it gets darker to the
right. Two hashes that differ in at most B bits agree in all bits of one of B + 1 bands, so only hashes that share a band are
compared. The second condition is for drawings on white, whose hashes are alike because most of the picture is empty.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

BITS = 6  # in which two hashes may differ: this finds 94 % of CIFAR's pictures that were saved as JPEG of quality 75
MOST_BITS = 8  # each one more makes the bands narrower, and the search longer
LIKE = 0.98  # of CIFAR's and Omniglot's pairs, those above are one picture twice to the eye, and most of those below are not
MOST_PAIRS = 100_000  # that are listed of one kind: of pictures of two splits, say
_FLAT = 4.0  # of 255: with a smaller deviation, a picture has nothing that it could share with another
_BAND = 500  # pictures that one picture is compared with for each band
_BLOCK = 256  # pictures that are in memory at a time
_TALL, _WIDE = 16, 18  # pixels of the small copies; the hash is of 8 x 9 means
_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


class Twins(NamedTuple):
    """same: the rows of pictures that have equal pixels, a list for each picture that is there more than once.

    near: pairs of rows of pictures that are nearly the same; of equal ones, the first stands for all. whole: whether all were
    compared and kept; there may be more pairs otherwise.
    """

    same: list[list[int]]
    near: list[tuple[int, int]]
    whole: bool


def find_twins(parts: Sequence[np.ndarray], bits: int = BITS, of: np.ndarray | None = None) -> Twins:
    """Find the twins in arrays uint8 [n, height, width, channels]; rows are counted through all of them.

    of: what each picture belongs to, integers [n, k], such as its split and its class. Pairs are of one kind if they differ in the
    same column first, or in none; of each kind at most MOST_PAIRS are kept, so that no kind takes the place of another.
    """
    rows: dict[bytes, list[int]] = {}
    small = np.empty((sum(map(len, parts)), _TALL, _WIDE), np.uint8)
    done = 0
    for block in _blocks(parts):
        for row, picture in enumerate(block, done):
            rows.setdefault(hashlib.blake2b(picture, digest_size=16).digest(), []).append(row)
        small[done : done + len(block)] = _small(block)
        done += len(block)
    firsts = np.array([found[0] for found in rows.values()], np.int64)
    contrast = np.concatenate([block.std((1, 2)) for block in _blocks([small])])
    firsts = firsts[contrast[firsts] >= _FLAT]
    kinds = np.zeros((len(small), 1), np.int64) if of is None else of
    pairs, whole = _near(small[firsts], bits, kinds[firsts])
    near = sorted((int(firsts[a]), int(firsts[b])) for a, b in pairs)
    return Twins([found for found in rows.values() if len(found) > 1], near, whole)


def _blocks(parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for part in parts:
        yield from (np.ascontiguousarray(part[at : at + _BLOCK]) for at in range(0, len(part), _BLOCK))


def _small(images: np.ndarray) -> np.ndarray:
    """Small gray copies uint8 [n, 16, 18], of means over areas."""
    _, height, width, _ = images.shape
    rows, columns = _areas(height, _TALL), _areas(width, _WIDE)
    gray = images.mean(-1, dtype=np.float32)
    return np.rint(rows @ gray @ columns.T).astype(np.uint8)


def _areas(size: int, parts: int) -> np.ndarray:
    """Weights [parts, size]: each row is the mean over one of equal parts of `size` pixels, also of fractions of pixels."""
    edges, pixels = np.linspace(0, size, parts + 1)[:, None], np.arange(size)
    shares = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, None)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def difference_hashes(small: np.ndarray) -> np.ndarray:
    """64 bits for each small copy: whether a place is lighter than the one to its right."""
    places = small.reshape(len(small), _TALL // 2, 2, _WIDE // 2, 2).sum((2, 4), dtype=np.int32)
    lighter = (places[:, :, :-1] > places[:, :, 1:]).reshape(len(small), 64)
    return np.packbits(lighter, axis=1).view(np.uint64).reshape(-1)


def _near(small: np.ndarray, bits: int, of: np.ndarray) -> tuple[set[tuple[int, int]], bool]:
    """Find pairs of rows that are nearly the same, at most MOST_PAIRS of each kind, and whether these are all."""
    hashes, crowded = difference_hashes(small), False
    found = [set[tuple[int, int]]() for _ in range(of.shape[1] + 1)]
    for a, b in _candidates(hashes, bits):
        crowded |= not len(a)
        close = _ONES[(hashes[a] ^ hashes[b]).view(np.uint16).reshape(-1, 4)].sum(1) <= bits
        a, b = np.minimum(a, b)[close], np.maximum(a, b)[close]
        kind = _kinds(of[a], of[b])
        wanted = np.array([len(pairs) <= MOST_PAIRS for pairs in found])[kind]  # one more says that there are more
        a, b, kind = a[wanted], b[wanted], kind[wanted]
        like = _correlations(small, a, b) >= LIKE
        for number, pairs in enumerate(found):
            mine = like & (kind == number)
            pairs.update(zip(a[mine].tolist(), b[mine].tolist(), strict=True))
    kept = [sorted(pairs)[:MOST_PAIRS] for pairs in found]
    return set().union(*kept), not crowded and sum(map(len, kept)) == sum(map(len, found))


def _kinds(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The first column in which rows [n, k] differ, or k."""
    differ = a != b
    return np.where(differ.any(1), differ.argmax(1), a.shape[1])


def _candidates(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield arrays (a, b) of rows whose hashes agree in all bits of a band. A pair may come more than once.

    A band has every (bits + 1)-th bit, so that each is of the whole picture. Empty arrays say that more rows share a band than
    are compared.
    """
    for band in range(bits + 1):
        shared = hashes & np.uint64(sum(1 << bit for bit in range(band, 64, bits + 1)))
        order = np.lexsort((hashes, shared))
        ends = np.searchsorted(shared[order], shared[order], side="right")
        places = np.arange(len(hashes))
        for ahead in count(1):
            places = places[places + ahead < ends[places]]
            if not len(places):
                break
            if ahead > _BAND:
                places = places[:0]
            yield order[places], order[places + ahead]


def _correlations(small: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The correlation of the small copies of rows a[i] and b[i]."""
    found = np.empty(len(a))
    for at in range(0, len(a), _BLOCK):
        x, y = (small[rows[at : at + _BLOCK]].reshape(-1, _TALL * _WIDE).astype(np.float32) for rows in (a, b))
        x, y = (z - z.mean(1, keepdims=True) for z in (x, y))
        found[at : at + _BLOCK] = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return found
