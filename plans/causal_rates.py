"""The search behind the learning rates of plans/causal.py: its rows at three rates, seed 0, L0 32.

    saelab run plans/causal_rates.py --reuse runs/causal

The rate with the lowest KL is the row's, at both L0s.
"""

from reference import CAUSAL, SOURCE, row
from saelab.experiments.plan import Plan
from saelab.experiments.tables.rows import at_rate
from saelab.runs import Run

RATES = (2e-3, 4e-3, 8e-3)


def plan() -> Plan:
    """One run per row and rate, all on one stream."""
    runs = (Run(row(text), SOURCE) for text in ("batch_topk", *CAUSAL))
    return Plan("causal_rates", tuple(at_rate(run, lr) for run in runs for lr in RATES))
