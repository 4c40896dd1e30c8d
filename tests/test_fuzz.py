"""A short slice of `fuzz.py`, the same inputs every time: accepted, or refused in one sentence, and nothing else."""

from pathlib import Path

import fuzz
import pytest

COUNTS = {"cifar": 10, "leo": 60, "npz": 60, "npy": 60, "safetensors": 60, "store": 100, "omniglot": 60, "zip": 100}


@pytest.mark.parametrize("name", fuzz.LOADERS)
def test_odd_inputs_are_accepted_or_refused(name: str, tmp_path: Path) -> None:
    loader = fuzz.LOADERS[name]
    seeds = loader.seeds()
    for blob in seeds:
        assert fuzz.tried(loader, blob, tmp_path / "a") == ("accepted", "")
    found = [
        (n, *fuzz.tried(loader, fuzz.made(loader, seeds, name, 0, n), tmp_path / "a"))
        for n in range(COUNTS.get(name, 200))
    ]
    assert not [one for one in found if one[1] == "other"]
    assert "refused" in {outcome for _, outcome, _ in found}


def test_what_is_no_refusal_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(folder: Path) -> None:
        raise RecursionError("deep")

    loader = fuzz.Loader("a", lambda: [b"a"], breaks, lambda rng, blob: blob)
    assert fuzz.tried(loader, b"a", tmp_path / "a") == ("other", "RecursionError: deep")
