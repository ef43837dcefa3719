"""Commands on a language model warn of nothing: neither its library nor torch has something to say
to the user.
"""

import subprocess
import sys

from helpers import given, small, tiny_place


def test_training_and_evaluating_prints_no_warning(tmp_path):
    """In a process of its own, as for a user: warnings go to standard error there and are not
    errors.
    """
    place, out = tiny_place(tmp_path, documents=60), tmp_path / "out"
    shape = small(n_latents=16, l0=4, tokens=5_000)
    train = ["train", "causal:rows=2000:clusters=2", *given(place), *shape, "--out", str(out)]
    train += ["--evals", "core", "nces"]
    code = f"""
import glob
from saelab.cli import main
assert main({train!r}) == 0
(run,) = glob.glob({str(out / "runs" / "*")!r})
assert main(["eval", run, "--out", {str(tmp_path / "again")!r}]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "Warning" not in done.stdout
    assert (tmp_path / "again" / "report.html").exists()


def test_a_warning_would_be_seen():
    """A future change of a library that is called shows on standard error of a process."""
    code = "import warnings; warnings.warn('old name', FutureWarning)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "FutureWarning: old name" in done.stderr
