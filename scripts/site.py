"""Hooks of the documentation site, which make pages of what lies outside of docs/ and of the public names of the package.

A link in a page is written for who reads the repository, so it may lead out of docs/. Here it is turned to the page that the
site has of that file.
"""

import ast
import os
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "citation.md",
}
BESIDE |= {f"examples/{path.name}": f"examples/{path.stem}.md" for path in sorted((ROOT / "examples").glob("*.py"))}
FOLDERS = {"docs/methods": "choose.md"}  # the page that stands for a folder
API = {  # title of a page: the modules of its names; what is not named here is on the last one
    "Methods and nets": ("methods", "learner", "nets", "objectives"),
    "Tasks and data": ("records", "data.source", "data.store"),
    "Training and evaluation": ("meta_batch", "outer", "evaluation", "baselines"),
    "Runs and recipes": ("runs.folder", "runs.evaluation", "runs.adapted", "recipe", "recipe.resolve"),
    "Plugins and errors": ("domains", "recipe.sections", "rules", "errors"),
}


class Docstrings(griffe.Extension):
    """Our docstrings have the heading "Example:", which the reader of docstrings knows as "Examples:"."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")


def public() -> dict[str, list[str]]:
    """The public names by module, read from the package without importing it."""
    module = ast.parse((ROOT / "lethax/__init__.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value for node in module.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_PUBLIC"
    )
    return {name: [one.split("=")[0] for one in names.split()] for name, names in ast.literal_eval(table).items()}


def api_pages() -> dict[str, str]:
    """The pages of the public names: {name of the page: its text}."""
    names, pages = public(), {}
    last, known = list(API)[-1], {module for modules in API.values() for module in modules}
    for title, modules in API.items():
        every = [*modules, *(module for module in names if title == last and module not in known)]
        parts = (f"::: lethax.{module}.{name}\n" for module in every for name in names.get(module, []))
        pages[f"api/{title.lower().replace(' ', '-')}.md"] = f"# {title}\n\n" + "\n".join(parts)
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and fill the navigation."""
    made = api_pages()
    for path, page in BESIDE.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        language = {".py": "python", ".cff": "yaml"}.get(Path(path).suffix)
        made[page] = f"# {path}\n\n```{language}\n{text}```\n" if language else text
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    pages = sorted(file.src_uri for file in files.documentation_pages())

    def found(start: str) -> list[str]:
        return [page for page in pages if page.startswith(start)]

    folded = {
        "Methods": found("methods/"),
        "Python": [page for page in made if page.startswith(("api/", "examples/"))],
        "Results": [
            "results/README.md",
            "results/how-to-read.md",
            "results/how-far.md",
            *found("results/about-"),
            "figures/README.md",
        ],
    }
    config.nav = [
        {title: folded.get(title) or ([one for one in part if _page(one) in pages] if isinstance(part, list) else part)}
        for entry in config.nav or []
        for title, part in entry.items()
    ]
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    if more := [page for page in pages if page not in named and "/" not in page]:  # tables have no place of their own
        config.nav.append({"More": more})
    return files


def _page(entry: str | dict[str, str]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry.values()))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to what the site has of their files, and set apart lists that follow a paragraph without an empty line."""
    here = page.file.src_uri
    source = next((path for path, made in BESIDE.items() if made == here), f"docs/{here}")
    if here.startswith(("api/", "examples/")):
        return markdown

    def turned(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition("#")
        if not target or ":" in target:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        goal = BESIDE.get(place) or FOLDERS.get(place) or place.removeprefix("docs/")
        return f"]({os.path.relpath(goal, posixpath.dirname(here) or '.')}{'#' + anchor if anchor else ''})"

    markdown = re.sub(r"\]\(([^)\s]+)\)", turned, markdown)
    return re.sub(r"(?m)^(?![ \t]*(?:[-*]|\d+\.) |[ \t]*$|#|    |\|)(.+)\n(?=(?:-|1\.) )", r"\1\n\n", markdown)
