"""What long work says of itself: rates and times that people read, none that counts the compilation."""

import re
import threading
import time
from types import SimpleNamespace

import pytest

from lethax import progress
from lethax.progress import Pace, duration, rate


@pytest.mark.parametrize(
    "seconds,text",
    [
        (0.0, "0.1 s"),
        (1.24, "1.2 s"),
        (45.2, "45 s"),
        (99.6, "1.7 min"),
        (204, "3.4 min"),
        (7560, "2.1 h"),
        (360_000, "100.0 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "per_second,text",
    [
        (1460.4, "1,460 steps/s"),
        (12.3, "12 steps/s"),
        (1.5, "1.5 steps/s"),
        (0.08, "12 s/step"),
        (1 / 150, "2.5 min/step"),
    ],
)
def test_rates(per_second, text):
    assert rate(per_second, "steps") == text


def test_compilation_is_not_counted_and_the_end_has_no_time_left():
    now = [0.0]
    pace = Pace(1000, "steps", lambda: now[0])
    now[0] = 30.0  # the first ten steps take half a minute, nearly all of it compilation
    assert pace.text(10) == ""
    now[0] = 31.0
    assert pace.text(110) == "100 steps/s, 8.9 s left"
    now[0] = 40.0
    assert pace.text(1000) == "in 40 s"


def test_the_rate_is_that_of_the_last_minute():
    """Of steps many a second not all are kept."""
    now = [0.0]
    pace = Pace(100_000, "steps", lambda: now[0])
    for tick in range(3000):
        now[0] = tick / 10
        said = pace.text(tick * 10 if tick < 1500 else 15_000 + (tick - 1500))
    assert said.startswith("10 steps/s") and 60 <= len(pace.marks) <= 62


def test_the_time_left_has_validations_of_over_a_minute_in_it():
    """Ten steps a second, and after every 1,000 of them 70 s without one: it never said days for what takes hours."""
    now, step, left = [0.0], 0, []
    pace = Pace(100_000, "steps", lambda: now[0])
    for _ in range(20):
        for _ in range(100):
            now[0], step = now[0] + 1.0, step + 10
            left.append((step, pace.text(step)))
        now[0] += 70.0
        left.append((step, pace.text(step)))
    for at, said in left[202:]:
        hours = float(said.split(", ")[1].removesuffix(" h left"))
        assert hours == pytest.approx((100_000 - at) * 0.17 / 3600, rel=0.45), (at, said)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.51234, "0.5123"), (12.3456, "12.35"), (1020.4, "1,020"), (-54321.0, "-54,321"), (2.5e9, "2.5e+09"), (0.0, "0")],
)
def test_a_figure_is_for_people(value, said):
    assert progress.figure(value) == said


def test_a_resumed_run_counts_from_where_it_went_on():
    now = [0.0]
    pace = Pace(1000, "steps", lambda: now[0])
    pace.text(900)
    now[0] = 10.0
    assert pace.text(910) == "1.0 steps/s, 90 s left"


def statuses(begin=lambda: None):
    begin()
    for step in (10, 20, 30):
        yield SimpleNamespace(step=step, line={"loss": 0.5} if step == 20 else None, skipped=3)


def test_silence_is_broken_and_the_time_said(monkeypatch, capsys):
    say, broken = progress.say, threading.Event()
    monkeypatch.setattr(progress, "SILENCE", 0.01)
    monkeypatch.setattr(progress, "say", lambda text: (say(text), broken.set()))
    progress.follow("outer steps", 30, statuses(lambda: broken.wait(60)))
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first == "outer steps: loading and compiling"
    assert re.fullmatch(r"outer steps: loaded and compiled in \d+(\.\d)? s", second)
    assert re.fullmatch(r"outer steps 30/30, in \d+(\.\d)? s  loss 0\.5  skipped 3", last)


def test_an_announcement_that_cannot_be_written_ends_no_thread(monkeypatch):
    tried, ended = threading.Event(), []

    def full(_):
        tried.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress, "SILENCE", 0.01)
    monkeypatch.setattr(progress, "say", full)
    monkeypatch.setattr(threading, "excepthook", ended.append)
    before = set(threading.enumerate())
    with progress.compiling("outer steps"):
        assert tried.wait(60)
        for thread in set(threading.enumerate()) - before:
            thread.join(60)
    assert not ended


def test_a_run_that_is_finished_waits_for_no_program(monkeypatch, capsys):
    def nothing_left():
        time.sleep(0.05)  # its folder is read
        yield from ()

    monkeypatch.setattr(progress, "SILENCE", 0.01)
    assert progress.follow("outer steps", 30, nothing_left(), compiles=False) is None
    assert capsys.readouterr().out == ""


def test_a_quick_start_says_nothing_of_it(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE", 1000.0)
    progress.follow("outer steps", 30, statuses())
    assert re.fullmatch(r"outer steps 30/30, in \S+ s  loss 0\.5  skipped 3\n", capsys.readouterr().out)


def test_what_is_said_is_neither_markup_nor_wrapped(monkeypatch, capsys):
    monkeypatch.setattr(progress.console, "_width", 20)
    progress.say("x[/y] " + "word " * 20)
    assert capsys.readouterr().out == "x[/y] " + "word " * 20 + "\n"


def test_an_evaluation_shows_that_it_goes_on(capsys):
    parts = [([1, 2, 3], "a"), ([4, 5], "b")]
    assert list(progress.watch("evaluating run", 5, iter(parts))) == parts
    assert re.fullmatch(r"evaluating run 5/5, in \S+ s\n", capsys.readouterr().out)


def test_what_is_said_cannot_act_on_a_terminal(capsys):
    progress.say("data \x1b[31m\nlethax: done")
    assert capsys.readouterr().out == "data \\x1b[31m\\nlethax: done\n"
