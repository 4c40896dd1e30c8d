"""Programs that predict without Lethax: another process loads and calls them, and gets the numbers of `predict`."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from pictures_run import adapted_to

from lethax import cli
from lethax.data import loose

pytest.importorskip("flatbuffers")


def called(path: Path, *arguments: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(export.deserialize(bytearray(path.read_bytes())).call)(*arguments))


def test_the_page_on_export_loads_a_model_in_a_process_that_cannot_import_lethax(
    picture_run: Path, tmp_path: Path
) -> None:
    model, images = adapted_to(picture_run, "support")
    model.save(tmp_path / "model.safetensors")
    file = tmp_path / "model.stablehlo"
    assert cli.main(["export", "--model", str(tmp_path / "model.safetensors"), "-o", str(file)]) == 0
    about = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert (
        about["classes"] == list(model.classes) and about["norm"] == "support" and "uint8 [n, 16, 16, 3]" in str(about)
    )
    np.save(tmp_path / "images.npy", images)
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    code = textwrap.dedent(page.partition("In a process that has JAX:\n\n")[2].partition("\n## ")[0])
    last = "\nimport sys; assert 'lethax' not in sys.modules; np.save('found.npy', probabilities)"
    done = subprocess.run([sys.executable, "-I", "-c", code + last], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), model.probabilities(images), atol=1e-5)


def test_a_run_adapts_in_its_program(picture_run: Path, tmp_path: Path) -> None:
    """To support sets of any number of pictures, of which it knew nothing."""
    model, images = adapted_to(picture_run, "support")
    labels = loose.labelled(picture_run / "support", model.inputs.example, lambda *_: None).labels
    file = tmp_path / "run.stablehlo"
    # In a process of its own: the sizes of a program are symbols, which the checks of types in this one do not know.
    words = ["-m", "lethax", "export", str(picture_run / "run"), "-o", str(file)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "their classes: int32 [s], every number from 0 to 2" in " ".join(done.stdout.split())
    found = called(file, model.support, labels, images[:3])
    np.testing.assert_allclose(found, model.probabilities(images[:3]), atol=1e-5)
    fewer = called(file, model.support[::-1][:8], labels[::-1][:8], images[:1])
    assert fewer.shape == (1, 3) and np.isclose(fewer.sum(), 1)


def test_what_cannot_be_exported(picture_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.safetensors"
    adapted_to(picture_run, "batch")[0].save(model)
    for words, said in [
        ([], "export takes a run"), ([str(picture_run / "run"), "--model", "m"], "export takes a run"),
        (["--model", "m", "--way", "3"], "leave --way out"), ([str(picture_run / "run"), "--way", "1"], "--way is 1; it has to be"),
        ([str(picture_run / "run"), "-o", str(picture_run / "run")], "its name has to end in .stablehlo or .onnx"),
        ([str(picture_run / "run"), "-o", "p.onnx"], "is written of an adapted model"),
    ]:  # fmt: skip
        assert cli.main(["export", *words]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.MonkeyPatch.context() as patch:
        for package, extra in (("flatbuffers", "export"), ("jax2onnx", "onnx")):
            patch.setitem(sys.modules, package, None)
            file = tmp_path / f"p.{'onnx' if extra == 'onnx' else 'stablehlo'}"
            assert cli.main(["export", "--model", str(model), "-o", str(file)]) == 1
            assert f'package {package}: pip install "lethax[{extra}]"' in " ".join(capsys.readouterr().err.split())
            assert not file.exists()


def test_onnx(picture_run: Path, tmp_path: Path) -> None:
    """The converter is large, so that it is not among the packages of these tests; where it is installed, this runs."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, images = adapted_to(picture_run, "support")
    model.save(tmp_path / "model.safetensors")
    file = tmp_path / "model.onnx"
    assert cli.main(["export", "--model", str(tmp_path / "model.safetensors"), "-o", str(file)]) == 0
    session = runtime.InferenceSession(str(file))
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(found, model.probabilities(images), atol=1e-5)
