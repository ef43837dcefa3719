"""kill -9 a training at random moments, resume it each time, and compare the final weights with an
uninterrupted run's.

    python benchmarks/kill_resume.py --kills 20

Prints a line per kill, the two hashes, and exits with 1 when they differ. Uses a random Llama
written to a temporary folder and the embedded text, so that a whole training takes about a minute.
The embedded model works too: --model pylm.
"""

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def plan_of(model: str, steps: int):
    """Three kinds of SAE in lock-step, so that every kind of state (threshold, steered coefficient,
    AuxK) is on trial.
    """
    from saelab.experiments.plan import Plan
    from saelab.runs import Run, Source, Spec

    source = Source(
        model=model,
        context=64,
        tokens=steps * 256,
        batch=256,
        buffer=4_096,
        lm_batch=16,
        eval_windows=8,
    )
    return Plan(
        "kill",
        tuple(Run(Spec(v, 256, 8), source) for v in ("batch_topk", "standard", "jump_relu")),
        evals=("core",),
    )


def child(out: Path, model: str, steps: int) -> None:
    """Train to the end in this process, with a checkpoint about every half second."""
    import torch

    from saelab.experiments.run import group
    from saelab.experiments.run.execute import execute

    torch.set_num_threads(1)
    group.CHECKPOINT_SECONDS = 0.5
    execute(plan_of(model, steps), out)


def weights_hash(out: Path) -> str:
    """One hash over every SAE's tensors under `out`."""
    files = sorted(out.glob("runs/*/sae/sae.safetensors"))
    return (
        hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
        if files
        else "no weights"
    )


def tiny_llama(folder: Path) -> Path:
    """A random Llama of width 32 with a byte tokenizer, written as a Hugging Face folder."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.helpers import tiny_checkpoint

    return tiny_checkpoint(folder, "llama")


def kill_once(command: list[str], out: Path, rng: random.Random, span: float) -> str:
    """Start the training and kill it: one time in five at any moment, else up to `span` seconds
    after it makes progress.
    """
    before = steps_done(out)
    process = subprocess.Popen(command)
    started = time.monotonic()
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0, 2 * span + 5))
    else:
        while process.poll() is None and steps_done(out) <= before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, span))
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    moment = "came after the end" if ended else f"after {time.monotonic() - started:.1f} s"
    return f"{moment}, {steps_done(out)} records written"


def steps_done(out: Path) -> int:
    """Health records of the first run under `out`."""
    files = sorted(out.glob("runs/*/metrics.jsonl"))
    return len(files[0].read_text().splitlines()) if files else 0


def main() -> int:
    """Run the comparison; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--model", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.model, options.steps)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        home, rng = Path(folder), random.Random(options.seed)
        model = options.model or str(tiny_llama(home / "llama"))
        command = [
            sys.executable,
            __file__,
            "--model",
            model,
            "--steps",
            str(options.steps),
            "--child",
        ]
        started = time.monotonic()
        subprocess.run([*command, str(home / "whole")], check=True)
        whole = time.monotonic() - started
        print(f"uninterrupted: {whole:.1f} s, weights {weights_hash(home / 'whole')}", flush=True)
        for number in range(options.kills):
            print(
                f"kill {number + 1}: "
                f"{kill_once([*command, str(home / 'killed')], home / 'killed', rng, whole / options.kills)}"
            )
        subprocess.run([*command, str(home / "killed")], check=True)
        before, after = weights_hash(home / "whole"), weights_hash(home / "killed")
        print(
            f"uninterrupted {before}, killed and resumed {after}: "
            f"{'EQUAL' if before == after else 'DIFFERENT'}"
        )
        return 0 if before == after else 1


if __name__ == "__main__":
    sys.exit(main())
