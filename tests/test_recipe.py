"""Recipes from files, and values that cannot be: one sentence each."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

import jax.numpy as jnp
import numpy as np
import pytest

from lethax import cli
from lethax.errors import LethaxError, RecipeError
from lethax.methods.registry import METHODS
from lethax.recipe import Recipe, dump, load, sections
from lethax.recipe.options import Range
from lethax.recipe.record import TOP
from lethax.recipe.resolve import fit, resolve
from lethax.recipe.toml import parse, write

RECIPES = sorted((Path(__file__).parent.parent / "recipes").rglob("*.toml"))


@pytest.mark.parametrize(
    "values,message",
    [
        ({"seed": -1}, "seed is -1; it has to be from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; it has to be from 0"),
        ({"seed": 10**22}, "seed is 10000000000000000000000; it has"),
        ({"seed": 10**5000}, "seed is a number of more than 24 digits; it has"),
        ({"data": "birds", "way": 1}, "episode.way is 1; with one class there is nothing to tell apart"),
        ({"way": 5}, "episode.way is 5; data 'sinusoid' has no classes: leave --way out"),
        ({"data": "navigation", "way": 2}, "data 'navigation' has no classes"),
        ({"steps": 10**400}, "outer.steps is a number of more than 24 digits; it has to be below"),
        ({"filters": 2**31}, "net.filters is 2147483648; it has to be below 2147483648"),
        ({"batch": 6, "task_chunk": 4}, "outer.task_chunk is 4; it has to divide outer.batch, 6, or be 0"),
        ({"first_order_steps": -1}, "inner.first_order_steps is -1; it has to be at least 0"),
        ({"inner_rate": float("inf")}, "inner.rate is inf; it has to be a finite number"),
        ({"gate_embedding_scale": float("nan")}, "gate.embedding_scale is nan; it has to be a finite"),
        ({"gate_fixed": (1.0, float("nan"))}, "gate.fixed is nan; it has to be a finite number"),
        ({"method": "\x1b[31ml2g"}, r"no method is called '\\x1b\[31ml2g'"),
        (
            {"method": "reptile", "rule": "metasgd"},
            "inner.rule is metasgd, whose rates are learned through the inner steps",
        ),
        ({"method": "reptile", "inner_steps": 0}, "inner.steps is 0; the meta-gradient of reptile is made of"),
        ({"method": "imaml+l2f", "inner_steps": 0}, "inner.steps is 0; the meta-gradient of imaml"),
        ({"method": "imaml", "rule": "alfa"}, "the meta-gradient of imaml does not pass through them"),
        ({"method": "imaml+l2f", "inner_rate": 1.0}, "inner.rate × imaml.proximity is 2; from 2 on"),
        ({"rule": "x" * 10_000}, r"^inner.rule is 'xx+\.\.\.x+'\. Expected"),
    ],
)
def test_values_that_cannot_be(values, message):
    with pytest.raises(RecipeError, match=message) as caught:
        resolve(Recipe.of(**values))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "reptile+l2f", "gate_every_step": True}, "gate.every_step is True; the meta-gradient of reptile"),
        ({"method": "imaml+l2f", "gate_every_step": True}, "gate.every_step is True; the meta-gradient of imaml"),
        ({"method": "reptile+l2f", "gate_acts": "rate"}, "gate.acts is rate; the meta-gradient of reptile"),
        ({"method": "imaml+l2f", "gate_acts": "size"}, "gate.acts is size; the meta-gradient of imaml"),
        ({"method": "l2f", "gate_acts": "rate", "inner_steps": 0}, "gate.acts is rate, but inner.steps is 0"),
        ({"method": "fomaml", "per_step_norm": True}, "net.per_step_norm is True, but inner.order is 1"),
        ({"method": "reptile", "per_step_norm": True}, "net.per_step_norm is True, but inner.order is 1"),
        ({"method": "sign_maml", "per_step_norm": True}, "net.per_step_norm is True, but inner.rule is sign"),
        (
            {"steps": 9, "first_order_steps": 9, "per_step_norm": True},
            "but inner.first_order_steps is that of the whole",
        ),
        ({"method": "maml", "head": "zero", "inner_steps": 0}, "inner.steps is 0 and inner.head is zero: all outputs"),
        ({"method": "reptile", "head": "zero", "inner_steps": 1}, "inner.steps is 1 and inner.head is zero: the first"),
        ({"method": "anil+l2f", "head": "vector"}, "the gates of anil.l2f scale the last layer alone"),
        ({"method": "sign_maml", "inner_clamp": 1.0}, "inner.clamp is 1.0, but inner.rule is sign, beside which"),
        ({"method": "maml", "multi_step_epochs": 7}, "inner.multi_step_epochs is 7, but inner.multi_step_steps is 0"),
        (
            {"method": "maml", "per_step_norm": True, "inner_steps": 1},
            "net.per_step_norm is True, but inner.steps is 1",
        ),
    ],
)
def test_new_recipes_leave_nothing_untrained_or_idle_but_older_ones_stay(values, message):
    recipe = Recipe.of(**{"data": "birds", **values})
    assert resolve(recipe)
    with pytest.raises(RecipeError, match=message) as caught:
        fit(recipe)
    assert len(str(caught.value)) < 400


def test_largest_seed_is_taken():
    assert resolve(Recipe(seed=2**32 - 1)).seed == 2**32 - 1


@pytest.mark.parametrize(
    "content,message",
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"#" * (2 << 20), "has more than 1048576 bytes"),
        (b"data = [[[[", "is not TOML"),
        (b"inner_raet = 0.1", "no option is called 'inner_raet'. Did you mean 'inner_rate'?"),
        (b"inner_rate = 'fast'", "inner_rate is 'fast'; expected a number"),
    ],
)
def test_files_that_are_no_recipe(content, message, tmp_path):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert message in str(caught.value) and len(str(caught.value)) < 400


def test_a_recipe_with_windows_line_ends_is_read(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(b'data = "sinusoid"\r\nseed = 3\r\n')
    assert load(tmp_path / "recipe.toml") == Recipe(seed=3)


@pytest.mark.parametrize("name", ["a\x1b[31m", "two words", "../up", "Sinusoid", ""])
def test_a_data_set_s_name_is_checked(name):
    with pytest.raises(RecipeError, match="the name of a data set has lower-case letters") as caught:
        resolve(Recipe.of(data=name, way=5, shot=1, query=1))
    assert str(caught.value).isprintable()
    assert ("lethax data prepare folder" in str(caught.value)) == ("/" in name)  # a path is a folder of pictures


@pytest.mark.parametrize(("name", "value"), [
    ("net.deviation", -1.0), ("outer.min_rate", 1.0), ("net.depth", 101), ("inner.steps", 1001), ("net.filters", 200_000),
    ("outer.batch", 200_000), ("inner.clamp", -0.5), ("outer.steps", 0),
])  # fmt: skip
def test_numbers_out_of_their_range_are_named(name, value):
    with pytest.raises(RecipeError, match=rf"^{name} is {value}.*has to be"):
        resolve(Recipe(given={name: value, "outer.rate": 0.1}))


@pytest.mark.parametrize(("recipe", "message"), [
    ({"data": "mini_leo", "method": "leo", "leo_dropout": -0.1}, "leo.dropout is -0.1; it has to be at least 0."),
    ({"data": "mini_leo", "method": "leo", "leo_dropout": 1.0}, "leo.dropout is 1.0; it has to be below 1."),
    ({"method": "imaml", "proximity": 0.0}, "imaml.proximity is 0.0; it has to be above 0."),
    ({"data": "navigation", "rl_discount": 1.5}, "control.discount is 1.5; it has to be at most 1."),
    ({"multi_step_steps": 15}, "inner.multi_step_steps is 15; it has to be a multiple of the 10 multi_step_epochs."),
    ({"method": "reptile", "inner_rate": 0.0}, "inner.rate is 0.0; reptile divides by it: it has to be above 0."),
])  # fmt: skip
def test_every_section_has_its_ranges(recipe, message):
    with pytest.raises(RecipeError) as caught:
        resolve(Recipe.of(**recipe))
    assert str(caught.value) == message


UNREAD = [  # data, method, key, value as TOML, what is said
    ("sinusoid", "maml", "gate.scope", "layer", "method 'maml' on 'sinusoid' does not read the section [gate]"),
    ("sinusoid", "l2f", "control.horizon", 5, "method 'l2f' on 'sinusoid' does not read the section [control]"),
    ("navigation", "maml", "locomotion.contact", True, "on 'navigation' does not read the section [locomotion]"),
    ("sinusoid", "maml", "imaml.proximity", 1.0, "does not read the section [imaml]"),
    ("sinusoid", "fomaml", "inner.order", 2, "method 'fomaml' always has 1"),
    ("sinusoid", "reptile", "inner.first_order_steps", 5, "method 'reptile' does not have that choice"),
    ("mini_leo", "leo+l2f", "gate.scope", "layer", "method 'leo+l2f' does not have that choice"),
    ("sinusoid", "maml", "net.norm", "batch", "data 'sinusoid' does not have that choice"),
    ("navigation", "maml", "outer.rate", 0.1, "data 'navigation' does not have that choice"),
    ("cifar_fs", "maml", "net.depth", 3, "data 'cifar_fs' does not have that choice"),
    ("sinusoid", "maml", "episode.way", 1, "data 'sinusoid' has no classes"),
    ("navigation", "maml", "control.resample", True, "method 'maml' always has False"),
    ("cheetah_dir", "metasgd", "control.gate_log_std", True, "method 'metasgd' always has False"),
]


@pytest.mark.parametrize(("data", "method", "key", "value", "message"), UNREAD)
def test_an_option_that_nothing_reads_is_refused_by_name(data, method, key, value, message):
    section, _, name = key.partition(".")
    given = f"data = '{data}'\nmethod = '{method}'\n[{section}]\n{name} = {write(value)}"
    for recipe in (Recipe.of(data=data, method=method, **{key: value}), parse(given, "file")):
        with pytest.raises(RecipeError) as caught:
            resolve(recipe)
        said = str(caught.value)
        assert said.startswith(f"{key} is {value}") and message in said and said.endswith("out.")


@pytest.mark.parametrize(("values", "said"), [
    ({"data": "birds", "net": "resnet12", "filters": 7}, "net.filters is 7, but net.kind is resnet12"),
    ({"order": 1, "first_order_steps": 10}, "inner.first_order_steps is 10, but inner.order is 1"),
    ({"method": "l2f", "gate_fixed": (0.5,) * 6, "gate_bias_init": 4.0}, "gate.bias_init is 4.0, but gate.fixed is (0.5, 0.5,"),
    ({"method": "l2f", "gate_scope": "parameter", "gate_embedding": "norm"}, "gate.embedding is norm, but gate.scope is parameter"),
    ({"method": "l2f", "gate_task_dependent": False, "gate_embedding": "norm"}, "but gate.task_dependent is False"),
    ({"method": "l2f", "gate_task_dependent": False, "gate_layers": 3}, "gate.layers is 3, but gate.task_dependent is False"),
    ({"data": "navigation", "memory": "lean"}, "memory is lean, which changes nothing in control: leave it out."),
])  # fmt: skip
def test_an_option_that_another_leaves_nothing_to_do_is_refused(values, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        fit(Recipe.of(**values))


def test_what_changes_nothing_may_have_its_usual_value_and_stands_in_runs_of_before():
    recipe = Recipe.of(method="l2f", gate_fixed=(0.5,) * 6, order=1)
    assert fit(fit(recipe)[0].recipe)[0] == resolve(recipe)  # a recipe that was written with all values
    assert resolve(recipe.with_values(gate_bias_init=4.0)).gate.bias_init == 4.0


def test_a_value_that_a_method_has_anyway_may_be_given():
    assert resolve(Recipe.of(method="fomaml", order=1)) == resolve(Recipe.of(method="fomaml"))


def test_names_that_no_option_has_are_refused():
    for name in ("shto", "gate.scop", "moon.phase"):
        with pytest.raises(RecipeError, match=f"^no option is called '{name}'"):
            Recipe.of(**{name: 1})


@pytest.mark.parametrize("data", ["sinusoid", "navigation", "cifar_fs"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_dumped_resolves_to_the_same(data, method):
    try:
        resolved = resolve(Recipe.of(data=data, method=method, seed=3, steps=700))
    except LethaxError as error:
        assert "does not fit data" in str(error)
        return
    text = dump(resolved)
    assert resolve(parse(text, "file")) == resolved and dump(resolve(resolved.recipe)) == text
    assert all(f"[{section}]" in text for section in resolved.sections)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_tables_is_in_sections_and_resolves(path):
    recipe = load(path)
    assert not recipe.flat and resolve(recipe).recipe.given.items() >= recipe.given.items()


def test_there_are_recipes():
    assert len(RECIPES) > 100


@pytest.mark.parametrize(("flat", "sectioned"), [
    ('data = "sinusoid"\nshot = 10\ninner_steps = 5\nmin_outer_rate = 1e-5\nsteps = 800',
     'data = "sinusoid"\n[episode]\nshot = 10\n[inner]\nsteps = 5\n[outer]\nmin_rate = 1e-5\nsteps = 800'),
    ('data = "navigation"\nmethod = "l2f"\nrl_horizon = 7\nrl_actions = "raw"\ngate_bias_init = 4\nfilters = 8',
     'data = "navigation"\n[control]\nhorizon = 7\n[navigation]\nactions = "raw"\n[gate]\nbias_init = 4\n[net]\nfilters = 8'),
    ('data = "mini_leo"\nmethod = "leo"\nleo_kl = 0.5\nleo_sigma = "softplus"\nclip_tensor_norm = 1',
     'data = "mini_leo"\nmethod = "leo"\n[leo]\nkl = 0.5\nsigma = "softplus"\n[outer]\nclip_tensor_norm = 1'),
    ('data = "sinusoid"\nmethod = "maml"\nspread = 0.5', 'data = "sinusoid"\nmethod = "maml"\n[net]\ndeviation = 0.5'),
])  # fmt: skip
def test_a_flat_recipe_of_before_is_the_sectioned_one(flat, sectioned):
    assert parse(flat, "file").flat and resolve(parse(flat, "file")) == resolve(parse(sectioned, "file"))


def test_a_flat_recipe_may_hold_what_nothing_reads_and_a_sectioned_one_may_not():
    unread = 'data = "sinusoid"\nmethod = "maml"\nshot = 3\n'
    assert resolve(parse(unread + "rl_horizon = 7\ngate_layers = 3", "file")) == resolve(parse(unread, "file"))
    with pytest.raises(RecipeError, match="gate.layers is 3"):
        resolve(parse(unread + "[gate]\nlayers = 3", "file"))


@pytest.mark.parametrize("one", sections.by_key().values(), ids=lambda one: one.key)
def test_every_option_has_a_sentence_and_a_default_in_its_range(one):
    whole_sentence(one.text, one.kind)
    low, high, above, below = one.range
    assert low is None or one.default >= low
    assert high is None or one.default <= high
    assert above is None or one.default > above
    assert below is None or one.default < below
    assert one.range == Range() or one.kind in (int, float)


def test_what_is_of_no_section_and_every_method_have_a_sentence():
    for name, f in TOP.items():
        whole_sentence(f.metadata["text"], get_type_hints(Recipe)[name])
    for method in METHODS.values():
        whole_sentence(method.text)
    assert all((section.__doc__ or "").strip().endswith(".") for section in sections.SECTIONS.values())


def whole_sentence(text, kind=str):
    """It may begin with a letter of the paper, or with one of the option's values."""
    assert text.endswith(".") and not text.endswith("..") and len(text.split()) > 2
    first = text.split()[0].strip(",")
    assert first[0].isupper() or first in ("α", "λ", "iMAML", *map(str, get_args(kind)))


