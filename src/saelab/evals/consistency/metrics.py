"""What the scores of causal consistency are called and mean; each is a mean over concepts."""

from saelab.effects.intervene import TYPES
from saelab.evals.nces.metrics import CHANGE
from saelab.evals.result import Metric

AGAINST = {
    "control": "directions of equal length",
    "others": "other latents, scaled to equal length",
}


def _of_type(name: str) -> tuple[Metric, ...]:
    own = f"Consistency, {name}"
    return (
        Metric(
            f"consistency_{name}",
            own,
            "higher",
            f"Nats that a concept's latents move its tokens by, {CHANGE[name]}.",
        ),
        *(
            Metric(
                f"consistency_{name}_above_{key}",
                f"{own}, above {key}",
                "higher",
                f"The same less that of {whom}, nats.",
            )
            for key, whom in AGAINST.items()
        ),
        *(
            Metric(
                f"consistency_{name}_share_above_{key}",
                f"{own}, share above {key}",
                "higher",
                f"Share of concepts that lead {whom}, by interval.",
            )
            for key, whom in AGAINST.items()
        ),
    )


METRICS = (
    *(metric for name in TYPES for metric in _of_type(name)),
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
