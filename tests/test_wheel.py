"""What is distributed: a wheel that was built from the source archive runs from an empty folder, away from the checkout."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the package hatchling, which builds the distributions, is not installed")
ROOT = Path(__file__).parent.parent
TINY = "train sinusoid --shot 2 --query 2 --batch 2 --filters 4 --depth 1 --steps 2 --epoch 2 --val-episodes 2".split()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that the wheel was installed into. The wheel is of the unpacked source archive, which has to be whole."""
    made, unpacked, target = (tmp_path_factory.mktemp(name) for name in ("made", "unpacked", "target"))
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(made)]
    subprocess.run([*build, "--target", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (archive,) = made.glob("lethax-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(
            unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # from Python 3.11.4 on
    (folder,) = unpacked.iterdir()
    assert (
        (folder / "CITATION.cff").is_file() and (folder / "docs/faq.md").is_file() and (folder / "mkdocs.yml").is_file()
    )
    subprocess.run([*build, "--target", "wheel"], cwd=folder, check=True, capture_output=True)
    (wheel,) = made.glob("lethax-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return target


def run(installed: Path, where: Path, *words: str) -> str:
    """What a Python process prints that knows the installed package and nothing of the checkout."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LETHAX", "PYTHON"))}
    environment = {
        **plain,
        "PYTHONPATH": str(installed),
        "LETHAX_CACHE": str(where / ".cache"),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run([sys.executable, *words], cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_trains_in_an_empty_folder(installed, tmp_path):
    assert "reproduce" in run(installed, tmp_path, "-m", "lethax", "--help")
    run(installed, tmp_path, "-m", "lethax", *TINY, "--out", "tried")
    assert {path.name for path in tmp_path.iterdir()} == {"tried", ".cache"}
    assert (tmp_path / "tried" / "recipe.toml").is_file()


def test_recipes_splits_and_all_other_files_are_in_it(installed, tmp_path):
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lethax").rglob("*") if path.is_file()}
    own |= {f"lethax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.toml")}
    own = {name for name in own if "__pycache__" not in name}
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert own <= found and len(own) > 200
    code = "import lethax; from lethax.report.cells import table_names; print(lethax.__file__, *table_names())"
    place, *tables = run(installed, tmp_path, "-c", code).split()
    assert Path(place).is_relative_to(installed) and "table_b" in tables
