"""Strangers' tests: a method, a net and tasks, each in one file outside the package, have all that the package's own have.

The files are those of examples/, which docs/extend.md explains.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import safetensors.numpy
from pictures_run import draw

from lethax import cli, domains, inner, nets, plugins
from lethax.data.writer import StoreWriter
from lethax.domains import own_nets
from lethax.errors import RecipeError
from lethax.methods.registry import METHODS, Method, method_of
from lethax.methods.registry import register as register_method
from lethax.objectives import SquaredError
from lethax.recipe import Recipe, load, sections
from lethax.recipe.options import option
from lethax.recipe.resolve import resolve
from lethax.records import EpisodeShape
from lethax.runs import making, training

ROOT = Path(__file__).parent.parent
TINY = (
    "--shot 2 --query 2 --eval-query 3 --batch 2 --filters 4 --depth 1 --inner-steps 1 --steps 4 --epoch 2 "
    "--val-episodes 3 --keep 2"
).split()


class Plugin(NamedTuple):
    """file: in examples/. words: what trains with it. own: its option, by key, with a value. adds: what a run keeps of it."""

    file: str
    words: tuple[str, ...]
    own: tuple[str, str, float]
    adds: tuple[str, ...]

    @property
    def path(self) -> str:
        return str(ROOT / "examples" / self.file)

    @property
    def given(self) -> list[str]:
        """The command line of a tiny run."""
        key, flag, value = self.own
        return [*self.words, *TINY, flag, str(value), "--plugin", self.path]


DOMAIN = Plugin(
    "new_tasks.py",
    ("oscillation", "--method", "maml"),
    ("oscillation.noise", "--oscillation.noise", 0.25),
    ("section oscillation", "tasks oscillation"),
)
METHOD = Plugin(
    "new_method.py",
    ("sinusoid", "--method", "decayed"),
    ("decayed.factor", "--decay", 0.25),
    ("method decayed", "section decayed"),
)
NET = Plugin(
    "new_net.py", ("pets", "--net", "tiles", "--method", "maml"), ("net.kind", "--net", "tiles"), ("net tiles",)
)
both = pytest.mark.parametrize("plugin", [DOMAIN, METHOD], ids=lambda plugin: plugin.file)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Call it to have no plugin again, as in a new process."""
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    monkeypatch.setenv("LETHAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LETHAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    tables = (METHODS, sections.SECTIONS, plugins._ADDED, sections._MORE, own_nets.NETS)
    before = list(domains.DOMAINS), [dict(table) for table in tables], set(sys.modules)

    def restore() -> None:
        domains.DOMAINS[:] = before[0]
        for table, known in zip(tables, before[1], strict=True):
            table.clear()
            table.update(known)
        sections._options.cache_clear()
        sections.by_key.cache_clear()
        for name in set(sys.modules) - before[2]:
            if name.startswith(("lethax_plugin", "stranger")):
                del sys.modules[name]

    yield restore
    restore()


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints, in one line; its exit code has to be `code`."""
    capsys.readouterr()
    assert cli.main(list(words)) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    return " ".join((err if code else out + err).split())


def state_of(run: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(max((run / "checkpoints").glob("step-*.safetensors")))


@both
def test_it_trains_evaluates_and_resumes_to_the_same_bits(plugin, tmp_path, capsys, forget):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trained = said(capsys, "train", *plugin.given, "--out", str(whole))
    assert "done" in trained and f"lethax evaluate {whole} --plugin {plugin.path}" in trained.replace("\n", "")
    key, _, value = plugin.own
    recipe = load(whole / "recipe.toml")
    assert recipe.get(key) == value and recipe.get("outer.steps") == 4

    calls = training.train(making.create(resolve(recipe), broken))
    assert next(calls).step == 2
    calls.close()
    with_it = ["--plugin", plugin.path]
    assert "going on from step 2" in said(capsys, "train", "--resume", str(broken), *with_it)
    expected, found = state_of(whole), state_of(broken)
    assert expected.keys() == found.keys() and len(found) > 4
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert (whole / "metrics.jsonl").read_text() == (broken / "metrics.jsonl").read_text()

    shown = said(capsys, "evaluate", str(whole), str(broken), "--episodes", "6", "--steps", "3", "--json", *with_it)
    first, second = json.loads(shown)
    assert first["n"] == 6 and len(first["by_inner_steps"]) == 4 and first["score"] == "mse"
    assert first["per_episode"] == second["per_episode"] and np.isfinite(first["mean"])
    assert first["data"] == plugin.words[0] and first["method"] == plugin.words[-1]

    kept = json.loads((whole / "environment.json").read_text())["plugins"]
    assert kept == {plugin.file: [*plugin.adds]}
    forget()
    for command in (["evaluate"], ["train", "--resume"]):
        error = said(capsys, *command, str(whole), code=1)
        assert "--plugin FILE" in error and error.count(". ") == 0
        assert f"{plugin.file} ({', '.join(plugin.adds)})" in error
    moved = shutil.copy(plugin.path, tmp_path / "moved.py")  # what counts is what it adds, not where it lies
    assert "finished" in said(capsys, "train", "--resume", str(whole), "--plugin", str(moved))


@both
def test_its_options_are_in_the_help_and_in_the_recipe(plugin, tmp_path, capsys, forget):
    key, flag, value = plugin.own
    section = key.partition(".")[0]
    helped = said(capsys, "train", *plugin.given, "--help")
    assert f" {section}: {flag} FLOAT {sections.by_key()[key].text} (default: {value})" in helped
    assert f"For method {plugin.words[-1]} on {plugin.words[0]}" in helped
    assert f" {section} " in said(capsys, "train", "--help", "--plugin", plugin.path)
    printed = tmp_path / "printed.toml"
    capsys.readouterr()
    assert cli.main(["recipe", *plugin.given]) == 0
    printed.write_text(capsys.readouterr().out)
    assert f"[{section}]\n# {sections.by_key()[key].text}\n{key.partition('.')[2]} = {value}\n" in printed.read_text()
    again = said(capsys, "recipe", "--recipe", str(printed), "--plugin", plugin.path)
    assert again == " ".join(printed.read_text().split())
    forget()
    assert f"[{section}]" in (error := said(capsys, "recipe", "--recipe", str(printed), code=2)) and "--plugin" in error
    assert "--plugin" in said(capsys, "train", *plugin.words, code=1 if plugin is DOMAIN else 2)


@both
def test_its_option_is_refused_where_nothing_reads_it(plugin, capsys):
    key, flag, value = plugin.own
    words = ["recipe", "sinusoid", "--method", "maml", "--plugin", plugin.path]
    assert f"does not read the section [{key.partition('.')[0]}]" in said(capsys, *words, flag, str(value), code=2)


def test_what_does_not_fit_the_tasks_or_the_method_is_refused(capsys):
    tasks, method = ["recipe", *DOMAIN.given], ["recipe", *METHOD.given]
    assert "has no classes" in said(capsys, *tasks, "--way", "5", code=2)
    assert "data 'oscillation' does not have that choice" in said(capsys, *tasks, "--net", "mlp", code=2)
    assert "leo takes features" in said(capsys, *tasks, "--method", "leo", code=2)
    assert "does not have that choice" in said(capsys, *method, "--rule", "sign", code=2)
    assert "does not read the section [gate]" in said(capsys, *method, "--gate.scope", "filter", code=2)
    assert "above 0" in said(capsys, *method, "--decay", "0", code=2)
    assert "at least 0" in said(capsys, *tasks, "--oscillation.noise=-1", code=2)


def test_the_two_plugins_fit_each_other_and_what_the_package_has(capsys):
    words = ["--plugin", DOMAIN.path, "--plugin", METHOD.path]
    for data, method in (("oscillation", "decayed+l2f"), ("oscillation", "maml_pp"), ("navigation", "decayed")):
        assert f'method = "{method}"' in said(capsys, "recipe", data, "--method", method, *words)
    learner = domains.domain_of(Recipe.of(data="oscillation")).learner(
        resolve(Recipe.of(data="oscillation", method="decayed+l2f", decay=0.5)), None
    )
    assert learner.gate_names() and learner.rule.decay == 0.5 and isinstance(learner.objective, SquaredError)


@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_the_rate_decays(loop, key):
    """On L = w²/2 a step multiplies w by 1 − α β^j."""
    plugins.load([METHOD.path])
    rule = (
        method_of(Recipe.of(data="sinusoid", method="decayed"))
        .make(*_sine_net(), objective=SquaredError(), loop=loop)
        .rule
    )

    def update(weights, step):
        return rule.apply({}, weights, weights, step), weights["w"]

    last = inner.descend(update, {"w": jax.numpy.ones(())}, 3, loop=loop).last["w"]
    assert float(last) == pytest.approx((1 - 0.5) * (1 - 0.5 * 0.1) * (1 - 0.5 * 0.01))


def _sine_net():
    recipe = resolve(Recipe.of(data="sinusoid", method="decayed", inner_rate=0.5, decay=0.1))
    return domains.domain_of(recipe).net(recipe, None), recipe


def test_the_oscillators_move_as_they_should(key):
    plugins.load([DOMAIN.path])
    recipe = resolve(Recipe.of(data="oscillation"))
    tasks, source = domains.domain_of(recipe).family(recipe, "test")
    episode = tasks.draw(source, EpisodeShape(1, 300, 300), key)
    t, (x, v) = np.concatenate([s.x[:, 0] for s in episode]), np.concatenate([s.y for s in episode]).T
    order = np.argsort(t)
    slope = np.gradient(x[order], t[order], edge_order=2)
    assert np.median(np.abs(slope - v[order])) < 0.02 < np.abs(v).max()
    noisy = tasks.draw({"noise": 0.1}, EpisodeShape(1, 300, 300), key)
    assert np.std(noisy.query.y - episode.query.y) == pytest.approx(0.1, rel=0.1)


def test_files_of_the_variable_and_installed_packages_are_loaded(tmp_path, monkeypatch, capsys, forget):
    monkeypatch.setenv(plugins.VARIABLE, f"{DOMAIN.path}:{METHOD.path}")
    assert "[oscillation]" in said(capsys, "recipe", "oscillation", "--method", "decayed")
    monkeypatch.delenv(plugins.VARIABLE)
    forget()
    shutil.copy(METHOD.path, tmp_path / "stranger_method.py")
    domain = Path(DOMAIN.path).read_text()
    body, last = domain.split('register_tasks("osc')
    function = f'def setup():\n    register_tasks("osc{last}'
    (tmp_path / "stranger_domain.py").write_text(body + function)
    about = tmp_path / "stranger-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[{plugins.GROUP}]\nmethod = stranger_method\ndomain = stranger_domain:setup\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "[decayed]" in said(capsys, "recipe", "oscillation", "--method", "decayed")
    recipe = resolve(Recipe.of(data="oscillation", method="decayed"))
    assert plugins.used_by(recipe) == {"stranger_method": [*METHOD.adds], "stranger_domain:setup": [*DOMAIN.adds]}


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("x = 1\nraise KeyError('beside')", "fails in line 2: KeyError: 'beside'"),
        ("import no_such_module", "fails in line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f(:", "fails: SyntaxError"),
        (None, "is no Python file"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named(text, wrong, tmp_path, capsys):
    path = tmp_path / "bent.py"
    if text is not None:
        path.write_text(text)
    error = said(capsys, "recipe", "sinusoid", "--plugin", str(path), code=2)
    assert error.startswith("lethax: plugin") and "bent.py" in error and wrong in error


def test_a_name_that_is_taken_is_refused(tmp_path, capsys):
    """Of a section, an option, a method, a kind of tasks and their data."""
    plugins.load([DOMAIN.path, METHOD.path, NET.path])
    text = {plugin: Path(plugin.path).read_text() for plugin in (DOMAIN, METHOD, NET)}
    other = ('"decayed", "MAML', '"slower", "MAML'), ('section("decayed")', 'section("slower")')
    changes = [
        (METHOD, [], "a section called 'decayed' exists already"),
        (METHOD, [*other], "--decay, as decayed.factor is already"),
        (METHOD, [(", Options\n)", "\n)")], "a method called 'decayed' exists already"),
        (DOMAIN, [], "a section called 'oscillation' exists already"),
        (DOMAIN, [(" options=Options,", "")], "kind 'oscillation' exists already"),
        (NET, [], "net.kind has the value 'tiles' already"),
        (NET, [('net("tiles"', 'net("My net"')], "its name has only lower-case letters"),
    ]
    for number, (plugin, pairs, wrong) in enumerate(changes):
        changed = text[plugin]
        for before, after in pairs:
            assert before in changed
            changed = changed.replace(before, after)
        (tmp_path / f"{number}.py").write_text(changed)
        assert wrong in said(capsys, "recipe", "sinusoid", "--plugin", str(tmp_path / f"{number}.py"), code=2)


def test_a_section_has_options_alone():
    class Bent:
        rate: float = 1.0

    with pytest.raises(RecipeError, match=r"bent.rate is no option: write rate: TYPE = option"):
        sections.register_section("bent", dataclass(Bent))

    @dataclass(frozen=True)
    class Odd:
        rates: list = option((), "A list.")

    with pytest.raises(RecipeError, match=r"odd.rates is a .*list.*: an option is"):
        sections.register_section("odd", Odd)
    with pytest.raises(RecipeError, match="lower-case letters"):
        sections.register_section("my-section", Odd)
    assert not {"bent", "odd", "my-section"} & set(sections.SECTIONS)


def test_registering_again_changes_nothing():
    plugins.load([DOMAIN.path, METHOD.path])
    known = list(domains.DOMAINS), dict(METHODS)
    plugins.load([DOMAIN.path, METHOD.path])
    domains.register(domains.DOMAINS[0])
    register_method(METHODS["decayed"])
    assert known == (domains.DOMAINS, METHODS)
    with pytest.raises(RecipeError, match="'decayed' exists already"):
        register_method(Method("decayed", "Another.", METHODS["maml"].make))


@pytest.mark.parametrize("plugin", [METHOD, NET, DOMAIN], ids=lambda plugin: plugin.file)
def test_the_page_shows_the_code_of_the_examples(plugin):
    """Every block of docs/extend.md is a piece of the file that its part explains, and every command is one of its docstring."""
    page = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    code = Path(plugin.path).read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 40
    (part,) = (part for part in page.split("\n## ") if f"[examples/{plugin.file}]" in part)
    blocks, commands = re.findall(r"```python\n(.*?)```", part, re.S), re.findall(r"^    lethax .*", part, re.M)
    assert len(blocks) >= 2 and commands
    assert all(block in code for block in blocks) and all(command in code for command in commands)


def test_a_net_trains_evaluates_and_predicts(tmp_path, capsys, forget):
    for i in range(9):
        draw(tmp_path / "pictures", f"class{i}", i, 6)
    for i, name in enumerate(("one", "two", "three")):
        draw(tmp_path / "support", name, i, 3)
        draw(tmp_path / "query", name, i, 4)
    run, with_it = str(tmp_path / "run"), ["--plugin", NET.path]
    said(capsys, "data", "prepare", "folder", "--from", str(tmp_path / "pictures"), "--store", "pets", "--image", "16")
    tiny = (
        "--way 3 --shot 2 --query 2 --filters 8 --inner-steps 2 --inner-rate 0.1 --batch 1 --steps 2 --epoch 2".split()
    )
    assert "done" in said(capsys, "train", *NET.words, *tiny, "--val-episodes", "2", "--out", run, *with_it)
    assert json.loads((Path(run) / "environment.json").read_text())["plugins"] == {NET.file: [*NET.adds]}
    (judged,) = json.loads(said(capsys, "evaluate", run, "--episodes", "4", "--json", *with_it))
    assert judged["n"] == 4 and 0 <= judged["mean"] <= 1
    words = [
        "--support",
        str(tmp_path / "support"),
        "--query",
        str(tmp_path / "query"),
        "-o",
        str(tmp_path / "found.csv"),
    ]
    said(capsys, "predict", run, *words, "--head", "zero", *with_it)
    rows = [line.split(",") for line in (tmp_path / "found.csv").read_text().splitlines()[1:]]
    assert len(rows) == 12 and {row[1] for row in rows} <= {"one", "two", "three"}
    forget()
    assert f"{NET.file} (net tiles)" in said(capsys, "evaluate", run, code=1)
    assert "expected one of conv4, resnet12, mlp." in said(capsys, "recipe", "pets", "--net", "tiles", code=2)


def test_a_net_reads_features_too(capsys):
    """The data decide what a net gets: a store of vectors makes it one of features."""
    with StoreWriter(None, "vectors", mean=(), std=(), source={}) as writer:
        for split in ("train", "val", "test"):
            classes = [(f"{split}{i}", "", 4) for i in range(3)]
            writer.split(split, (6,), classes)[:] = np.random.default_rng(0).normal(size=(12, 6))
    made = {}

    def net(recipe, inputs):
        made["example"] = inputs.example
        return nets.MLP(inputs.example[0], (recipe.net.filters,), recipe.episode.way)

    domains.register_net("slim", net)
    domains.register_net("slim", net)  # again changes nothing
    recipe = resolve(Recipe.of(data="vectors", net="slim", way=3, shot=1, query=2, filters=5))
    domain = domains.domain_of(recipe)
    learner = domain.learner(recipe, domain.inputs(recipe))
    assert domain.kind == "features" and made["example"] == (6,) and learner.net.hidden == (5,)


@pytest.mark.parametrize("values,message", [
    ({"name": "a b"}, "a method is called 'a b'"),
    ({"sections": ("gaet",)}, "names the section 'gaet', which does not exist. Did you mean 'gate'?"),
    ({"without": frozenset({"inner.rulle"})}, "names the option 'inner.rulle', which does not exist. Did you mean 'inner.rule'?"),
    ({"fixed": {"order": 1}}, "names the option 'order', which does not exist"),
])  # fmt: skip
def test_a_method_names_what_there_is(values, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        register_method(Method(**{"name": "mine", "text": "Mine.", "make": print, **values}))
    assert "mine" not in METHODS and "a b" not in METHODS


@pytest.mark.parametrize("short", ["method", "resume", "plugin"])
def test_an_option_of_a_plugin_does_not_hide_one_of_the_command_line(short):
    @dataclass(frozen=True)
    class Taken:
        factor: float = option(0.5, "A factor.", short)

    with pytest.raises(RecipeError, match=f"taken.factor is called --{short}, as --{short} is already"):
        sections.register_section("taken", Taken)


def test_a_plugin_that_registers_nothing_is_said(tmp_path, capsys):
    (tmp_path / "empty.py").write_text("")
    assert cli.main(["recipe", "sinusoid", "--plugin", str(tmp_path / "empty.py")]) == 2
    assert "it registers no method, no net, no tasks and no section" in capsys.readouterr().err


def test_a_default_of_the_wrong_type_is_named():
    @dataclass(frozen=True)
    class Wrong:
        factor: float = option("half", "A factor.", above=0)

    sections.register_section("wrong", Wrong)
    register_method(Method("mine", "Mine.", print, sections=("wrong",)))
    with pytest.raises(RecipeError, match="the default of wrong.factor is 'half'; expected a number"):
        resolve(Recipe.of(data="sinusoid", method="mine"))


def test_a_published_value_of_no_option_is_named():
    register_method(Method("mine", "Mine.", print, defaults=lambda preset: {"inner.stepz": 3}))
    with pytest.raises(RecipeError, match="'inner.stepz' is a published value .* Did you mean 'inner.steps'"):
        resolve(Recipe.of(data="sinusoid", method="mine"))


def test_what_is_no_learner_is_named(tmp_path):
    register_method(Method("mine", "Mine.", lambda *_, **__: None))
    with pytest.raises(RecipeError, match="method 'mine' made a NoneType, which is no learner"):
        making.enter(resolve(Recipe.of(data="sinusoid", method="mine")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_names_of_made_tasks_are_a_tuple():
    (domain,) = (d for d in domains.DOMAINS if d.kind == "curves")
    with pytest.raises(RecipeError, match="made='waves'; it has to be a tuple of names"):
        domains.register(replace(domain, kind="waves", made="waves"))
