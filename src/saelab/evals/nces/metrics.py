"""What the NCES scores of a dictionary on a language model are called and mean."""

from saelab.evals.common.interventions import CHANGE
from saelab.evals.result import Metric

FIRST = next(iter(CHANGE))  # the type of intervention in short tables


def _of_type(name: str, change: str) -> list[Metric]:
    mean = f"(effect - control) / (effect + control), {change}; mean by activity, in [-1, 1]."
    rows = (
        ("", "", mean, int(name == FIRST)),
        ("_median", ", median", f"NCES of the median live latent, {change}.", 0),
        ("_share_positive", ", above 0", "Share of live latents whose interval lies above 0.", 0),
    )
    return [
        Metric(f"nces_{name}{end}", f"NCES, {name}{label}", "higher", meaning, place)
        for end, label, meaning, place in rows
    ]


METRICS = (
    *(metric for name, change in CHANGE.items() for metric in _of_type(name, change)),
    Metric(
        "causal_mass",
        "Causal mass",
        "higher",
        "Activity times effect of setting a latent to 0, summed over latents; nats a token.",
        headline=2,
    ),
    Metric(
        "causal_mass_fisher",
        "Causal mass (estimate)",
        "higher",
        "The same from the Fisher estimate, over all live latents; nats a token.",
    ),
    Metric(
        "nces_fisher",
        "NCES (estimate)",
        "higher",
        "NCES from the Fisher estimate, mean by activity over all live latents, in [-1, 1].",
    ),
    Metric(
        "nces_fisher_spearman",
        "Estimate's ranks",
        "higher",
        "Rank correlation of estimated and measured effects of setting a latent to 0.",
    ),
    Metric(
        "nces_agreement",
        "NCES agreement",
        "higher",
        "Mean rank correlation of NCES between types of intervention.",
    ),
    Metric(
        "nces_excluded",
        "Too rare to measure",
        "lower",
        "Share of latents active on fewer than 30 tokens: in no other score.",
    ),
)
