"""Whether Python, the dependencies and the extras are there, new enough, and can be imported; and whether JAX computes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from lethax import __version__
from lethax.doctor.rows import OK, WARNING, WRONG, Row
from lethax.text import ALWAYS

PYTHON = (3, 11)
PATIENCE = 120.0  # seconds until an import that hangs is given up
_PACKAGE = Path(__file__).parents[1]
_MODULES = {"pillow": "PIL"}  # where a distribution and its module have different names
_COMPUTES = "a program of JAX"
# What each extra of the package is for.
GIVES = {
    "rl": "half-cheetah and ant, and tasks of gymnasium",
    "report": "the charts of lethax report",
    "tensorboard": "lethax train --tensorboard",
    "export": "lethax export",
    "onnx": "lethax export to ONNX",
    "bench": "the peers of benchmarks/compare_peers.py",
    "cluster": "lethax reproduce --jobs",
    "pretrained": "features of a pretrained network, by lethax embed --backbone",
}


class Requirement(NamedTuple):
    """A distribution that is needed, from a version on, always (extra is "") or for an extra."""

    name: str
    version: str
    extra: str


@dataclass
class Seen:
    """What the process that imports everything has found. errors: by module; facts: what JAX said of its devices."""

    errors: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def requirements() -> list[Requirement]:
    """What the package says that it needs: from its metadata, or from pyproject.toml beside it where it is not installed."""
    try:
        said = metadata.requires("lethax") or []
    except metadata.PackageNotFoundError:
        said = list(_of_project())
    found = []
    for one in said:
        text, _, marker = one.partition(";")
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)""", marker)
        if match := re.match(r"\s*([\w.-]+)(?:\[[^]]*\])?\s*(?:[>=]=\s*([\w.]+))?", text):
            found.append(Requirement(match[1], match[2] or "", extra[1] if extra else ""))
    return found


def _of_project() -> Iterator[str]:
    import tomllib  # new in Python 3.11, and an older one is to be told so

    path = _PACKAGE.parent / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    yield from project.get("dependencies", [])
    for extra, needed in project.get("optional-dependencies", {}).items():
        yield from (f'{one}; extra == "{extra}"' for one in needed)


def module_of(name: str) -> str:
    """The module of a distribution."""
    return _MODULES.get(name.lower(), name.replace("-", "_"))


