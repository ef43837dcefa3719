"""The demo: four kinds of SAE, two seeds each, at one sparsity, on the middle layer of the embedded
language model.
"""

from saelab.experiments.plan import Contrast, Plan
from saelab.runs import Run, Source, Spec

VARIANTS = ("standard", "jump_relu", "batch_topk", "matryoshka")
SEEDS = (0, 1)
SOURCE = Source(
    model="pylm", corpus="stdlib", hook="middle", tokens=450_000, batch=1_024, eval_windows=128
)


def plan() -> Plan:
    """Eight runs on the same batches, and BatchTopK against the others."""
    runs = tuple(
        Run(Spec(variant, n_latents=1_024, l0=32), SOURCE, seed=seed)
        for variant in VARIANTS
        for seed in SEEDS
    )
    contrasts = tuple(
        Contrast(metric, baseline=variant, treatment="batch_topk")
        for metric in ("explained_variance", "ce_loss_score")
        for variant in VARIANTS
        if variant != "batch_topk"
    )
    return Plan("demo", runs, contrasts)
