"""The search behind the learning rates of the causal rows on the embedded model: seed 0, L0 32, by KL.

    saelab run plans/causal_rates.py

The rate with the lowest held-out KL is the row's (`RATES` in plans/causal.py). The exact-KL rows cost some ten times a
step of the others; of them the shorter one is searched and both take its rate.
"""

from saelab.experiments.plan import Plan
from saelab.experiments.reference import GRID, N_LATENTS, SOURCE
from saelab.types import Optim, Run, Spec

ROWS = {
    "batch_topk": ("batch_topk", {}),
    "causal": ("causal", {"weight": 16.0}),
    "rotated": ("causal", {"weight": 16.0, "rotate": 1.0}),
    "clusters_32": ("causal", {"weight": 16.0, "clusters": 32.0}),
}


def plan() -> Plan:
    """One run per row and rate, all on one stream."""
    rows = [(name, variant, settings, lr) for name, (variant, settings) in ROWS.items() for lr in GRID]
    runs = [
        Run(Spec(variant, N_LATENTS, 32, settings, f"{name}-lr{lr:g}"), SOURCE, Optim(lr=lr))
        for name, variant, settings, lr in rows
    ]
    return Plan("causal_rates", tuple(runs))
