"""A command line that cannot be is one sentence and exit code 2; what a terminal cannot show is replaced."""

import io
import os
import re
import subprocess
import sys

import pytest

from lethax import __version__, cli
from lethax.cli import program, usage
from lethax.cli.fields import WITH_RECIPE
from lethax.report import cells

SEE = " See lethax train --help."


@pytest.mark.parametrize(
    "line,said",
    [
        (
            "trian",
            "'trian' stands where lethax expects a command. Did you mean 'train'? Commands: data, models, train, recip",
        ),
        (
            "",
            "lethax needs one of: data, models, train, recipe, evaluate, compare, predict, export, ",
        ),
        ("data", "lethax data needs one of: list, prepare, verify. See lethax data --help."),
        ("data lst", "'lst' stands where lethax data expects a command. Did you mean 'list'?"),
        ("data prepare foldr", "NAME is 'foldr'; expected one of cifar100, omniglot"),
        ("data prepare folder --form x", "lethax data prepare has no option '--form'. Did you mean '--from'?"),
        ("data verify", "lethax data verify needs NAME."),
        (
            "train sinusoid --inner-raet 3",
            "lethax train has no option '--inner-raet'. Did you mean '--inner-rate'?" + SEE,
        ),
        ("train sinusoid --inner-rate fast", "--inner-rate is 'fast'; expected a number." + SEE),
        ("train sinusoid --steps=3.5", "--steps is '3.5'; expected an integer." + SEE),
        ("train sinusoid --steps", "--steps needs a value, an integer." + SEE),
        ("train sinusoid --gate.fixed 1 a", "--gate.fixed is 'a'; expected a number." + SEE),
        ("train sinusoid --gate-fixed 1 a", "--gate.fixed is 'a'; expected a number." + SEE),
        (
            "train sinusoid --gate.scop layer",
            "lethax train has no option '--gate.scop'. Did you mean '--gate.scope'?" + SEE,
        ),
        ("train sinusoid --gate.detached --no-gate-detached", "--gate.detached and --gate.no-detached were both given"),
        ("recipe sinusoid --shto 3", "lethax recipe has no option '--shto'. Did you mean '--shot'?"),
        ("recipe sinusoid --plugin", "--plugin needs a value, a path."),
        (
            "train sinusoid --method maml --gate.scope layer",
            "gate.scope is layer, but method 'maml' on 'sinusoid' does not",
        ),
        (
            "train sinusoid --rl-horizon 5",
            "control.horizon is 5, but method 'l2f' on 'sinusoid' does not read the section",
        ),
        ("train navigation --outer-rate 0.1", "outer.rate is 0.1; data 'navigation' does not have that choice"),
        ("train sinusoid --way 5", "episode.way is 5; data 'sinusoid' has no classes: leave --way out."),
        ("train sinusoid --rotate True", "--rotate takes no value: write --rotate or --no-rotate." + SEE),
        ("train sinusoid --rotate --no-rotate", "--rotate and --no-rotate were both given: leave one out."),
        ("train sinusoid extra", "lethax train has no place for 'extra'"),
        (
            "predict RUN -o table.csv --overwrite",
            "lethax predict has no option '--overwrite'." + SEE.replace("train", "predict"),
        ),
        ("predict RUN -o", "-o needs a value, a path."),
        ("train sinusoid --seed=-1", "seed is -1; it has to be from 0 to 4294967295."),
        ("train sinusoid \x1b[31mred", "lethax train has no place for '\\x1b[31mred'"),
        ("train sinusoid --steps " + "9" * 5000, "--steps is '9999"),
        ("evaluate run --split tst", "--split is 'tst'; expected one of train, val, test. Did you mean 'test'?"),
        ("reproduce table_e", "no table, cell or figure is called 'table_e'. Did you mean"),
    ],
)
def test_one_sentence(line, said, capsys):
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"lethax: {said}") and err.count("\n") == 1 and len(err) < 400 and not out


def test_every_option_is_known_to_the_explanation():
    """What the parser takes, the explanation of its refusals knows; else it would blame the wrong word."""
    for command, kind in usage.commands.commands().items():
        if command in (
            *usage.commands.NESTED,
            *WITH_RECIPE,
        ):  # whose help is a text of its own, see below
            continue
        flags = {word.strip(",") for word in _help(command).split() if word.startswith("--")} - {"--help"}
        assert {f for f in flags if not f.endswith("--")} <= {o.flag for o in usage.options_of(kind)}


def _help(*words):
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said := io.StringIO())
        cli.main([*words, "--help"])
    return said.getvalue()


