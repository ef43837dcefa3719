"""Does a price on latents without effect add to the metric? Interventions of each type alone, three
together, and the price without the metric, on `s1` and `s1b`.

    saelab run plans/price.py --jobs 2

The rates are those of plans/causal_worlds.py; docs/variants/causal.md has the table.
"""

from causal_worlds import SEEDS, tuned

from saelab.experiments.plan import Plan
from saelab.experiments.tables.table import WorldTable

ROWS = (
    "batch_topk",
    "causal",
    "mix=causal:price=.3",  # zero, mean and noise, as the price has it by default
    "only=causal:weight=0:price=.3",
    "on_zero=causal:price=.3:price_mean=0:price_noise=0",
    "on_mean=causal:price=.3:price_zero=0:price_noise=0",
    "on_resample=causal:price=.3:price_zero=0:price_mean=0:price_resample=1:price_noise=0",
    "on_noise=causal:price=.3:price_zero=0:price_mean=0",
    "on_steer=causal:price=.3:price_zero=0:price_mean=0:price_noise=0:price_steer=1",
)


def plan() -> tuple[Plan, ...]:
    """Three seeds, every row against `batch_topk`."""
    return tuple(
        tuned(f"{world}-price", WorldTable(world, ROWS, SEEDS[:3])) for world in ("s1", "s1b")
    )
