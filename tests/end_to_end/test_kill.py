"""A training that is killed, or told to stop, and goes on ends as one that was left alone: the same
weights and the same log. The long form, with kills at random moments, is
`benchmarks/kill_resume.py`.
"""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import runs_of, tiny_place, weights
from saelab.cli import main

STEPS, EVERY = 150, 20
# every kind of state is on trial: a calibrated threshold, a steered coefficient, learned thresholds
PLAN = """
from saelab import Plan, Run, Source, Spec

def plan():
    source = Source({model!r}, {corpus!r}, "layers.1", 64, tokens={tokens}, batch=256, eval_windows=16)
    variants = ("batch_topk", "standard", "jump_relu")
    return Plan("cut", tuple(Run(Spec(variant, 64, 8), source) for variant in variants))
"""
# one thread as in this process (sums depend on it), and checkpoints often
COMMAND = f"""
import sys, torch
from saelab import cli
from saelab.experiments.run import group
torch.set_num_threads(1)
group.CHECKPOINT_STEPS = {EVERY}
sys.exit(cli.main(sys.argv[1:]))
"""


def start(*words: str) -> subprocess.Popen:
    """The command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", COMMAND, *words], **pipes)


def logged(out: Path) -> int:
    """How many steps are in the log of every run."""
    logs = list(out.glob("runs/*/metrics.jsonl"))
    return min(len(log.read_text().splitlines()) for log in logs) if len(logs) == 3 else 0


def test_killed_and_stopped_runs_end_as_uninterrupted_ones(tmp_path):
    """kill -9 loses only what followed the last checkpoint; SIGTERM saves and says how to go on."""
    place, whole, cut = tiny_place(tmp_path), tmp_path / "whole", tmp_path / "cut"
    plan = tmp_path / "plan.py"
    paths = {"model": str(place / "model"), "corpus": str(place / "text.txt")}
    plan.write_text(PLAN.format(tokens=STEPS * 256, **paths))
    command = ["run", str(plan), "--out"]
    assert main([*command, str(whole)]) == 0

    killed = start(*command, str(cut))
    while logged(cut) < 1.5 * EVERY:
        time.sleep(0.01)
        assert killed.poll() is None
    killed.kill()
    killed.communicate(timeout=60)
    lost = logged(cut)
    assert lost < STEPS and not (runs_of(cut)[0] / "health.json").exists()

    stopped = start(*command, str(cut))
    assert stopped.stdout is not None
    lines = iter(stopped.stdout)
    step = next(
        found for line in lines if (found := re.search(r"going on from .* step (\d+)", line))
    )
    assert int(step[1]) % EVERY == 0 < int(step[1]) <= lost
    next(line for line in lines if line.startswith("training 3 runs"))
    stopped.send_signal(signal.SIGTERM)
    _, error = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "To go on: saelab run" in error
    assert re.search(rf"stopped at step \d+ of {STEPS}, saved in", error)

    assert main([*command, str(cut)]) == 0
    assert weights(cut) == weights(whole)
    for one, other in zip(runs_of(cut), runs_of(whole), strict=True):
        assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
