"""kill -9 in the middle of a training, resumed: the same weights as without it. The long form is
the benchmark.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_and_resumed_equals_uninterrupted():
    command = [
        sys.executable,
        ROOT / "benchmarks" / "kill_resume.py",
        "--kills",
        "2",
        "--steps",
        "250",
        "--seed",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQUAL" in done.stdout
    assert "kill 1: after" in done.stdout
