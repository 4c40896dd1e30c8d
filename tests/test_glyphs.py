"""The built-in glyph data set: classes, splits, determinism, caching."""

from pathlib import Path

import numpy as np
import pytest

from lethax.data.glyphs import PICTURES, SCRIPTS, build_glyphs, select_glyphs
from lethax.data.store import open_store
from lethax.errors import DataError

SMALL = ("Ogham", "Hebrew", "Currency and letterlike symbols", "Geometric shapes", "Braille")


def test_full_selection_is_large_and_disjoint() -> None:
    glyphs = select_glyphs()
    share = {split: np.mean([glyph.split == split for glyph in glyphs]) for split in ("train", "val", "test")}
    assert len(glyphs) >= 1000
    assert len({glyph.name for glyph in glyphs}) == len(glyphs)
    assert {glyph.script for glyph in glyphs} == set(SCRIPTS)
    assert 0.60 < share["train"] < 0.70 and 0.12 < share["val"] < 0.18 and 0.16 < share["test"] < 0.24
    names = {glyph.name for glyph in glyphs}
    # look-alikes of Latin A and o in other scripts are one class with them
    assert "U+0041 LATIN CAPITAL LETTER A" in names
    assert not names & {"U+0391 GREEK CAPITAL LETTER ALPHA", "U+0410 CYRILLIC CAPITAL LETTER A"}


def test_store_is_drawn_once_and_the_same_each_time(tmp_path: Path) -> None:
    told: list[float] = []
    name = build_glyphs(tmp_path / "a", lambda _, part: told.append(part), scripts=SMALL, classes_limit=20)
    build_glyphs(tmp_path / "b", scripts=SMALL, classes_limit=20)
    first, second = open_store(name, tmp_path / "a"), open_store(name, tmp_path / "b")
    assert told == sorted(told) and told[-1] == 1.0
    assert sum(len(split.classes) for split in first.splits.values()) == 20
    assert (first.mean, first.std) == ((0.0,), (1.0,))
    scripts = [set(split.superclasses) for split in first.splits.values()]
    assert not scripts[0] & scripts[1] and not scripts[0] & scripts[2] and not scripts[1] & scripts[2]
    for split in ("train", "val", "test"):
        images = first.splits[split].images
        assert images.shape[1:] == (28, 28, 1) and set(np.diff(first.splits[split].starts)) == {PICTURES}
        np.testing.assert_array_equal(images, second.splits[split].images)
        assert np.median(images) == 255 and images.reshape(len(images), -1).min(1).max() < 160
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)

    told.clear()
    build_glyphs(tmp_path / "a", lambda _, part: told.append(part), scripts=SMALL, classes_limit=20)
    assert not told
    build_glyphs(tmp_path / "a", lambda _, part: told.append(part), scripts=SMALL, classes_limit=20, seed=1)
    assert told
    assert (open_store(name, tmp_path / "a").splits["train"].images != second.splits["train"].images).any()


def test_a_class_is_the_same_whichever_others_are_built(tmp_path: Path) -> None:
    build_glyphs(tmp_path, name="few", scripts=SMALL, classes_limit=10)
    build_glyphs(tmp_path, name="more", scripts=SMALL, classes_limit=40)
    few, more = open_store("few", tmp_path).splits["test"], open_store("more", tmp_path).splits["test"]
    at = [more.classes.index(name) * PICTURES for name in few.classes if name in more.classes]
    assert at
    own = few.classes.index(more.classes[at[0] // PICTURES]) * PICTURES
    np.testing.assert_array_equal(few.images[own : own + PICTURES], more.images[at[0] : at[0] + PICTURES])


def test_errors_name_the_script_or_the_empty_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'Hebrew'"):
        build_glyphs(tmp_path, scripts=["Hebrw"])
    with pytest.raises(DataError, match="no characters are left for train, val"):
        build_glyphs(tmp_path, scripts=["Hebrew"])
    assert not list(tmp_path.iterdir())
