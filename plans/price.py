"""Does a price on latents without effect add to the metric? Interventions of each type alone, three
together, and the price without the metric, on `s1` and `s1b`.

    saelab run plans/price.py --jobs 2

The rates are those of plans/causal_worlds.py; docs/variants/causal.md has the table.
"""

from causal_worlds import SEEDS, tuned

from saelab.experiments.plan import Plan
from saelab.experiments.tables.table import Table

TYPES = ("zero", "mean", "resample", "noise", "steer")


def priced(name: str) -> str:
    """The causal row at a price of .3 under one type of intervention."""
    weights = ":".join(f"price_{kind}={int(kind == name)}" for kind in TYPES)
    return f"on_{name}=causal:price=.3:{weights}"


ROWS = (
    "batch_topk",
    "causal",
    "mix=causal:price=.3",  # zero, mean and noise
    "only=causal:weight=0:price=.3",
    *map(priced, TYPES),
)


def plan() -> tuple[Plan, ...]:
    """Three seeds, every row against `batch_topk`."""
    return tuple(tuned(f"{world}-price", Table(world, ROWS, SEEDS[:3])) for world in ("s1", "s1b"))
