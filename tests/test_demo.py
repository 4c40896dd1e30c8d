"""The demo, with budgets of seconds and without its glyphs: a table that fits eighty columns, and pictures."""

from PIL import Image

from lethax import cli, data
from lethax.cli import demo


def test_demo(tmp_path, monkeypatch, capsys):
    recipe, _ = demo.SETTINGS["sinusoid"]
    tiny = recipe.with_values(steps=100, epoch=100, val_episodes=50, filters=8)
    monkeypatch.setattr(demo, "SETTINGS", {"sinusoid": (tiny, 100)})
    monkeypatch.setattr(data, "prepare", lambda *_: ["glyphs"])
    monkeypatch.setattr(demo.console, "_width", 80)
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # the second time everything is there
        assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 0
        out = capsys.readouterr().out
        assert "…" not in out and "MAML+L2F  100" in out and out.count(" ± ") == 4
    for name in ("sinusoid-adaptation.png", "sinusoid-fits.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 500
    monkeypatch.setattr(demo, "SETTINGS", {"sinusoid": (tiny.with_values(filters=9), 100)})
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 1
    assert "of another recipe (net.filters: 8 there, 9 now): choose another --out" in capsys.readouterr().err
