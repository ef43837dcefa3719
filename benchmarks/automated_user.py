"""What a program that edits `experiment.py` and runs it meets, on the embedded model: a first run,
three edits, an edit that crashes, one that becomes NaN, and an SAE class of its own.

    python benchmarks/automated_user.py

Prints the exit code and the seconds of each, by the clock and of the processors, and of a failure
the last 1,500 characters. Works in a temporary folder.
"""

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"num_tokens": "100_000", "seeds": "[0]"}
OWN = """
class MySAE(torch.nn.Module):
    def __init__(self, d_in):
        super().__init__()
        self.W_enc = torch.nn.Parameter(torch.randn(d_in, dict_size) / d_in**0.5)
        self.W_dec = torch.nn.Parameter(self.W_enc.detach().T.clone())

    def encode(self, x):
        return torch.relu(x @ self.W_enc)

    def decode(self, z):
        return z @ self.W_dec

    def loss(self, x):
        z = self.encode(x)
        return (x - self.decode(z)).square().sum(1).mean() + 0.02 * z.sum(1).mean(), {}


def build(d_in):
    return MySAE(d_in)


def unused(d_in: int)"""
EDITS = {
    "run_0": ("", ""),
    "run_1 (a constant)": ("overlap_weight = 0.01", "overlap_weight = 0.1"),
    "run_2 (a term)": ("return cosines.square().mean()", "return cosines.abs().mean()"),
    "run_3 (another base)": (
        "base = batch_topk(d_in, dict_size, l0=l0)",
        "base = batch_topk(d_in, dict_size, l0=l0, refine=0.1)",
    ),
    "run_4 (crashes)": ("firing = (step.z > 0)", "firing = (step.codes > 0)"),
    "run_5 (NaN)": ("return cosines.square().mean()", "return cosines.square().mean() / 0 * 0"),
    "run_6 (a class of its own)": ("def build(d_in: int)", OWN),
}


def spent() -> float:
    """Seconds of the processors in the runs so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Make the edits one after the other and say what came of each."""
    home, began = Path(tempfile.mkdtemp()), time.monotonic()
    try:
        for title, (old, new) in EDITS.items():
            text = (ROOT / "experiment.py").read_text()
            for name, value in SMALL.items():
                text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
            if old not in text:
                sys.exit(f"experiment.py no longer holds {old!r}")
            (home / "experiment.py").write_text(text.replace(old, new) if old else text)
            started, before = time.monotonic(), spent()
            command = [sys.executable, "experiment.py", f"--out_dir={title.split()[0]}"]
            done = subprocess.run(command, cwd=home, capture_output=True, text=True)
            took = f"{time.monotonic() - started:.0f} s, {spent() - before:.0f} s of processors"
            print(f"{title}: exit code {done.returncode}, {took}")
            if done.returncode:
                print("    " + "\n    ".join(done.stderr[-1_500:].strip().splitlines()))
        print((home / "notes.txt").read_text())
        print(f"{time.monotonic() - began:.0f} s in all, {spent():.0f} s of processors")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
