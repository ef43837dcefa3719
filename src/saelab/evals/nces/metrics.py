"""What the NCES scores of a dictionary on a language model are called and mean."""

from saelab.evals.result import Metric

CHANGE = {  # type of intervention -> what is done
    "zero": "a latent set to 0",
    "mean": "a latent set to its mean",
    "resample": "a latent given its code on another token",
    "noise": "noise added to a latent",
    "steer": "a latent added where it is silent",
}


def _of_type(name: str, change: str) -> tuple[Metric, ...]:
    return (
        Metric(
            f"nces_{name}",
            f"NCES, {name}",
            "higher",
            f"(effect - control) / (effect + control), {change}; mean by activity, in [-1, 1].",
        ),
        Metric(
            f"nces_{name}_median",
            f"NCES, {name}, median",
            "higher",
            f"NCES of the median live latent, {change}.",
        ),
        Metric(
            f"nces_{name}_share_positive",
            f"NCES, {name}, above 0",
            "higher",
            "Share of live latents whose interval lies above 0.",
        ),
    )


METRICS = (
    *(metric for name, change in CHANGE.items() for metric in _of_type(name, change)),
    Metric(
        "causal_mass",
        "Causal mass",
        "higher",
        "Activity times effect of setting a latent to 0, summed over latents; nats a token.",
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
