"""Which parts of the frontier recipe carry over to a language model: each switched off alone, and
the one that does by itself.

    saelab run plans/frontier.py --reuse runs/lm_baselines

The frontier rows themselves are those of plans/lm_baselines.py.
"""

from reference import RATES, SEEDS, SOURCE, reference_runs, row
from saelab.experiments.plan import Contrast, Plan
from saelab.runs import Optim, Run

OFF = (  # what each row changes; docs/variants/frontier.md says what the settings are
    "no_levels=frontier:depth=1",
    "no_detach=frontier:detach=0",
    "no_sorting=frontier:sorts=0",
    "no_annealing=frontier:k_start=1",
    "no_refinement=frontier:refine=0",
    "leave_one_out=frontier:leave_one_out=.33",
)
# batch_topk, refined
ALONE = "refinement_alone=frontier:refine=.15:depth=1:sorts=0:k_start=1:tilt=0:resamples=0"
METRICS = ("explained_variance", "ce_loss_score", "kl_div_with_sae")


def plan() -> Plan:
    """Every part against the whole recipe; refinement alone against `batch_topk`, at its rate."""
    whole = [
        run for run in reference_runs(("frontier", "batch_topk", "matryoshka")) if run.spec.l0 == 32
    ]
    off, alone = [row(text) for text in OFF], row(ALONE)
    rates = [(spec, RATES["frontier"]) for spec in off] + [(alone, RATES["batch_topk"])]
    runs = [Run(spec, SOURCE, Optim(lr=lr), seed) for spec, lr in rates for seed in SEEDS]
    contrasts = [
        Contrast(metric, "frontier-l0_32", spec.name) for spec in off for metric in METRICS
    ]
    contrasts += [Contrast(metric, "batch_topk-l0_32", alone.name) for metric in METRICS]
    return Plan("frontier", (*whole, *runs), tuple(contrasts))
