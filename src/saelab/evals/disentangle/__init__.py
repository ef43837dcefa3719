"""Disentangling: is each factor of variation in latents of its own?"""

from saelab.evals.common.world import world_evaluation
from saelab.evals.disentangle import measure
from saelab.evals.result import Metric
from saelab.synth.worlds.s4_factors import Factors

METRICS = (
    Metric(
        "mig",
        "MIG",
        "higher",
        "Gap between the best and the second-best latent's information on a factor's value; 1 "
        "is one latent per value.",
        headline=1,
    ),
    Metric(
        "mig_ab",
        "MIG, A and B",
        "higher",
        "MIG of the two correlated factors alone, where composites show.",
        headline=2,
    ),
    Metric(
        "sap",
        "SAP",
        "higher",
        "Gap between the best and the second-best latent's prediction of a factor's value; 1 "
        "is one latent per value.",
    ),
    Metric(
        "dci_d",
        "DCI-D",
        "higher",
        "How far each latent matters for one factor only; .15 is chance, .41 the true features.",
    ),
    Metric(
        "factor_vae",
        "FactorVAE",
        "higher",
        "Accuracy of naming the fixed factor by the latent that varies least; raw activations "
        "score .7.",
    ),
    Metric(
        "composites",
        "Composites",
        "lower",
        "Number of latents that stand for a value of A and a value of B at once.",
        headline=3,
    ),
    Metric(
        "composite_share",
        "Composite share",
        "lower",
        "Share of composites among the latents that stand for a value of A or B.",
    ),
)
EVALUATION = world_evaluation(
    METRICS,
    measure.prepare,
    measure.measure,
    what="factors of variation",
    reads=(Factors,),
    title="Factors in latents of their own",
)
