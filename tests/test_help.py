"""The help of `lethax train` and `lethax recipe`, the recipe that is printed, old spellings, and plugins that cannot be."""

import re
import shutil
import subprocess
from importlib.metadata import EntryPoint

import pytest

from lethax import cli, plugins
from lethax.cli import program, recipe_options
from lethax.cli.train import asked
from lethax.methods.registry import METHODS
from lethax.recipe import Recipe, sections
from lethax.recipe.resolve import resolve
from lethax.recipe.toml import parse


def printed(capsys, monkeypatch, *words):
    """What a command prints on a terminal of eighty columns."""
    monkeypatch.setattr(program.train_help.console, "_width", 80)
    assert cli.main([*words]) == 0
    return capsys.readouterr().out.splitlines()


def flags(lines):
    return {word.strip(",.:") for line in lines for word in line.split() if word.startswith("--")} - {
        "--method",
        "--help",
    }


@pytest.mark.parametrize("command", ["train", "recipe"])
def test_the_help_of_all_fits_two_screens_and_names_every_section(command, capsys, monkeypatch):
    lines = printed(capsys, monkeypatch, command, "--help")
    assert len(lines) <= 80 and max(map(len, lines)) <= 80 and "None" not in " ".join(lines)
    assert set(sections.SECTIONS) <= {line.split()[0] for line in lines if line.startswith("  ")}
    assert ("--resume" in flags(lines)) == (command == "train")


def options_with_defaults(lines):
    """{flag: default} of a help text, whose options begin after two spaces and go on under the second column."""
    texts = {}
    for line in lines:
        if line.startswith("  --"):
            flag = line.split()[0]
            texts[flag] = ""
        if texts and line.startswith("  "):
            texts[flag] += f" {line.strip()}"
    return {
        f: re.sub(" +", "", found[1])
        for f, text in texts.items()
        if (found := re.search(r"\(default: ([^)]*)\)", text))
    }