def look(patience: float = PATIENCE) -> Seen:
    """Import all dependencies, and compute with JAX, in a process of its own."""
    modules = [module_of(one.name) for one in requirements() if not one.extra]
    paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-m", "lethax.doctor.probe", *modules, *ALWAYS]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=patience, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        )
        said, how = done.stdout, _ending(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as late:
        said, how = late.stdout or b"", f"it does not end within {patience:.0f} s"
    except OSError as error:
        said, how = b"", str(error)
    return _read(said.decode(errors="replace"), [*modules, _COMPUTES, "plugins"], how)


def _ending(code: int, said: bytes) -> str:
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    return f"Python ended with {f'signal {-code}' if code < 0 else f'code {code}'}{': ' + last[0] if last else ''}"


def _read(text: str, wanted: list[str], how: str) -> Seen:
    """What the lines of the process say. What it did not come to the end of has `how` it ended as its error."""
    seen, done, begun = Seen(), set(), ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # a library that prints
            continue
        if not isinstance(entry, dict):
            continue
        begun = entry.get("begun", begun)
        if "done" in entry:
            done.add(entry["done"])
            if "error" in entry:
                seen.errors[entry["done"]] = entry["error"]
            elif "product" in entry:
                seen.facts = entry
    for name in wanted:
        if name not in done:
            seen.errors[name] = how if name in (begun, wanted[0]) else f"not tried, because of {begun}"
    return seen


def rows(seen: Seen) -> Iterator[Row]:
    """The rows on Python, lethax, its dependencies, its extras, JAX and the plugins."""
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info[:2] < PYTHON
    needs = ".".join(map(str, PYTHON))
    yield Row(
        "python",
        WRONG if old else OK,
        f"{version}, {sys.executable}",
        f"Install Python {needs} or newer." if old else "",
    )
    yield Row("lethax", OK, f"{__version__}, {_PACKAGE}")
    needed = requirements()
    if not needed:
        yield Row("dependencies", WARNING, "lethax does not say what it needs", "Install it again.")
    for one in needed:
        if not one.extra:
            yield dependency(one, seen.errors.get(module_of(one.name), ""))
    yield from _extras([one for one in needed if one.extra])
    yield computes(seen)
    if error := seen.errors.get("plugins"):
        yield Row(
            "plugins",
            WRONG,
            error,
            "Correct the plugin, or leave it out of --plugin and $LETHAX_PLUGINS, or uninstall it.",
        )


def dependency(one: Requirement, error: str) -> Row:
    """The row of a dependency; `error` is why it cannot be imported."""
    install = f"pip install '{one.name}>={one.version}'" if one.version else f"pip install {one.name}"
    found = version_of(one.name)
    if found is None:
        return Row(one.name, WRONG, "not installed", f"Install it: {install}")
    if error:
        return Row(
            one.name, WRONG, f"{found} cannot be imported: {error}", f"Install it anew: {install} --force-reinstall"
        )
    if numbers(found) < numbers(one.version):
        return Row(one.name, WRONG, f"{found} is too old", f"Install {one.version} or newer: {install}")
    return Row(one.name, OK, found)


def version_of(name: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(name) or "unknown version"
    except Exception:  # damaged metadata raise what they like
        return None


def numbers(version: str) -> tuple[int, ...]:
    """(0, 10, 2) of "0.10.2", also of "0.10.2.dev3" and "0.10.2+cuda"."""
    parts = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, parts[0].split("."))) if parts else ()


def _extras(needed: list[Requirement]) -> Iterator[Row]:
    by_extra: dict[str, list[Requirement]] = {}
    for one in needed:
        by_extra.setdefault(one.extra, []).append(one)
    for extra, mine in by_extra.items():
        install, gives = f"pip install 'lethax[{extra}]'", GIVES.get(extra, "more")
        there = {one.name: version_of(one.name) for one in mine}
        old = [one for one in mine if there[one.name] and numbers(there[one.name] or "") < numbers(one.version)]
        if not all(there.values()):
            yield Row(f"[{extra}]", OK, f"not installed; it gives {gives}", f"If you want that: {install}")
        elif old:
            said = ", ".join(f"{one.name} {there[one.name]} is older than {one.version}" for one in old)
            yield Row(f"[{extra}]", WARNING, said, f"Renew it: {install}")
        else:
            yield Row(f"[{extra}]", OK, ", ".join(f"{name} {version}" for name, version in there.items()))


def computes(seen: Seen, environ: Mapping[str, str] = os.environ) -> Row:
    """The row that says whether JAX compiles and computes, and on what."""
    if error := seen.errors.get(_COMPUTES):
        return Row("jax computes", WRONG, error, "Install jax and jaxlib of one version anew: pip install -U jax")
    kinds = seen.facts.get("devices", [])
    found = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    if seen.facts.get("product") != 42.0:
        return Row(
            "jax computes",
            WRONG,
            f"6 times 7 is {seen.facts.get('product')} on {found}",
            "Install jax anew: pip install -U jax",
        )
    if (
        seen.facts["backend"] == "cpu"
        and os.path.exists("/proc/driver/nvidia/version")
        and not environ.get("JAX_PLATFORMS")
    ):
        advice = "To use the GPU: pip install -U 'jax[cuda12]'"
        return Row("jax computes", WARNING, f"on the CPU alone ({found}), but there is an NVIDIA GPU", advice)
    return Row("jax computes", OK, f"on {found} ({seen.facts['backend']})")