def test_help_names_all_that_can_be_asked_for():
    assert "--version" in _help()
    assert "[EVALUATE OPTIONS] RUN [RUN ...]" in _help("evaluate")  # not in brackets: it is needed
    tables = {path.parent.name for path in cells.FOLDER.glob("*/*.toml")}
    assert len(tables) > 10 and tables <= set(re.findall(r"\w+", _help("reproduce")))


def test_what_it_cannot_explain_is_said_without_the_frame():
    error = usage.explain(["train", "sinusoid"], "╭─ Value error ─╮\n│ some words    │\n│ that break    │\n╰──╯\n")
    assert str(error) == "some words that break See lethax train --help."


def test_version(capsys):
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out == f"lethax {__version__}\n"


def test_terminals_without_the_signs_get_plain_ones(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    program.plain_where_needed()
    print("0.5 ± 0.1 … Δ")
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"0.5 +/- 0.1 ... \\u0394\n"


def test_help_in_an_ascii_locale():
    env = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-m", "lethax", "train", "--help"], env=env, capture_output=True)
    assert done.returncode == 0 and not done.stderr and done.stdout.isascii() and b"--inner-rate" in done.stdout


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")])
def test_no_memory_is_one_sentence(error, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(program.train, "train", fail)
    assert cli.main(["train", "sinusoid"]) == 1
    assert capsys.readouterr().err.startswith("lethax: the memory does not suffice for this; lower --batch")
    monkeypatch.setattr(program.predict, "predict", fail)  # which has no such options
    assert cli.main(["predict", "--query", "q"]) == 1
    assert "suffice for this; predict fewer pictures at a time." in capsys.readouterr().err


def test_a_file_in_place_of_a_folder_is_named(tmp_path, capsys):
    (tmp_path / "afile").touch()
    assert (
        cli.main(["train", *"sinusoid --steps 1 --filters 2".split(), "--out", str(tmp_path / "afile" / "a" / "run")])
        == 1
    )
    assert capsys.readouterr().err == f"lethax: {tmp_path / 'afile'} is a file, not a folder: name another path.\n"


def test_reproduce_names_every_missing_data_set_before_anything_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    for more in ([], ["--dry-run"]):
        assert cli.main(["reproduce", "tieredimagenet", "--out", str(tmp_path / "runs"), *more]) == 1
        out, err = capsys.readouterr()
        assert all(f"no data set '{name}'" in err for name in ("tieredimagenet", "tiered_leo"))
        assert "lethax data prepare tieredimagenet" in err
        assert not out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("line", "says"), [
    ("analyse run", "lethax analyse needs --what, one of gates, attenuation, "),
    ("evaluate", "needs at least one run folder, as in: lethax evaluate runs/"),
    ("evaluate x --episodes 0", "--episodes is 0; it has to be from 1 to"),
    ("evaluate x --steps 100000", "--steps is 100000; it has to be from 0 to 1,000"),
    ("data prepare glyphs --from x", "takes no --from"),
    ("data prepare folder", "needs --from FOLDER_OR_ARCHIVE with your pictures"),
    ("data prepare folder --from x --image 100000", "--image is 100000; pictures have a side of 1 to 1024"),
    ("data prepare folder --from x --seed -1", "seed is -1; it has to be from 0"),
])  # fmt: skip
def test_the_value_that_cannot_be_is_named(line, says, capsys):
    assert cli.main(line.split()) == 2
    assert says in capsys.readouterr().err


def test_runs_of_other_kinds_are_not_set_beside_each_other(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    for data in ("sinusoid", "navigation"):
        (tmp_path / data).mkdir()
        (tmp_path / data / "recipe.toml").write_text(f'data = "{data}"\n')
    assert cli.main(["evaluate", str(tmp_path / "sinusoid"), str(tmp_path / "navigation")]) == 2
    assert "is judged by its mse and" in capsys.readouterr().err


def test_a_folder_of_runs_gets_an_advice_that_fits_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text('data = "sinusoid"\n')
    for command, advice in (
        ("train --resume", "Name the one that you mean."),
        ("evaluate", "Name those that you mean."),
    ):
        assert cli.main([*command.split(), str(tmp_path)]) == 1
        assert f"holds 2: {tmp_path}/one, {tmp_path}/two. {advice}\n" in capsys.readouterr().err


def test_a_run_does_not_move_into_a_folder_of_something_else(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures" / "tiger").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name, says in (("pictures", "holds tiger, which is of no run"), ("file", "is a file, but a run is a folder")):
        assert cli.main(["train", "sinusoid", "--out", str(tmp_path / name)]) == 1
        assert says in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["tiger"]
