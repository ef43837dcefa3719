"""Causal rows on the embedded model against `batch_topk`, its refinement, rotated nulls and exact KL.

    saelab run plans/causal.py --reuse runs/lm_baselines

The `batch_topk` rows are those of plans/lm_baselines.py. What was tried before, on seed 0, and what it gave: docs/lab-log.md.
"""

from saelab.experiments.plan import Contrast, Plan
from saelab.experiments.reference import N_LATENTS, RATES, SEEDS, SOURCE, reference_runs
from saelab.types import Optim, Run, Spec

NARROW = {  # at L0 32: the row, and what it changes
    "refined": ("batch_topk", {"refine": 0.15}),
    "causal": ("causal", {}),
    "rotated": ("causal", {"rotate": 1.0}),
    "metric": ("causal", {"refine": 0.0}),
    "kl_finetune_25": ("kl_finetune_25", {"weight": 1.0, "restart": 0.3}),
    "end_to_end": ("end_to_end", {"weight": 0.25, "kl_share": 0.25}),
}
WIDE = ("refined", "causal")  # at L0 64 too
METRICS = ("kl_div_with_sae", "explained_variance", "ce_loss_score")
AGAINST = ("batch_topk", "refined", "rotated", "kl_finetune_25", "end_to_end")


def plan() -> Plan:
    """Every row at the best of four rates for `batch_topk`; only one M and its rotation were searched too, and agree."""
    optim = Optim(lr=RATES["batch_topk"])
    rows = [(name, 32.0) for name in NARROW] + [(name, 64.0) for name in WIDE]
    runs = [
        Run(Spec(NARROW[name][0], N_LATENTS, l0, NARROW[name][1], f"{name}-l0_{l0:g}"), SOURCE, optim, seed)
        for name, l0 in rows
        for seed in SEEDS
    ]
    contrasts = [
        Contrast(metric, f"{other}-l0_{l0:g}", f"causal-l0_{l0:g}")
        for l0 in (32, 64)
        for other in AGAINST
        for metric in METRICS
        if l0 == 32 or other in ("batch_topk", *WIDE)
    ]
    contrasts += [Contrast(metric, "batch_topk-l0_32", "metric-l0_32") for metric in METRICS]
    return Plan("causal", (*reference_runs(("batch_topk",)), *runs), tuple(contrasts))
