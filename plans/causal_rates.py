"""The search behind the learning rates of plans/causal.py: its rows at three rates, seed 0, L0 32.

    saelab run plans/causal_rates.py --reuse runs/causal

The rate with the lowest KL is the row's, at both L0s.
"""

from reference import CAUSAL, N_LATENTS, SOURCE
from saelab.experiments.plan import Plan
from saelab.runs import Optim, Run, Spec

RATES = (2e-3, 4e-3, 8e-3)
ROWS = {"batch_topk": ("batch_topk", {}), **CAUSAL}


def plan() -> Plan:
    """One run per row and rate, all on one stream."""
    pairs = [(name, lr) for name in ROWS for lr in RATES]
    runs = [
        Run(
            Spec(ROWS[name][0], N_LATENTS, 32, ROWS[name][1], f"{name}-lr{lr:g}"),
            SOURCE,
            Optim(lr=lr),
        )
        for name, lr in pairs
    ]
    return Plan("causal_rates", tuple(runs))
