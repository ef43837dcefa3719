"""Causal rows on the embedded model against the reference rows, their refinement, rotated nulls and
exact KL.

    saelab run plans/causal.py --reuse runs/lm_baselines

The reference rows are those of plans/lm_baselines.py. Rates are those of plans/causal_rates.py;
what else was tried before, on seed 0, and what it gave: docs/lab-log.md.
"""

from reference import CAUSAL, SEEDS, SOURCE, reference_runs, row
from saelab.experiments.plan import Contrast, Plan
from saelab.experiments.tables.rows import at_l0
from saelab.runs import Optim, Run

RATE = 4e-3  # of every row here and of `batch_topk`: the lowest KL of each on seed 0 at L0 32
REFERENCE = ("standard", "batch_topk", "matryoshka", "frontier", "frozen")
WIDE = ("refined", "causal", "rotated")  # at L0 64 too; all at 32
METRICS = ("kl_div_with_sae", "explained_variance", "ce_loss_score")
AGAINST = ("batch_topk", "refined", "rotated", "kl_finetune_25", "end_to_end")


def plan() -> Plan:
    """Every row at both L0s or at 32, three seeds each, and `causal` against the others."""
    rows = [row(text) for text in CAUSAL]
    specs = [at_l0(spec, 32.0) for spec in rows]
    specs += [at_l0(spec, 64.0) for spec in rows if spec.name in WIDE]
    runs = [Run(spec, SOURCE, Optim(lr=RATE), seed) for spec in specs for seed in SEEDS]
    contrasts = [
        Contrast(metric, f"{other}-l0_{l0:g}", f"causal-l0_{l0:g}")
        for l0 in (32, 64)
        for other in AGAINST
        for metric in METRICS
        if l0 == 32 or other in ("batch_topk", *WIDE)
    ]
    contrasts += [
        Contrast(metric, f"{other}-l0_32", "metric-l0_32")
        for other in ("batch_topk", "rotated_metric")
        for metric in METRICS
    ]
    return Plan("causal", (*reference_runs(REFERENCE), *runs), tuple(contrasts))
