"""The demo: four kinds of SAE at one sparsity, three seeds each, on the middle layer of the
embedded language model.
"""

from saelab.experiments.plan import Contrast, Plan
from saelab.runs import Optim, Run, Source, Spec

# one metric, from a fifth of the positions: the default takes a minute to measure
CAUSAL = {"clusters": 1, "rows": 20_000}
ROWS = (  # each with its learning rate, found by plans/demo_rates.py
    (Spec("standard", n_latents=1_024), 1.92e-2),
    (Spec("batch_topk", n_latents=1_024), 1.92e-2),
    (Spec("matryoshka", n_latents=1_024), 1.92e-2),
    (Spec("causal", n_latents=1_024, settings=CAUSAL), 9.6e-3),
)
RATES_FROM = "tuned per row (plans/demo_rates.py)"
SEEDS = (0, 1, 2)
SOURCE = Source(
    model="pylm", corpus="stdlib", hook="middle", tokens=200_000, batch=1_024, eval_windows=128
)
CLAIMS = (("batch_topk", "standard"), ("batch_topk", "matryoshka"), ("causal", "batch_topk"))


def plan() -> Plan:
    """Twelve runs on the same batches, and three claims about each of two metrics."""
    runs = tuple(Run(spec, SOURCE, Optim(lr=lr), seed=seed) for seed in SEEDS for spec, lr in ROWS)
    contrasts = tuple(
        Contrast(metric, baseline=baseline, treatment=treatment)
        for metric in ("explained_variance", "ce_loss_score")
        for treatment, baseline in CLAIMS
    )
    return Plan("demo", runs, contrasts, facts={"learning_rates": RATES_FROM})
