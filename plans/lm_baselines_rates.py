"""The search behind the learning rates of the reference rows: every row at four rates or five, seed
0, L0 32.

    saelab run plans/lm_baselines_rates.py

The rate with the highest held-out explained variance is the row's, at both L0s
(`RATES` in plans/reference.py).
"""

from reference import GRID, N_LATENTS, RATES, SOURCE, WIDER
from saelab.experiments.plan import Plan
from saelab.runs import Optim, Run, Spec


def plan() -> Plan:
    """One run per row and rate, all on one stream."""
    pairs = [(variant, lr) for variant in RATES for lr in (*GRID, *WIDER.get(variant, ()))]
    runs = [
        Run(Spec(variant, N_LATENTS, 32, label=f"{variant}-lr{lr:g}"), SOURCE, Optim(lr=lr))
        for variant, lr in pairs
    ]
    return Plan("lm_baselines_rates", tuple(runs))
