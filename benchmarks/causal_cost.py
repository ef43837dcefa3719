"""What each part of the causal rows costs on the embedded model, as ratios to `batch_topk`, in time
and peak memory.

`python benchmarks/causal_cost.py` prints a markdown table. Rows take turns on the same batches of a
short training in which every phase has its share, so on a noisy machine the ratios hold and the
absolute numbers do not. The harvest of the metric and of the KL's unit comes once per training, and
is given in seconds. `--memory` trains each row in a process of its own.
"""

import argparse
import resource
import runpy
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from saelab.ground.stream import ActivationStream
from saelab.lm.model import load_model
from saelab.runs import Optim, Run, Spec
from saelab.terms.base import Need
from saelab.text.windows import load_windows
from saelab.train import Training
from saelab.train.member import Record
from saelab.types import ActivationSource, Batch

# the rows of the plans
REFERENCE = runpy.run_path(str(Path(__file__).parents[1] / "plans" / "reference.py"))
N_LATENTS, SOURCE = REFERENCE["N_LATENTS"], REFERENCE["SOURCE"]
STEPS = 200
UPDATES = 1.0  # of the price: 10 in 2,000 steps
ROWS: dict[str, tuple[str, dict[str, float]]] = {
    "batch_topk": ("batch_topk", {}),
    "refinement": ("batch_topk", {"refine": 0.15}),
    "metric, one M": ("causal", {"clusters": 1, "refine": 0}),
    "metric, 32 clusters": ("causal", {"refine": 0}),
    "metric, 256 clusters": ("causal", {"clusters": 256, "refine": 0}),
    "metric, one M of rank 64": ("causal", {"clusters": 1, "rank": 64, "refine": 0}),
    "causal (32 clusters and refinement)": ("causal", {}),
    "metric, 32 clusters, and price": (
        "causal",
        {"refine": 0, "price": 0.3, "price_updates": UPDATES},
    ),
    "the same with all five types": (
        "causal",
        {
            "refine": 0,
            "price": 0.3,
            "price_updates": UPDATES,
            "price_resample": 1,
            "price_steer": 1,
        },
    ),
    "one g per token": ("causal", {"per_token": 1, "refine": 0}),
    "kl_finetune_25": ("kl_finetune_25", {}),
    "end_to_end": ("end_to_end", {}),
    "end_to_end, quarter of the windows": ("end_to_end", {"kl_share": 0.25}),
}


def stream(tokens: int) -> ActivationStream:
    """The embedded model's activations, shuffled over a small buffer."""
    source = run("batch_topk", tokens).source
    lm = load_model(source.model, hook=source.hook)
    return ActivationStream(lm, load_windows(source, lm, "train"), source)


def run(row: str, tokens: int) -> Run:
    """The run of a row."""
    variant, settings = ROWS[row]
    source = replace(SOURCE, tokens=tokens)
    return Run(Spec(variant, N_LATENTS, 32, settings), source, Optim(lr=2e-3))


def train(rows: list[str], tokens: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of all steps of each row, and of each need."""
    needs: dict[str, float] = {}

    def timed(need: Need, source: ActivationSource) -> Mapping[str, Tensor]:
        start = time.perf_counter()
        found = need.of(source)
        needs[need.name] = time.perf_counter() - start
        return found

    training = Training([run(row, tokens) for row in rows], stream(tokens), meet=timed)
    seconds: dict[str, float] = defaultdict(float)
    for member, row in zip(training.members, rows, strict=True):
        member.step = clocked(member.step, seconds, row)
    for _ in training:
        pass
    return seconds, needs


def clocked(
    step: Callable[..., Record | None], seconds: dict[str, float], row: str
) -> Callable[..., Record | None]:
    """`step`, its time added up."""

    def call(batch: Batch, at: int, steps: int, *, record: bool) -> Record | None:
        start = time.perf_counter()
        found = step(batch, at, steps, record=record)
        seconds[row] += time.perf_counter() - start
        return found

    return call


def peak(row: str, steps: int) -> float:
    """Peak resident memory of a process that trains this row alone, MiB."""
    command = [sys.executable, __file__, "--only", row, "--steps", str(steps)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="peak memory too")
    parser.add_argument(
        "--only", choices=ROWS, help="train this row and print its peak memory, MiB"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokens = args.steps * SOURCE.batch
    if args.only:
        train([args.only], tokens)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)
        return
    seconds, needs = train(list(ROWS), tokens)
    base = seconds["batch_topk"]
    print("| row | ms per step | of `batch_topk` | peak memory, MiB |\n|---|---|---|---|")
    for row, taken in seconds.items():
        memory = f"{peak(row, args.steps):,.0f}" if args.memory else "-"
        print(
            f"| {row} | {1e3 * taken / args.steps:.1f} | {taken / base:.2f} | {memory} |",
            flush=True,
        )
    for need, taken in needs.items():
        print(f"{need}: {taken:.1f} s once")


if __name__ == "__main__":
    main()
