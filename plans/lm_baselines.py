"""Reference rows on the embedded model: 7 rows x 2 L0s x 3 seeds, 2 million activations each.

saelab run plans/lm_baselines_rates.py      # the search that the learning rates come from
saelab run plans/lm_baselines.py
"""

from reference import L0S, RATES, reference_runs
from saelab.experiments.plan import Contrast, Plan


def plan() -> Plan:
    """Every row against `batch_topk` at the same L0."""
    contrasts = tuple(
        Contrast(metric, f"batch_topk-l0_{l0:g}", f"{variant}-l0_{l0:g}")
        for l0 in L0S
        for variant in RATES
        for metric in ("explained_variance", "ce_loss_score")
        if variant != "batch_topk"
    )
    return Plan("lm_baselines", reference_runs(), contrasts)
