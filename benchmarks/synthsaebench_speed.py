"""Samples per second of SynthSAEBench, sae-lens 6.54 against saelab, in one run on one machine, one
thread each.

`python benchmarks/synthsaebench_speed.py` (`--sae_lens PYTHON`: one that has it; else an
environment is made). The two take turns, so that a busy machine slows both; the median of the
rounds counts. Directions are random on both sides: orthogonalising them does not change the work of
a sample. Prints a row for every size, with saelab's peak memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import time
from pathlib import Path

import torch
from sae_lens_model import SEED, SIZES, environment

from saelab.synth.features_build import synthsaebench

BATCH, ROUNDS = 1_024, 5
# a round of sae-lens, a round of saelab: two seconds or less
BATCHES = {"16k": (2, 40), "2k": (16, 160)}


def compare(size: str, python: Path) -> None:
    """Both sides in turn."""
    features, width, roots = SIZES[size]
    ours = synthsaebench(0, features=features, d=width, roots=roots, apart_steps=0, model=SEED)
    generator = torch.Generator().manual_seed(0)
    theirs_at_once, ours_at_once = BATCHES[size]
    helper = [
        python,
        Path(__file__).with_name("sae_lens_model.py"),
        "serve",
        "--size",
        size,
        "--batch",
        BATCH,
    ]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "text": True,
    }
    rates: tuple[list[float], list[float]] = ([], [])
    with subprocess.Popen(list(map(str, helper)), **pipes) as process:
        assert process.stdin and process.stdout
        assert json.loads(process.stdout.readline()) == "ready"
        ours.draw_sparse(BATCH, generator)
        for _ in range(ROUNDS):
            process.stdin.write(f"{theirs_at_once}\n")
            process.stdin.flush()
            rates[0].append(theirs_at_once * BATCH / json.loads(process.stdout.readline()))
            started = time.perf_counter()
            for _ in range(ours_at_once):
                ours.draw_sparse(BATCH, generator)
            rates[1].append(ours_at_once * BATCH / (time.perf_counter() - started))
        process.stdin.close()
    ratio = [b / a for a, b in zip(*rates, strict=True)]
    cells = [
        f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"
        for values in rates
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    spread = f"{statistics.median(ratio):.1f} [{min(ratio):.1f}, {max(ratio):.1f}]"
    print(f"| {size} | {cells[0]} | {cells[1]} | {spread} | {peak:.2f} GiB |", flush=True)


def main() -> None:
    """Both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=["16k", "2k"])
    parser.add_argument("--sae_lens", type=Path, help="a Python with sae-lens 6.54")
    parser.add_argument(
        "--environment",
        type=Path,
        default=Path("runs/sae-lens-env"),
        help="where one is made otherwise",
    )
    given = parser.parse_args()
    python = environment(given.sae_lens, given.environment)
    torch.set_num_threads(1)
    print(
        "| size | sae-lens, samples/s | saelab, samples/s | ratio by round: median [least, most] "
        "| saelab's peak memory |"
    )
    print("|---|---|---|---|---|", flush=True)
    for size in given.sizes:
        compare(size, python)


if __name__ == "__main__":
    main()
