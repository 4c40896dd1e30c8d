"""Real processes, stopped at random moments: python tests/durability.py {kills,signals,disk} [NAME …] [--moments 20] [--seed 0]

kills: `kill -9` at random moments of training, evaluation, preparing and reproducing; the same command goes on after each, and the
    end has to equal that of an unbroken run, file by file.
signals: SIGINT, SIGTERM and SIGHUP to training at moments from 0.1 s on; the exit code, what is said, and what is there have to
    agree, and the run has to end as an unbroken one.
disk: the same commands on a file system of rising size (a tmpfs, as root; Linux): one sentence, and what was there stays.

Not collected by pytest: it takes minutes. It prints a line for each command and ends with 1 if one did not hold. `--work` keeps its
files. NAMEs choose among sinusoid, glyphs, navigation, evaluate, prepare and reproduce.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this very lethax, not one that is installed
SMALL = ["--way", "2", "--shot", "1", "--query", "1", "--inner-steps", "2", "--filters", "4", "--val-episodes", "4"]
TRAIN = {
    "sinusoid": ["sinusoid", "--steps", "4000", "--epoch", "100", "--val-episodes", "20", "--filters", "8"],
    "glyphs": ["glyphs", *SMALL, "--batch", "2", "--steps", "60", "--epoch", "10"],
    "navigation": ["navigation", "--shot", "2", "--batch", "2", "--filters", "5", "--depth", "1", "--control.horizon", "5",
                   "--steps", "60", "--epoch", "5", "--val-episodes", "2"],
}  # fmt: skip


class Case(NamedTuple):
    """A command, what it makes, what has to be equal of that, and what has to be there before."""

    command: list[str]
    made: list[str]
    content: Callable[[Path], dict[str, Any]]
    before: list[list[str]] = []


def training(folder: Path) -> dict[str, Any]:
    """The newest state, the best checkpoints and the metrics of every run below, to the byte."""
    found: dict[str, Any] = {}
    for run in sorted(path.parent for path in folder.rglob("recipe.toml")):
        states = sorted((run / "checkpoints").glob("step-*.safetensors"))
        for path in (run / "metrics.jsonl", *states[-1:], *sorted((run / "checkpoints").glob("best-*.safetensors"))):
            found[str(path.relative_to(folder))] = path.read_bytes() if path.exists() else None
        best = {int(at) for _, at in _info(states[-1])["best"]} if states else set()
        for path in (run / "checkpoints").glob("best-*.safetensors"):
            if int(path.stem.removeprefix("best-")) not in best:  # of the state before, which may be needed
                del found[str(path.relative_to(folder))]
    return found


def _info(path: Path) -> Any:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["info"])


def files(folder: Path) -> dict[str, Any]:
    """All files below, to the byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def records(folder: Path) -> dict[str, Any]:
    """The evaluations below."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("evaluations/*.json"))}


def store(folder: Path) -> dict[str, Any]:
    """A data set as its manifest lists it: no leftover counts, and nothing listed may be missing."""
    from lethax.data.store import open_store, verify_store

    verify_store(folder.name, folder.parent)
    return {"identity": open_store(folder.name, folder.parent).identity}


CASES = {
    **{name: Case(["train", *words, "--out", "run"], ["run"], training) for name, words in TRAIN.items()},
    "evaluate": Case(["evaluate", "run", "--episodes", "5000"], ["run/evaluations"], files,
                     [["train", *TRAIN["sinusoid"][:2], "400", *TRAIN["sinusoid"][3:], "--out", "run"]]),
    "prepare": Case(["data", "prepare", "glyphs"], ["data/glyphs"], store),
    "reproduce": Case(["reproduce", "table_d", "--only", "maml", "--steps", "200", "--val-episodes", "10"], ["runs"],
                      lambda folder: training(folder) | records(folder)),
}  # fmt: skip
CASES["glyphs"] = CASES["glyphs"]._replace(before=[["data", "prepare", "glyphs"]])


class Bench:
    """A folder to work in, and the program in it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "LETHAX_CACHE": str(cache), "COLUMNS": "200"}
        self.env["LETHAX_DATA"] = str(folder / "data")

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """The program, listening to interrupts even where this script, in the background, does not."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "lethax", *command], cwd=self.folder, env=self.env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit code, and what it said of errors."""
        process = self.start(command)
        _, said = process.communicate()
        return process.returncode, said

    def content(self, case: Case) -> dict[str, Any]:
        """What the case makes."""
        return case.content(self.folder / case.made[0])

    def clear(self, case: Case) -> None:
        """Away with what the case makes."""
        for made in case.made:
            shutil.rmtree(self.folder / made, ignore_errors=True)

    def unbroken(self, case: Case) -> tuple[dict[str, Any], float]:
        """What the case makes, and how long it takes when its programs are compiled."""
        for command in [*case.before, case.command]:
            code, said = self.run(command)
            assert code == 0, said
        whole = self.content(case)
        self.clear(case)
        begun = time.monotonic()
        code, said = self.run(case.command)
        assert code == 0 and self.content(case) == whole, f"not the same twice: {said}"
        self.clear(case)
        return whole, time.monotonic() - begun


