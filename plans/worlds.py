"""The baselines on every world, at its standard length, seeds 20 to 24: a table a world.

    saelab run plans/worlds.py --jobs 2

Each world is a plan of its own, in `runs/worlds/synth-<world>`; `python benchmarks/worlds.py`
copies the summaries to docs/results and prints them as markdown.
"""

from saelab.experiments.plan import Plan
from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.synth.worlds import WORLDS

ROWS = (
    "standard",
    "standard_trimmed",
    "gated",
    "batch_topk",
    "jump_relu",
    "matryoshka",
    "frontier",
    "frozen",
)
SEEDS = (20, 21, 22, 23, 24)
# the public benchmark takes hours; docs/worlds/synthsaebench.md has its commands
NAMES = tuple(world for world in WORLDS if not world.startswith("synthsaebench"))


def plan() -> tuple[Plan, ...]:
    """All rows of a seed share that seed's stream; every row against `batch_topk`."""
    return tuple(plan_of(WorldTable(world, ROWS, SEEDS)) for world in NAMES)
