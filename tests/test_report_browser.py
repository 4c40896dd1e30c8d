"""The page of `lethax report` in a real browser: charts, switches, widths, a console without complaints."""

import re

import pytest
from browser import MISSING, browser
from run_folders import evaluated, probed, trained, walked

from lethax import cli

pytest.importorskip("plotly", reason="the package plotly is not installed")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page about two runs on sinusoids, one with a hostile name, and one of navigation."""
    folder = tmp_path_factory.mktemp("runs")
    names = {"maml": "maml", "l2f": "<img src=x onerror=document.title='taken'><b>l2f, " + "a long name " * 8}
    runs = [trained(folder / name, method, filters=4, depth=1) for method, name in names.items()]
    for shift, run in enumerate(runs):
        evaluated(run, shift=float(shift))
        probed(run)
    runs.append(trained(folder / "point", data="navigation"))
    evaluated(runs[-1], "return")
    walked(runs[-1])
    out = folder / "page.html"
    assert cli.main(["report", *(str(run.folder) for run in runs), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def window():
    with browser() as made:
        yield made


def charts(window):
    return window.run("return document.querySelectorAll('.chart').length")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_chart_is_drawn_and_nothing_complains_or_is_too_wide(window, page, width, theme):
    window.look(width, theme=theme)
    window.open(page)
    count = charts(window)
    assert (
        count > 10
        and window.run(
            "return [...document.querySelectorAll('.chart')].filter(c => c.querySelector('svg .scatterlayer path')).length"
        )
        == count
    )
    assert window.run("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert window.run(
        "return [...document.querySelectorAll('figure .main-svg')].every(s => s.getBoundingClientRect().right <= innerWidth)"
    )
    dark = window.run("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (theme == "light")
    assert window.complaints() == []
    assert all(address.startswith(("file:", "data:")) for address in window.requests())
    assert window.run("return document.title") == "Lethax report: 3 runs"  # no name has run as a script


def test_a_box_hides_its_run_everywhere(window, page):
    window.look(1440)
    window.open(page)
    of_run = "[...document.querySelectorAll('.chart')].flatMap(c => c.data.filter(t => t.run === 1 && t.visible))"
    assert window.run(f"return {of_run}.length") > 5
    window.run("document.querySelector('input[data-run=\"1\"]').click()")
    window.until(f"{of_run}.length === 0")
    assert window.run(
        "return [...document.querySelectorAll('[data-row=\"1\"]')].every(row => row.offsetParent === null)"
    )
    assert window.run(
        "return [...document.querySelectorAll('[data-only=\"1\"]')].every(one => one.offsetParent === null)"
    )
    assert window.run(
        "return [...document.querySelectorAll('[data-row=\"0\"]')].some(row => row.offsetParent !== null)"
    )
    window.run("document.getElementById('none').click(); document.getElementById('all').click()")
    window.until(f"{of_run}.length > 5")
    assert window.complaints() == []


def test_the_switch_of_the_theme_changes_page_and_charts(window, page):
    window.look(1440, theme="dark")
    window.open(page)
    colours = (
        "return [getComputedStyle(document.body).color, getComputedStyle(document.querySelector('.chart .xtick text')).fill,"
        " document.getElementById('theme').textContent]"
    )
    before = window.run(colours)
    window.run("document.getElementById('theme').click()")
    after = window.run(colours)
    assert before[0] == before[1] and after[0] == after[1] and before[0] != after[0]
    assert (before[2], after[2]) == ("Light", "Dark")
    window.run("sessionStorage.clear()")


def test_a_table_of_numbers_is_behind_every_chart(window, page):
    window.look(390)
    window.open(page)
    window.run("document.querySelectorAll('details.numbers').forEach(d => d.open = true)")
    window.until("[...document.querySelectorAll('details.numbers')].every(d => d.querySelectorAll('tbody tr').length)")
    row = window.run(
        "return [...document.querySelector('#learning details.numbers tbody tr').cells].map(c => c.textContent)"
    )
    assert row[:2] == ["maml", "200"] and all(re.fullmatch(r"[\d.]+", number) for number in row[1:])
    assert window.run("return document.documentElement.scrollWidth") == 390 and window.complaints() == []


def test_headings_are_in_order_and_everything_has_a_name(window, page):
    window.look(1440)
    window.open(page)
    levels = window.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert window.run(
        "return [...document.querySelectorAll('.chart')].every(c => c.getAttribute('aria-label').length > 20)"
    )
    assert window.run("return [...document.querySelectorAll('img')].every(i => i.alt)")
    assert window.run("return [...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")


def test_print_is_black_on_white(window, page):
    window.look(1440, theme="dark")
    window.open(page)
    assert len(window.devtools("Page.printToPDF", printBackground=True)["data"]) > 10_000
    window.run("dispatchEvent(new Event('beforeprint'))")
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    window.run("dispatchEvent(new Event('afterprint'))")
    assert window.run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_a_watched_page_follows_and_keeps_its_place(window, page):
    text = page.read_text(encoding="utf-8").replace('"refresh": null', '"refresh": 4.0')
    watched = page.with_name("watched.html")
    watched.write_text(text, encoding="utf-8")
    window.look(1440)
    window.open(watched)
    window.run("document.querySelector('input[data-run=\"0\"]').click(); scrollTo(0, 700)")
    watched.write_text(text.replace("<h1>Lethax report</h1>", "<h1>Another</h1>"), encoding="utf-8")
    window.until(
        "document.querySelector('h1').textContent === 'Another' && document.documentElement.dataset.drawn === 'all'"
    )
    assert window.run("return scrollY") == 700
    assert not window.run("return document.querySelector('input[data-run=\"0\"]').checked")
    window.run("sessionStorage.clear()")
