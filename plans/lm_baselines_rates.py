"""The search behind the learning rates of the reference rows: every row at four rates or five, seed
0, L0 32.

    saelab run plans/lm_baselines_rates.py

The rate with the highest held-out explained variance is the row's, at both L0s
(`RATES` in plans/reference.py).
"""

from reference import GRID, RATES, SOURCE, WIDER, row
from saelab.experiments.plan import Plan
from saelab.experiments.tables.rows import at_rate
from saelab.runs import Run


def plan() -> Plan:
    """One run per row and rate, all on one stream."""
    runs = [
        at_rate(Run(row(variant), SOURCE), lr)
        for variant in RATES
        for lr in (*GRID, *WIDER.get(variant, ()))
    ]
    return Plan("lm_baselines_rates", tuple(runs))
