"""The causal rows on worlds whose model is known, each at its own learning rate: `s1`, `s1b` and
`s1d`, `s1` and `s1d` at four times the length too; and the dictionaries that NCES is tried on.

    saelab run plans/causal_worlds.py --jobs 2

The rates are the best of a search on `s1` (docs/results/s1-learning-rates.json, which says which
rows inherit theirs); docs/variants/causal.md has the tables.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saelab.experiments.plan import Plan
from saelab.experiments.tables.table import WorldTable, plan_of
from saelab.experiments.tables.tune import read_rates

RATES = Path(__file__).parents[1] / "docs" / "results" / "s1-learning-rates.json"
SEEDS = (20, 21, 22, 23, 24)
BASELINES = ("standard", "standard_trimmed", "batch_topk", "jump_relu", "matryoshka", "frontier")
ROTATED = "rotated=causal:rotate=1"
S1 = (
    *BASELINES,
    "frozen",
    "causal",
    "causal_on_frontier",
    "causal_as_stated",
    ROTATED,
    "isotropic=causal:isotropic=1",
    "end_to_end",
    "kl_finetune_25",
    "kl_finetune_5",
    "data_labels=causal:data_labels=1",
    "per_token=causal:per_token=1",
    "rank=causal:rank=16",
)
S1B = (*BASELINES, "frozen", "causal", ROTATED, "end_to_end", "kl_finetune_25")
S1D = (
    "batch_topk",
    "matryoshka",
    "frozen",
    "causal",
    "clusters=causal:clusters=2",
    "shuffled=causal:clusters=2:shuffle=1",
    ROTATED,
    "end_to_end",
    "kl_finetune_25",
)
# not trained at four times the length
SHORT = ("causal_as_stated", "kl_finetune_5", "data_labels", "per_token", "rank")
SHORT_S1D = ("matryoshka", "frozen")
# every feature of the world finds a latent: twice the width, and k as it is from the first step
WIDE = {"n_latents": 160, "k": 8, "anneal": 1}


def without(rows: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The rows but those of these names."""
    return tuple(row for row in rows if row.split("=")[0] not in names)


def tuned(name: str, table: WorldTable) -> Plan:
    """The plan of a table under this name, each row at its own rate."""
    return replace(plan_of(replace(table, rates=read_rates(RATES, table))), name=name)


def plan() -> tuple[Plan, ...]:
    """Seven tables, every row against `batch_topk`; at the longer length three seeds."""
    wide = {
        world: WorldTable(world, ("batch_topk",), SEEDS, changes=WIDE) for world in ("s1", "s1b")
    }
    return (
        tuned("s1-causal", WorldTable("s1", S1, SEEDS)),
        tuned("s1-causal-x4", WorldTable("s1", without(S1, SHORT), SEEDS[:3], length=4)),
        tuned("s1b-causal", WorldTable("s1b", S1B, SEEDS)),
        tuned("s1d-causal", WorldTable("s1d", S1D, SEEDS)),
        tuned("s1d-causal-x4", WorldTable("s1d", without(S1D, SHORT_S1D), SEEDS[:3], length=4)),
        # at the worlds' own rate
        *(replace(plan_of(table), name=f"{world}-nces") for world, table in wide.items()),
    )
