"""What the scores of causal consistency are called and mean; each is a mean over concepts."""

from saelab.evals.common.interventions import CHANGE
from saelab.evals.result import Metric

AGAINST = {
    "control": "directions of equal length",
    "others": "other latents, scaled to equal length",
}


def _of_type(name: str) -> list[Metric]:
    rows = [("", "", f"Nats that a concept's latents move its tokens by, {CHANGE[name]}.")]
    for key, group in AGAINST.items():
        rows.append((f"_above_{key}", f", above {key}", f"The same less that of {group}, nats."))
    for key, group in AGAINST.items():
        meaning = f"Share of concepts that lead {group}, by interval."
        rows.append((f"_share_above_{key}", f", share above {key}", meaning))
    short = name == next(iter(CHANGE))  # the first two of it stand in short tables
    return [
        Metric(
            f"consistency_{name}{end}",
            f"Consistency, {name}{label}",
            "higher",
            meaning,
            place if short and place <= 2 else 0,
        )
        for place, (end, label, meaning) in enumerate(rows, 1)
    ]


METRICS = (
    *(metric for name in CHANGE for metric in _of_type(name)),
    Metric(
        "consistency_all_types",
        "Consistency, all types",
        "higher",
        "Share of concepts whose latents lead both comparisons, on average, under every type.",
    ),
    Metric(
        "consistency_agreement",
        "Consistency agreement",
        "higher",
        "Mean rank correlation over concepts of the leads between types, in [-1, 1].",
    ),
    Metric(
        "consistency_equal_signs",
        "Equal signs",
        "higher",
        "Share of concepts for which two types' leads have one sign.",
    ),
    Metric(
        "consistency_elsewhere",
        "Consistency elsewhere",
        "neither",
        "Effect where the concept holds and another token is next, nats.",
    ),
    Metric(
        "consistency_by_chance",
        "Consistency by chance",
        "neither",
        "Lead of latents chosen by shuffled labels, nats; above 0 is a fault of the evaluation.",
    ),
    Metric(
        "consistency_coverage",
        "Coverage",
        "neither",
        "Share of decided positions on which a latent of the concept is active.",
    ),
    Metric(
        "consistency_undefined",
        "Undefined concepts",
        "lower",
        "Share of concepts whose latents could not be measured.",
    ),
)
