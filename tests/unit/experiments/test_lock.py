"""One process at a time works in an output folder; one that died leaves nothing in the way."""

import os
import subprocess
import sys
import time

import pytest

from saelab.experiments.folders import OtherContent
from saelab.experiments.listen import Silent
from saelab.experiments.run.lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from saelab.experiments.listen import Silent
from saelab.experiments.run.lock import locked
with locked(Path(sys.argv[1]), Silent()):
    print("working", flush=True)
    time.sleep(60)
"""


class Heard(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_second_process_is_refused_and_a_dead_one_is_replaced(tmp_path):
    out = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"working\n"
        with (
            pytest.raises(OtherContent, match=rf"process {other.pid} on \S+ is working in .*out"),
            locked(out, Silent()),
        ):
            pass
    finally:
        other.kill()
        other.communicate()
    heard = Heard()
    with locked(out, heard):
        assert (out / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert len(heard.notes) == 1 and f"process {other.pid} on " in heard.notes[0]
    assert "is gone; its work goes on here" in heard.notes[0]


def test_a_lock_that_was_given_back_is_not_stale(tmp_path):
    heard = Heard()
    for _ in range(2):
        with locked(tmp_path, heard):
            time.sleep(0)
    assert not heard.notes


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with (
        pytest.raises(NotADirectoryError, match="is a file; give a folder"),
        locked(tmp_path / "out", Silent()),
    ):
        pass
