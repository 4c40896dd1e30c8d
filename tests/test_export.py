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
from PIL import Image

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
    assert "in RGB, the square in their middle, scaled to 16 x 16" in about["pictures"]
    np.save(tmp_path / "images.npy", images)
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    code = textwrap.dedent(page.partition("In a process that has JAX:\n\n")[2].partition("\n## ")[0])
    last = "\nimport sys; assert 'lethax' not in sys.modules; np.save('found.npy', probabilities)"
    done = subprocess.run([sys.executable, "-I", "-c", code + last], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), model.probabilities(images), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_on_export_reads_pictures_as_predict_does(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large JPEGs, which are decoded smaller, turned ones, transparent ones, palettes, and those of the size or a smaller one."""
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    scene = Image.fromarray(coarse).resize((70, 91), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    scene.resize((431, 377)).save("new/a.jpg", exif=turned)
    scene.resize((64, 16)).save("new/b.jpg")
    scene.quantize(9).save("new/c.png", transparency=2)
    scene.convert("LA").save("new/d.png")
    shade = Image.linear_gradient("L").resize(scene.size)
    scene.putalpha(shade)
    scene.save("new/e.png")
    scene.convert("RGB").resize((16, 16)).save("new/f.bmp")
    scene.convert("CMYK").resize((9, 12)).save("new/g.tiff")
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    code = textwrap.dedent(page.partition("give the same numbers:\n\n")[2].partition("\nPictures of 16 bits")[0])
    exec(code.replace("read(file, 84, 3)", f"read(file, 16, {channels})"), {})
    expected = loose.pictures(Path("new"), (16, 16, channels), lambda *_: None)
    assert expected.names == [file.name for file in sorted(Path("new").iterdir())] and len(expected.names) == 7
    np.testing.assert_array_equal(np.load("images.npy"), expected.images)


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


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(
    picture_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lethax.runs.export.export_run", None)  # would fail if it were called
    (tmp_path / "afile").touch()
    (tmp_path / "x.stablehlo.json").mkdir()
    export_to = ["export", str(picture_run / "run"), "-o"]
    assert cli.main([*export_to, str(tmp_path / "afile" / "x.stablehlo")]) == 2
    assert "afile is a file, not a folder" in capsys.readouterr().err
    assert cli.main([*export_to, str(tmp_path / "x.stablehlo")]) == 1
    assert (
        "x.stablehlo.json is a folder or a device" in capsys.readouterr().err
        and not (tmp_path / "x.stablehlo").exists()
    )


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