@pytest.mark.parametrize(("data", "method"), [("sinusoid", "l2f"), ("navigation", "maml"), ("cifar_fs", "maml_pp")])
def test_the_help_of_a_method_shows_what_would_be_used_and_nothing_that_is_refused(
    data, method, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    lines = printed(capsys, monkeypatch, "train", data, "--method", method, "--help")
    resolved, shown = resolve(Recipe.of(data=data, method=method)), options_with_defaults(lines)
    known, used = sections.by_key(), set(resolved.used)
    assert max(map(len, lines)) <= 80 and f"For method {method} on {data}" in " ".join(lines)
    top = {"--method", "--preset", "--seed", "--memory", "--out", "--root", "--probe-every"}  # of no section
    assert {f.replace("[no-]", "") for f in shown} - top == {f"--{known[key].flag}" for key in used}
    for key in used - {key for key in used if known[key].kind is bool or known[key].kind == tuple[float, ...]}:
        assert shown[f"--{known[key].flag}"] == str(resolved.value(key)), key
    for section in set(sections.SECTIONS) - set(resolved.sections):
        assert f"{section}:" not in lines


def test_the_help_follows_the_options_beside_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path))
    (tmp_path / "own.toml").write_text('data = "sinusoid"\n[gate]\nlayers = 3\n')
    given = [
        "--inner-steps=7",
        "--gate-scope",
        "layer",
        "--recipe",
        str(tmp_path / "own.toml"),
        "--out",
        "x",
        "--root",
        str(tmp_path),
    ]
    shown = options_with_defaults(printed(capsys, monkeypatch, "train", *given, "-h"))
    assert (shown["--inner-steps"], shown["--gate.scope"], shown["--gate.layers"]) == ("7", "layer", "3")
    both = [
        printed(capsys, monkeypatch, "train", "--out", "runs/x", "--help"),
        printed(capsys, monkeypatch, "train", "--help"),
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("old,new,data", [
    ("--gate-scope layer", "--gate.scope layer", "sinusoid"),
    ("--gate-fixed 0.5 1", "--gate.fixed 0.5 1", "sinusoid"),
    ("--no-gate-detached", "--gate.no-detached", "sinusoid"),
    ("--spread 0.5", "--deviation 0.5", "sinusoid"),
    ("--net.deviation 0.5", "--deviation 0.5", "sinusoid"),
    ("--inner.steps 3 --episode.shot 4", "--inner-steps 3 --shot 4", "sinusoid"),
    ("--rl-horizon=7", "--control.horizon 7", "navigation"),
    ("--rl-actions raw --rl-limit 0.3", "--navigation.actions raw --navigation.limit 0.3", "navigation"),
    ("--rl-gate-log-std", "--control.gate-log-std", "navigation"),
    ("--rl-physics rllab", "--locomotion.physics rllab", "cheetah_dir"),
    ("--leo-kl 0.5 --method leo", "--leo.kl 0.5 --method leo", "mini_leo"),
])  # fmt: skip
def test_old_spellings_are_the_new_options(old, new, data):
    def given(line):
        words = [recipe_options.normal(word) for word in ["train", data, *line.split()]]
        return resolve(asked(program.parsed(words)))

    assert given(old) == given(new) != given("--method leo" if data == "mini_leo" else "")


@pytest.mark.parametrize("method", METHODS)
def test_the_printed_recipe_is_the_one_that_trains(method, capsys):
    for data in ("sinusoid", "navigation"):
        line = ["recipe", data, "--method", method, "--seed", "3"]
        code = cli.main(line)
        out, err = capsys.readouterr()
        if code:
            assert code == 2 and not out and "does not fit data" in err
        else:
            assert resolve(parse(out, "what was printed")) == resolve(asked(program.parsed(line)))


def test_plugins_that_cannot_be_loaded_are_one_sentence(tmp_path, capsys, monkeypatch):
    for name, text, said in (
        ("none.py", None, "is no Python file: name one that registers"),
        ("text.md", "hello", "is no Python file: name one that registers"),
        ("broken.py", "1 / 0", "fails in line 1: ZeroDivisionError: division by zero. Correct it there."),
        ("ends.py", "raise SystemExit(3)", "fails in line 1: SystemExit: 3. Correct it there."),
        ("form.py", "def (", "fails: SyntaxError: "),
        (
            "red.py",
            "raise ValueError('\\x1b[31mred\\n')",
            "fails in line 1: ValueError: \\x1b[31mred\\n. Correct it there.",
        ),
        (
            "taken.py",
            TAKEN,
            "fails in line 2: RecipeError: a method called 'maml' exists already: choose another name. Correct",
        ),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        for line in (["--plugin", str(tmp_path / name)], [f"--plugin={tmp_path / name}"], []):
            monkeypatch.setenv("LETHAX_PLUGINS", "" if line else str(tmp_path / name))
            assert cli.main(["recipe", "sinusoid", *line]) == 2
            out, err = capsys.readouterr()
            assert (
                err.startswith(f"lethax: plugin {tmp_path / name} ")
                and said in err
                and err.count("\n") == 1
                and not out
            )


TAKEN = "from lethax.methods.registry import Method, register\nregister(Method('maml', 'Mine.', print))\n"


def test_an_installed_plugin_that_fails_is_one_sentence(capsys, monkeypatch):
    point = EntryPoint(name="mine", value="no_such_module", group=plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert cli.main(["recipe", "sinusoid"]) == 2
    assert capsys.readouterr().err == (
        "lethax: plugin no_such_module fails: ModuleNotFoundError: No module named 'no_such_module'. "
        "Update the package that it is of, or remove it.\n"
    )


def completion(capsys, shell):
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["--tyro-print-completion", shell])
    assert not end.value.code
    return capsys.readouterr().out


def test_completion_is_printed_for_both_shells(capsys):
    assert completion(capsys, "zsh").startswith("#compdef lethax\n")
    assert "complete -F" in completion(capsys, "bash")


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    "typed,wanted",
    [("lethax comp", "compare"), ("lethax train --sho", "--shot"), ("lethax data pre", "prepare")],
)
def test_bash_completes(typed, wanted, capsys):
    *before, word = typed.split()
    script = [
        completion(capsys, "bash"),
        f"COMP_WORDS=({typed}); COMP_CWORD={len(before)}; COMP_LINE='{typed}'; COMP_POINT={len(typed)}",
        f"_tyro_lethax lethax {word} {before[-1]}",
        'echo "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(["bash"], input="\n".join(script), capture_output=True, text=True, check=True)
    assert wanted in done.stdout.split()
