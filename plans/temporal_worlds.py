"""The temporal rows on worlds whose slow features are known: `s3` and `s3c`, their hard twins and
nulls, the two heads at four times the length too; and how far slow recall goes with the weight
where slow features are rare.

    saelab run plans/temporal_worlds.py --jobs 2

Every row is trained at its world's own rate: no rate was searched yet. docs/variants/temporal.md
says what was measured.
"""

from dataclasses import replace

from saelab.experiments.plan import Plan
from saelab.experiments.tables.table import WorldTable, plan_of

SEEDS = (20, 21, 22, 23, 24)
ROWS = (
    "standard",
    "standard_trimmed",
    "gated",
    "batch_topk",
    "refined=batch_topk:refine=.15",
    "jump_relu",
    "matryoshka",
    "frontier",
    "frozen",
    "temporal",
    "temporal_as_stated",
    "temporal_on_frontier",
    "t_sae",
    "released=t_sae:product=1",
)
# parts of the idea, and other forms of it
FORMS = (
    "permuted=temporal:permute=1",
    "untied=temporal:untied=1",
    "pre=t_sae:pre=1",
)
TWINS = ("s3", "s3_hard", "s3_null", "s3c_null")
FEW = ("standard", "batch_topk", "matryoshka", "gated", "temporal", "t_sae")
WEIGHTS = (1, 3, 10, 30)


def named(name: str, world: str, rows: tuple[str, ...], seeds: tuple[int, ...], length: float = 1):
    """The plan of a table under this name."""
    table = WorldTable(world, rows, seeds, length=length)
    return replace(plan_of(table), name=name)


def plan() -> tuple[Plan, ...]:
    """Eight tables, every row against `batch_topk`; at the longer length three seeds."""
    frontier = ("batch_topk", *(f"weight_{w}=temporal:weight={w}" for w in WEIGHTS))
    return (
        named("s3c-temporal", "s3c", (*ROWS, *FORMS), SEEDS),
        named("s3c-temporal-x4", "s3c", FEW, SEEDS[:3], 4),
        *(named(f"{world}-temporal", world, ROWS, SEEDS) for world in TWINS),
        named("s3-temporal-x4", "s3", FEW, SEEDS[:3], 4),
        named("s3c_hard-temporal", "s3c_hard", (*ROWS, *frontier[1:]), SEEDS),
    )
