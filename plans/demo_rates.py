"""The search behind the learning rates of the demo: its rows at four rates, a factor of 2 apart
around the derived one (.0096), on three seeds that the demo does not have.

    saelab run plans/demo_rates.py

The rate with the highest explained variance, mean over the seeds, is the row's; CE recovered is
highest at the same one (docs/results/demo-rates.json).
"""

from saelab.experiments.demo import ROWS, SOURCE
from saelab.experiments.plan import Plan
from saelab.experiments.tables.rows import at_rate
from saelab.runs import Run

GRID = (4.8e-3, 9.6e-3, 1.92e-2, 3.84e-2)
SEEDS = (10, 11, 12)


def plan() -> Plan:
    """One run per row, rate and seed, all on the demo's batches."""
    runs = (Run(spec, SOURCE, seed=seed) for seed in SEEDS for spec, _ in ROWS)
    return Plan("demo_rates", tuple(at_rate(run, lr) for run in runs for lr in GRID))
