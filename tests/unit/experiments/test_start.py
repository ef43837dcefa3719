"""Ctrl-C while a command or a script still imports: one line and 130, no traceback."""

import subprocess
import sys

import pytest

HIT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
START = "from saelab.experiments.script.start import start, started"


def run(*lines: str) -> subprocess.CompletedProcess:
    code = "\n".join(lines)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_before_a_run_begins_ctrl_c_is_one_line_and_130():
    found = run(
        START, "start()", "import sys; assert 'torch' not in sys.modules", HIT, "print('on')"
    )
    assert (found.returncode, found.stdout) == (130, "")
    assert found.stderr == "\n-c: stopped before it began.\n"


def test_afterwards_it_is_an_exception_that_the_run_explains():
    found = run(START, "start(); started()", "try:", f"    {HIT}", "except KeyboardInterrupt:",
                "    print('explained')")  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (0, "explained\n", "")


@pytest.mark.parametrize("when", ["start()", "start(); started()"])
def test_a_signal_that_is_ignored_stays_ignored(when):
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    assert run(ignored, START, when, HIT, "print('on')").stdout == "on\n"