def kills(name: str, case: Case, bench: Bench, moments: int, clock: random.Random) -> list[str]:
    """What did not hold after `moments` kills."""
    whole, seconds = bench.unbroken(case)
    wrong, killed, ends = [], 0, 0
    while killed < moments or not ends:
        process = bench.start(case.command)
        try:
            process.wait(clock.uniform(0.05, seconds) if killed < moments else None)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        _, said = process.communicate()
        if process.returncode != -signal.SIGKILL:
            ends += 1
            if process.returncode:
                wrong.append(f"{name}: after kill {killed} it ends with {process.returncode}: {said}")
            elif bench.content(case) != whole:
                wrong.append(f"{name}: after kill {killed} the end differs in {_differing(whole, bench.content(case))}")
            bench.clear(case)
    print(f"kills {name}: {killed} kills, {ends} ends, {len(wrong)} wrong, {seconds:.1f} s unbroken", flush=True)
    return wrong


def _differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    return ", ".join(sorted(key for key in {*one, *other} if one.get(key) != other.get(key)))


def signals(name: str, case: Case, bench: Bench, moments: int, clock: random.Random) -> list[str]:
    """What did not hold after each signal at `moments` moments, the first after 0.1 s."""
    whole, seconds = bench.unbroken(case)
    wrong = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        seen: Counter[str] = Counter()
        for moment in range(moments):
            process = bench.start(case.command)
            try:
                process.wait(0.1 + moment * (seconds - 0.1) / max(moments - 1, 1))
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            asked = time.monotonic()
            _, said = process.communicate()
            problem, kind = _judged(bench.folder / case.made[0], number, process.returncode, said)
            seen[kind] += 1
            if problem:
                wrong.append(f"{name}: {number.name} at moment {moment}: {problem}: {said}")
            if time.monotonic() - asked > 30:
                wrong.append(
                    f"{name}: {number.name} at moment {moment}: it took {time.monotonic() - asked:.0f} s to end"
                )
            if moment % 4 == 3:  # between, the same command goes on
                bench.clear(case)
        code, said = bench.run(case.command)
        if code or bench.content(case) != whole:
            wrong.append(f"{name}: after {number.name} the end is another: {code} {said}")
        bench.clear(case)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.items()))
        print(f"signals {name}: {moments} {number.name}: {counts}", flush=True)
    return wrong


def _judged(run: Path, number: signal.Signals, code: int, said: str) -> tuple[str, str]:
    """What is not true of a program's end, "" where all is; and what kind of end it is."""
    there = max((int(p.stem.removeprefix("step-")) for p in run.glob("checkpoints/step-*.safetensors")), default=0)
    if code == 0:
        return ("", "ended before") if "Traceback" not in said else ("a traceback", "ended before")
    if code == -number:
        return ("", "before Python") if not said else ("it said something", "before Python")
    if code != 128 + number or "Traceback" in said:
        return f"it ended with {code}", "wrong"
    if step := re.search(r"the state is saved at step (\d+): go on with lethax train --resume", said):
        return ("" if int(step[1]) == there else f"step {there} is there"), "saved"
    return ("" if "nothing was saved yet" in said and not there else f"step {there} is there"), "nothing saved"


def disk(name: str, case: Case, bench: Bench, moments: int, clock: random.Random) -> list[str]:
    """What did not hold on a disk of `moments` rising sizes, with an earlier file beside."""
    whole, _ = bench.unbroken(case)
    room = _pages(bench.folder)
    bench.run(case.command)
    need = _pages(bench.folder) - room
    bench.clear(case)
    wrong, seen = [], Counter[str]()
    for level in range(moments):
        place = Path(tempfile.mkdtemp(prefix="full-"))
        size = 4096 * (room + 1 + round(need * 1.2 * level / max(moments - 1, 1)))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
        try:
            shutil.copytree(bench.folder, place, dirs_exist_ok=True)
            small = Bench(place, Path(bench.env["LETHAX_CACHE"]))
            earlier = files(place)
            code, said = small.run(case.command)
            said = "\n".join(line for line in said.splitlines() if line.strip())
            now = files(place)
            seen[f"ended with {code}"] += 1
            if code not in (0, 1) or (code and (said.count("\n") or not said.startswith("lethax: "))):
                wrong.append(f"{name}: at {size} bytes it ends with {code}: {said}")
            if any(now.get(path) != content for path, content in earlier.items()):
                wrong.append(f"{name}: at {size} bytes {_differing(earlier, now)} changed")
            if code == 0 and small.content(case) != whole:
                wrong.append(f"{name}: at {size} bytes the end differs")
            subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
            code, said = small.run(case.command)
            if code or small.content(case) != whole:
                wrong.append(f"{name}: with room again after {size} bytes it ends with {code}: {said}")
        finally:
            subprocess.run(["umount", str(place)], check=True)
            place.rmdir()
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.items()))
    print(
        f"disk {name}: {moments} sizes up to {need * 1.2 * 4096 / 1e6:.2f} MB: {counts}, {len(wrong)} wrong", flush=True
    )
    return wrong


def _pages(folder: Path) -> int:
    """What the files below take of a tmpfs."""
    return sum(-(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Try, print, and say by the exit code whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "signals", "disk"))
    parser.add_argument("names", nargs="*", choices=[*CASES, []], default=[])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    names = args.names or (list(TRAIN) if args.what == "signals" else list(CASES))
    trial = {"kills": kills, "signals": signals, "disk": disk}[args.what]
    work = args.work or Path(tempfile.mkdtemp(prefix="durability-"))
    wrong: list[str] = []
    for name in names:
        folder = work / f"{args.what}-{name}"
        folder.mkdir(parents=True)
        wrong += trial(name, CASES[name], Bench(folder, work / "cache"), args.moments, random.Random(args.seed))
    print(*wrong, sep="\n")
    if not args.work:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
