"""The documentation site that `make docs` builds: it needs no network, its search works from a folder, and its pages are true."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from browser import MISSING, browser

import lethax

ROOT = Path(__file__).parent.parent
SITE = ROOT / "site"
built = pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="there is no site yet: make docs builds it")


def pages() -> dict[str, str]:
    return {str(path.relative_to(SITE)): path.read_text(encoding="utf-8") for path in sorted(SITE.rglob("*.html"))}


@built
def test_no_page_loads_anything_from_elsewhere():
    found = pages()
    assert {"index.html", "faq.html", "choose.html", "methods/l2f.html", "examples/new_method.html"} <= found.keys()
    for name, text in found.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)", text)
        assert loaded and not [one for one in loaded if re.match(r"(\w+:)?//", one)], name
        assert "fonts.g" not in text


@built
def test_every_public_name_has_its_entry():
    text = "".join(page for name, page in pages().items() if name.startswith("api/"))
    places = lethax._PLACES.items()
    assert len(places) > 50
    assert not [name for name, (module, own) in places if f'id="lethax.{module}.{own}"' not in text]
    assert "Examples:" in text and "&gt;&gt;&gt;" in text  # examples are code, and not quotations


@built
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_search_works_from_a_folder():
    with browser() as window:
        window.open(SITE / "methods" / "l2f.html", "document.querySelector('.md-search__input') !== null")
        window.run(
            "const field = document.querySelector('.md-search__input'); field.focus(); field.value = 'duplicates';"
            "field.dispatchEvent(new Event('keyup', {bubbles: true})); field.dispatchEvent(new Event('input', {bubbles: true}));"
        )
        window.until("document.querySelector('.md-search-result__link') !== null")
        links = window.run("return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)")
        assert any("/data.html" in link for link in links)
        assert all(address.startswith(("file:", "data:", "about:")) for address in window.requests())


@cache
def source() -> str:
    """The text of all messages: the strings of the package, of which an f-string has the parts around its values."""
    found = []
    for path in sorted((ROOT / "lethax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_of_the_page_on_troubleshooting_are_messages_of_the_program():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    rows = [row.split(" | ")[0] for row in page.splitlines() if row.startswith("| `")]
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(rows) > 15
    for message in messages:
        parts = [re.escape(part) for part in re.split("…", message)]
        assert re.search("[^\n]*?".join(parts), source()), message


def test_every_question_has_a_command():
    page = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    questions = page.split("\n## ")[1:]
    assert len(questions) == 10
    assert all(re.search(r"^    lethax \w+", question, re.M) for question in questions)


def test_the_citation_has_the_version_and_the_licence():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {lethax.__version__}\n" in text and "\nlicense: Apache-2.0\n" in text
    assert text.startswith("cff-version: 1.2.0\n")


def test_requirements_agree():
    """One environment holds them all."""
    seen: dict[str, str] = {}
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-docs.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if not line.startswith("-r "):
                package, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
                assert seen.setdefault(package.lower(), version) == version, line
