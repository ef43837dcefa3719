"""Temporal: features that persist, and latents that know the position."""

from saelab.evals.common.world import world_evaluation
from saelab.evals.result import Metric
from saelab.evals.temporal import measure
from saelab.synth.worlds.s3_persistence import Persistence

METRICS = (
    Metric(
        "slow_recall",
        "Slow recall",
        "higher",
        "Share of the slow features that some live latent has with |cosine| above .8.",
        headline=3,
    ),
    Metric(
        "fast_recall",
        "Fast recall",
        "neither",
        "Share of the fast features that some live latent has with |cosine| above .8.",
    ),
    Metric(
        "purity",
        "Purity",
        "higher",
        "Slow latents among the slow and fast ones of the slow block; .5 is chance.",
        headline=1,
    ),
    Metric(
        "purity_sorted",
        "Purity, sorted",
        "higher",
        "Purity after sorting latents by autocorrelation, which is easy for any dictionary: "
        "only what exceeds it speaks for a temporal loss.",
        headline=2,
    ),
    Metric(
        "occupancy",
        "Occupancy",
        "higher",
        "Share of the slow features that a latent of the slow block stands for.",
    ),
    Metric(
        "position_features_in_slow_block",
        "Position in slow block",
        "lower",
        "Number of position signals that can be read linearly from the slow block.",
    ),
    Metric(
        "hidden_correlation",
        "Hidden correlation",
        "higher",
        "Correlation of slow latents' codes with the hidden state of their feature.",
    ),
    Metric(
        "hidden_correlation_smoothed",
        "Hidden correlation, smoothed",
        "higher",
        "The same correlation after the best exponential average of the codes in time.",
    ),
    Metric(
        "mcc_slow",
        "MCC, slow",
        "higher",
        "Mean |cosine| of the slow features with the latents matched to them; from 0 to 1.",
    ),
    Metric(
        "mcc_fast",
        "MCC, fast",
        "neither",
        "Mean |cosine| of the fast features with the latents matched to them; from 0 to 1.",
    ),
)
EVALUATION = world_evaluation(
    METRICS,
    measure.prepare,
    measure.measure,
    what="persistent features",
    reads=(Persistence,),
    title="Features that persist",
)