@pytest.mark.parametrize("values", [{"data": 3}, {"data": None}, {"method": None}, {"method": ["l2f"]}, {"seed": "1"}])
def test_values_of_no_section_are_of_their_type(values):
    with pytest.raises(RecipeError, match=f"^{next(iter(values))} is .*expected (a string|an integer)"):
        resolve(Recipe.of(**values))


def test_an_option_under_two_of_its_names_is_refused(capsys):
    with pytest.raises(RecipeError, match="shot and episode.shot are two names of episode.shot"):
        Recipe.of(**{"shot": 1, "episode.shot": 2})
    with pytest.raises(RecipeError, match="file gives episode.shot twice"):
        parse("shot = 3\n[episode]\nshot = 2", "file")
    for words in (("--shot", "1", "--episode.shot", "2"), ("--gate-scope=filter", "--gate.scope", "tensor")):
        assert cli.main(["recipe", "sinusoid", *words]) == 2
        assert "are two names of one option: leave one out" in capsys.readouterr().err


def test_numbers_of_numpy_are_numbers():
    given = {
        "inner_rate": np.float64(0.1),
        "shot": np.int64(3),
        "gate_fixed": np.ones(6, np.float32),
        "outer_rate": jnp.float32(0.5),
    }
    resolved = resolve(Recipe.of(**given))
    assert (resolved.inner.rate, resolved.episode.shot, resolved.outer.rate) == (0.1, 3, 0.5)
    assert (
        resolved.gate.fixed == (1.0,) * 6 and type(resolved.inner.rate) is float and type(resolved.episode.shot) is int
    )


