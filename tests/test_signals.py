"""Signals end the program where that costs nothing, with their exit code and a true sentence. Real processes, without JAX."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

ENDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


def end_of(body, *numbers, ignored=()):
    """(exit code, errors) of a program that listens and says "ready" when its signals may come."""
    code = (
        "import os, signal, sys, time\n"
        "from lethax import signals\n"
        "def ready(): print('ready', flush=True); sys.stdin.readline()\n"
        f"{body}"
    )
    # What this process ignores, in the background of a script or under nohup, its children would ignore too.
    kinds = {number: signal.SIG_IGN if number in ignored else signal.SIG_DFL for number in ENDS}
    before = {number: signal.signal(number, kind) for number, kind in kinds.items()}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    for number, handler in before.items():
        signal.signal(number, handler)
    for number in numbers:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        if len(numbers) > 1 or ignored:
            with contextlib.suppress(BrokenPipeError):  # the last one may have ended it already
                process.stdin.write("\n")
                process.stdin.flush()
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", ENDS)
def test_at_first_it_ends_at_once_wherever_it_is(number):
    """Also within code that would swallow an exception; what is said is what was true then."""
    body = "signals.listen()\ntry:\n    ready()\nexcept BaseException:\n    pass\ntime.sleep(60)\n"
    assert end_of(body, number) == (128 + number, f"lethax: {ENDS[number]}; nothing was saved yet\n")
    body = "signals.listen()\nsignals.say('the state is saved at step 3', 'go on so')\nready()\ntime.sleep(60)\n"
    assert end_of(body, number) == (
        128 + number,
        f"lethax: {ENDS[number]}; the state is saved at step 3: go on so\n",
    )


@pytest.mark.parametrize("number", ENDS)
def test_it_waits_for_the_safe_point(number):
    body = (
        "signals.listen()\n"
        "try:\n"
        "    with signals.deferred():\n"
        "        print('ready', flush=True)\n"
        "        while not signals.waiting(): time.sleep(0.01)\n"
        "        signals.say('saved')\n"
        "        signals.check()\n"
        "except signals.Interrupted as error:\n"
        "    print(signals.sentence(error.number), file=sys.stderr)\n"
        "    os._exit(128 + error.number)\n"
    )
    assert end_of(body, number) == (128 + number, f"lethax: {ENDS[number]}; saved\n")


def test_one_that_comes_after_the_last_safe_point_is_not_lost():
    body = (
        "signals.listen()\n"
        "try:\n"
        "    with signals.deferred():\n"
        "        print('ready', flush=True)\n"
        "        while not signals.waiting(): time.sleep(0.01)\n"
        "except signals.Interrupted:\n"
        "    os._exit(7)\n"
    )
    assert end_of(body, signal.SIGTERM) == (7, "")


def test_a_second_one_ends_it_at_once():
    body = "signals.SAME_SECONDS = 0\nsignals.listen()\nwith signals.deferred():\n    ready()\n    ready()\n    time.sleep(60)\n"
    assert end_of(body, signal.SIGINT, signal.SIGTERM)[0] == 143


def test_where_there_is_something_to_clean_away_it_is_raised():
    body = (
        "signals.listen()\n"
        "try:\n"
        "    with signals.raising():\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "except KeyboardInterrupt as error:\n"
        "    os._exit(error.number)\n"
    )
    assert end_of(body, signal.SIGTERM) == (15, "")


def test_one_that_the_caller_ignores_stays_ignored():
    """As under nohup, or in the background of a script."""
    body = "signals.listen()\nready()\nos._exit(7)\n"
    assert end_of(body, signal.SIGHUP, ignored=[signal.SIGHUP])[0] == 7


def test_one_before_the_program_listens_waits_for_that_also_where_it_starts_itself_anew():
    again = "signals.listen(); time.sleep(60)"
    body = (
        "signals.hold()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        f"os.execv(sys.executable, [sys.executable, '-c', 'import time; from lethax import signals; {again}'])\n"
    )
    assert end_of(body) == (143, "lethax: terminated; nothing was saved yet\n")


def test_import_of_jax_is_ended_quietly():
    body = (
        "import threading\n"
        "signals.listen()\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()\n"
        "import jax\n"
        "time.sleep(60)\n"
    )
    assert end_of(body) == (130, "lethax: interrupted; nothing was saved yet\n")


def test_the_program_listens_before_it_imports_what_is_large():
    code = "import sys, lethax.__main__; print(sorted({'jax', 'numpy', 'tyro', 'rich', 'typing', 'pathlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout == "[]\n"
