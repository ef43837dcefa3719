"""What the scores of the concept evaluation are called and mean; each is a mean over concepts."""

from saelab.evals.result import Metric
from saelab.types import Better

QUALITY = {  # label, what it is
    "auroc": ("AUROC", "AUROC, .5 is chance and 1 perfect"),
    "f1": ("F1", "F1 at the threshold that is best on the training files, in [0, 1]"),
    "accuracy": (
        "accuracy",
        "balanced accuracy at the threshold that is best on the training files, .5 is chance",
    ),
}
METHOD: dict[str, tuple[str, str, Better]] = {  # label, what is scored, which way is better
    "best_latent": ("concept", "the best single latent", "higher"),
    "k1": (
        "k=1",
        "a logistic regression on the latent of the largest difference of means",
        "higher",
    ),
    "k5": ("k=5", "a logistic regression on the 5 latents of the largest differences", "higher"),
    "token": ("token rule", "the concept's rate given the token alone, no dictionary", "neither"),
    "probe": ("probe on x", "a logistic regression on the activation, no dictionary", "neither"),
    "best_latent_shuffled": (
        "shuffled labels",
        "the latent that is best for shuffled labels; AUROC off .5 is a fault",
        "neither",
    ),
    "probe_shuffled": (
        "probe, shuffled labels",
        "the probe for shuffled labels; AUROC off .5 is a fault",
        "neither",
    ),
}
PLACE = {"concepts_auroc_best_latent": 1, "concepts_auroc_token": 2, "concepts_auroc_probe": 3}


def _metric(quality: str, method: str) -> Metric:
    (short, meaning), (label, what, better) = QUALITY[quality], METHOD[method]
    key = f"concepts_{quality}_{method}"
    return Metric(
        key,
        f"{label[0].upper()}{label[1:]} {short}",
        better,
        f"Mean over concepts, on held-out files, of {what}: {meaning}.",
        PLACE.get(key, 0),
    )


METRICS = (
    *(_metric(quality, method) for method in METHOD for quality in QUALITY),
    *(
        Metric(
            f"concepts_{quality}_above_token",
            f"Lead over the token, {QUALITY[quality][0]}",
            "higher",
            f"The same of the best single latent less that of the token rule, in {short}.",
        )
        for quality, short in (("auroc", "AUROC"), ("f1", "F1"))
    ),
)