@pytest.mark.parametrize("given,message", [
    ({"shot": 2}, "no option is called 'shot'. Did you mean 'episode.shot'?"),
    ({"x.y": 1}, "no option is called 'x.y'."),
    ({"gate.layers": "2"}, "gate.layers is '2'. Expected one of: 2, 3."),
])  # fmt: skip
def test_what_is_given_by_key_is_an_option_of_its_type(given, message):
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}"):
        resolve(Recipe(given=given))


def test_a_recipe_file_names_its_data(tmp_path, capsys):
    path = tmp_path / "own.toml"
    path.write_text("steps = 3\n")
    with pytest.raises(RecipeError, match="own.toml names no data: add a line such as"):
        load(path)
    assert load(path, "modes2").data == "modes2"
    assert cli.main(["recipe", "--recipe", str(path)]) == 2
    assert cli.main(["recipe", "modes2", "--recipe", str(path)]) == 0
    assert 'data = "modes2"' in capsys.readouterr().out


def test_hints_at_data_do_not_stand_in_the_recipe(capsys):
    assert cli.main(["recipe", "sinusod"]) == 0
    out, err = capsys.readouterr()
    assert (
        "Did you mean 'sinusoid'?" in err
        and "Did you mean" not in out
        and parse(out, "what was printed").data == "sinusod"
    )


@pytest.mark.parametrize("words,message", [
    (["--gate", "filter"], "gate is a section of options, such as --gate.scope"),
    (["--gate.no-detached=true"], "takes no value: write --gate.no-detached or --gate.detached."),
    (["--rotate=1"], "takes no value: write --rotate or --no-rotate."),
])  # fmt: skip
def test_refused_options_name_what_there_is(words, message, capsys):
    assert cli.main(["recipe", "sinusoid", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_short_name_in_its_section_is_understood():
    with pytest.raises(RecipeError, match="a key 'inner_steps' in .inner., which is no option. Did you mean 'steps'?"):
        parse("[inner]\ninner_steps = 4", "file")
