"""The temporal rows on worlds whose slow features are known, each at its own learning rate: `s3`
and `s3c`, their hard twins and nulls, the two heads at four times the length too; and how far slow
recall goes with the weight where slow features are rare.

    saelab run plans/temporal_worlds.py --jobs 2

The rates are the best of a search on `s3c` (docs/results/s3c-learning-rates.json), the head of its
family by slow recall; docs/variants/temporal.md has the tables.
"""

from dataclasses import replace
from pathlib import Path

from saelab.experiments.plan import Plan
from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.store import read_json

RATES = Path(__file__).parents[1] / "docs" / "results" / "s3c-learning-rates.json"
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
# parts of the idea, and other forms of it; at the rate of `temporal`
FORMS = (
    "permuted=temporal:permute=1",
    "untied=temporal:untied=1",
    "pre=t_sae:pre=1",
)
TWINS = ("s3", "s3_hard", "s3_null", "s3c_null")
FEW = ("standard", "batch_topk", "matryoshka", "gated", "temporal", "t_sae")
WEIGHTS = (1, 3, 10, 30)


def rates(rows: tuple[str, ...]) -> dict[str, float]:
    """The rate of each row; a form of a row has that of the row, `frozen` that of batch_topk."""
    chosen = read_json(RATES)["chosen"]
    names = {row.split("=")[0]: row.split("=")[-1 if "=" not in row else 1] for row in rows}
    base = {name: chosen.get(name, chosen.get(text.split(":")[0])) for name, text in names.items()}
    return {name: base[name] or chosen["batch_topk"] for name in names}


def tuned(name: str, world: str, rows: tuple[str, ...], seeds: tuple[int, ...], length: float = 1):
    """The plan of a table under this name, each row at its own rate."""
    table = WorldTable(world, rows, seeds, length=length, rates=rates(rows))
    return replace(plan_of(table), name=name)


def plan() -> tuple[Plan, ...]:
    """Eight tables, every row against `batch_topk`; at the longer length three seeds."""
    frontier = ("batch_topk", *(f"weight_{w}=temporal:weight={w}" for w in WEIGHTS))
    return (
        tuned("s3c-temporal", "s3c", (*ROWS, *FORMS), SEEDS),
        tuned("s3c-temporal-x4", "s3c", FEW, SEEDS[:3], 4),
        *(tuned(f"{world}-temporal", world, ROWS, SEEDS) for world in TWINS),
        tuned("s3-temporal-x4", "s3", FEW, SEEDS[:3], 4),
        tuned("s3c_hard-temporal", "s3c_hard", (*ROWS, *frontier[1:]), SEEDS),
    )
