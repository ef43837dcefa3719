"""Which parts of the frontier recipe carry over to a language model: each switched off alone, and
the one that does by itself.

    saelab run plans/frontier.py --reuse runs/lm_baselines

The frontier rows themselves are those of plans/lm_baselines.py.
"""

from reference import N_LATENTS, RATES, SEEDS, SOURCE, reference_runs
from saelab.experiments.plan import Contrast, Plan
from saelab.runs import Optim, Run, Spec

OFF = {  # what each row changes; docs/variants/frontier.md says what the settings are
    "no_levels": {"depth": 1.0},
    "no_detach": {"detach": 0.0},
    "no_sorting": {"sorts": 0.0},
    "no_annealing": {"k_start": 1.0},
    "no_refinement": {"refine": 0.0},
    "leave_one_out": {"leave_one_out": 0.33},
}
# batch_topk, refined
ALONE = {"refine": 0.15, "depth": 1.0, "sorts": 0.0, "k_start": 1.0, "tilt": 0.0, "resamples": 0.0}
METRICS = ("explained_variance", "ce_loss_score", "kl_div_with_sae")


def plan() -> Plan:
    """Every part against the whole recipe; refinement alone against `batch_topk`, at its rate."""
    optim = Optim(lr=RATES["frontier"])
    whole = [
        run for run in reference_runs(("frontier", "batch_topk", "matryoshka")) if run.spec.l0 == 32
    ]
    parts = [
        Run(Spec("frontier", N_LATENTS, 32, off, name), SOURCE, optim, seed)
        for name, off in OFF.items()
        for seed in SEEDS
    ]
    parts += [
        Run(
            Spec("frontier", N_LATENTS, 32, ALONE, "refinement_alone"),
            SOURCE,
            Optim(lr=RATES["batch_topk"]),
            s,
        )
        for s in SEEDS
    ]
    contrasts = [Contrast(metric, "frontier-l0_32", name) for name in OFF for metric in METRICS]
    contrasts += [Contrast(metric, "batch_topk-l0_32", "refinement_alone") for metric in METRICS]
    return Plan("frontier", (*whole, *parts), tuple(contrasts))
