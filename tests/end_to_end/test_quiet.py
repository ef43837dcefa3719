"""Commands on a language model warn of nothing: neither its library nor torch has something to say
to the user.
"""

import subprocess
import sys

from helpers import tiny_checkpoint, tiny_corpus

SHAPE = [
    "--hook",
    "layers.1",
    "--l0",
    "8",
    "--n_latents",
    "64",
    "--batch",
    "512",
    "--context",
    "64",
    "--warmup",
    "10",
    "--tokens",
    "20_000",
    "--seeds",
    "0",
]


def command(*words):
    """A process of its own, as a user runs it: warnings go to standard error there and are not
    errors.
    """
    return subprocess.run(
        [sys.executable, "-m", "saelab", *map(str, words)], capture_output=True, text=True
    )


def test_training_and_evaluating_prints_no_warning(tmp_path):
    model, corpus = tiny_checkpoint(tmp_path / "llama", "llama"), tiny_corpus(tmp_path / "text.txt")
    source = ["--model", model, "--corpus", corpus]
    done = command(
        "train", "causal", *source, *SHAPE, "--evals", "core", "nces", "--out", tmp_path / "out"
    )
    assert (done.returncode, done.stderr) == (0, "") and "Warning" not in done.stdout
    (run,) = (tmp_path / "out" / "runs").iterdir()
    done = command("eval", run, "--out", tmp_path / "again")
    assert (done.returncode, done.stderr) == (0, "") and "Warning" not in done.stdout


def test_a_warning_would_be_seen():
    """A future change of a library that is called shows on standard error of a process."""
    code = "import warnings; warnings.warn('old name', FutureWarning)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "FutureWarning: old name" in done.stderr
