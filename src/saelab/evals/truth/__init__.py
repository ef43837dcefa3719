"""Truth: does a dictionary find the features that a world is made of?"""

from saelab.evals.common.world import world_evaluation
from saelab.evals.result import Metric
from saelab.evals.truth import measure

METRICS = (
    Metric(
        "mcc",
        "MCC",
        "higher",
        "Mean |cosine| of true features and latents, matched one to one; from 0 to 1.",
        headline=4,
    ),
    Metric(
        "precision",
        "Precision",
        "higher",
        "A latent as a detector of its nearest feature: the share of its firings that are "
        "right, mean over all latents; a dead one counts 0.",
    ),
    Metric(
        "recall",
        "Recall",
        "higher",
        "A latent as a detector of its nearest feature: the share of the feature's firings "
        "that it sees, mean over all latents.",
    ),
    Metric(
        "f1",
        "F1",
        "higher",
        "Harmonic mean of a latent's precision and recall, mean over all latents; a dead one "
        "counts 0.",
        headline=3,
    ),
    Metric(
        "uniqueness",
        "Uniqueness",
        "higher",
        "Distinct features that are some latent's nearest, divided by the number of latents.",
        headline=5,
    ),
    Metric(
        "explained_variance",
        "Explained variance",
        "higher",
        "Share of the activations' variance that the reconstruction keeps; 1 is perfect.",
        headline=2,
    ),
    Metric(
        "dead",
        "Dead",
        "lower",
        "Share of latents that were never active on the held-out activations.",
    ),
    Metric(
        "shrinkage",
        "Norm ratio",
        "neither",
        "Norm of the reconstruction over norm of the activation; below 1 is shrinkage.",
    ),
    Metric(
        "l0",
        "L0",
        "neither",
        "Mean number of latents active on an activation: the sparsity at which everything is "
        "compared.",
        headline=1,
    ),
)
EVALUATION = world_evaluation(
    METRICS,
    measure.prepare,
    measure.measure,
    what="true features",
    reads=(object,),
    title="Learned and true features",
)
