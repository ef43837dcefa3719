"""Temporal rows on the embedded model, after its third and its last block, against per-token SAEs
and T-SAE in both forms; at two lengths.

    saelab run plans/temporal.py --jobs 2

What a claim reads: the prediction of activations at distances that no row was trained on, from 64
latents of one token, beside the best choice of 64 latents of a plain SAE and beside its smoothed
codes; and probes of labels that last, on whole dictionaries. docs/variants/temporal.md has the
tables.
"""

from dataclasses import replace

from saelab.experiments.plan import Contrast, Plan
from saelab.experiments.tables.rows import parse_row
from saelab.runs import Optim, Run, Source

HOOKS = {"last": "layers.3", "third": "layers.2"}
TOKENS = 1_000_000
N_LATENTS, L0 = 1_024, 24
SEEDS = (1, 2, 3)  # 0 served for choosing
RATE = 4e-3  # as `batch_topk` on this model in plans/reference.py
ROWS = (
    "batch_topk",
    "refined=batch_topk:refine=.15",
    "matryoshka",
    "temporal",
    "tied=temporal:untied=0:weight=3",
    "permuted=temporal:permute=1",
    "t_sae",
    "released=t_sae:product=1",
)
BASELINES = ("batch_topk", "refined", "matryoshka", "permuted", "t_sae", "released")
METRICS = (
    "prediction_64",
    "prediction_128",
    "slow_k4",
    "slow_k16",
    "fast_k16",
    "explained_variance",
)


def of_hook(place: str, length: int = 1) -> Plan:
    """The rows at one hook, at so many times the standard length."""
    source = Source(hook=HOOKS[place], context=256, tokens=length * TOKENS, eval_windows=400)
    specs = [replace(parse_row(row), n_latents=N_LATENTS, l0=L0) for row in ROWS]
    runs = tuple(Run(spec, source, Optim(lr=RATE), seed) for spec in specs for seed in SEEDS)
    contrasts = tuple(
        Contrast(metric, baseline, "temporal") for baseline in BASELINES for metric in METRICS
    )
    name = f"temporal-{place}" + ("" if length == 1 else f"-x{length}")
    return Plan(name, runs, contrasts, evals=("core", "temporal"))


def plan() -> tuple[Plan, ...]:
    """After the last block and the third, and after the last at twice the length."""
    return of_hook("last"), of_hook("third"), of_hook("last", 2)
