"""Does a dictionary hold what the model behind it uses? On worlds where it is known which features
those are.
"""

from dataclasses import replace

import torch
from torch import Tensor

from saelab import numbers
from saelab.effects.intervene import control_covariance, sampled_gradients
from saelab.effects.reactions import Text
from saelab.evals.common.interventions import latents_of
from saelab.evals.common.matching import match
from saelab.evals.common.world import world_evaluation, world_of, world_score
from saelab.evals.nces.detect import METRICS as DETECTION
from saelab.evals.nces.detect import CausalData, detection
from saelab.evals.result import Metric, Result
from saelab.ground.held_out import HeldOut
from saelab.synth.world import WorldModel
from saelab.synth.worlds.s1_causal import Causal, Gated
from saelab.types import Dictionary

ROWS = 20_000  # held-out activations
LABEL_SAMPLES = 4  # gradients per activation
RECOVERED = 0.9  # |cosine| above which a feature counts as recovered
NOT_FINITE = "the model's predictions on the reconstruction are not finite"
NO_INERT = "the model reads every feature in some context: none is inert"


@torch.no_grad()
def prepare(held: HeldOut) -> CausalData:
    """Held-out activations and the model's predictions on them. Raises `TypeError` for a world
    without such a model.
    """
    world = world_of(held)
    process = world.process
    if not isinstance(process, (Causal, Gated)):
        raise TypeError(
            "nces reads the worlds s1, s1b and s1d, whose causal features are known; "
            f"{world.name!r} is none of them"
        )
    x = world.sample(ROWS, "nces").flat.x
    log_p = process.logits(x).log_softmax(-1)
    lm, generator = WorldModel(world, process), torch.Generator().manual_seed(0)
    # [N, 1, D], each a window of one position: in these worlds positions are independent
    windows = x.unsqueeze(1)
    read = lambda rows, length: (windows[rows, :length], None)  # noqa: E731
    gradients = [
        sampled_gradients(lm, windows, None, generator).squeeze(1) for _ in range(LABEL_SAMPLES)
    ]
    return CausalData(
        process,
        x,
        log_p,
        kl(log_p, process.logits(process.ablated(x, world.stats.mean))),
        Text(lm, read, torch.arange(len(x)), torch.zeros(len(x)).long(), 1),
        torch.stack(gradients),
        control_covariance(x),
    )


def kl(log_p: Tensor, logits: Tensor) -> float:
    """KL(p || q), nats, mean over positions; p as log-probabilities `[N, V]`, q as logits `[N,
    V]`.
    """
    return float(numbers.kl(log_p, logits.log_softmax(-1)).mean())


@torch.no_grad()
def measure(dictionary: Dictionary, data: CausalData) -> Result:
    """Features that the model uses, in the dictionary and in what it reconstructs; `METRICS` says
    what each score is.

    Features are matched within their group alone (Hungarian), and one without a latent counts 0.
    `kl_recovered` is 1 - KL(model || model on the reconstruction) / KL(model || model on the
    reference ablation): the mean activation, with the context kept where there is one. Scores
    `nces_...`: see `detect.detection`.
    """
    process = data.process
    causal = match(dictionary.directions, process.features[process.causal]).cosine
    inert = match(dictionary.directions, process.features[process.inert]).cosine
    z = dictionary.encode(data.x)
    spliced = kl(data.log_p, process.logits(dictionary.decode(z)))
    scores = {
        "causal_mcc": world_score(float(causal.mean()), len(causal)),
        "inert_mcc": world_score(float(inert.mean()), len(inert), NO_INERT),
        "recovered_share": world_score(float((causal > RECOVERED).float().mean()), len(causal)),
        "kl_recovered": world_score(1 - spliced / data.kl_ablated, len(data.x), NOT_FINITE),
    }
    detected = detection(latents_of(dictionary, [z]), data, z)
    return replace(detected, scores={**scores, **detected.scores})


METRICS = (
    Metric(
        "causal_mcc",
        "Causal MCC",
        "higher",
        "Mean |cosine| of the features that the world's model reads with the latents matched "
        "to them; from 0 to 1.",
        headline=1,
    ),
    Metric(
        "inert_mcc",
        "Inert MCC",
        "neither",
        "Mean |cosine| of the features that the model never reads with the latents matched to "
        "them; from 0 to 1.",
    ),
    Metric(
        "recovered_share",
        "Causal recovered",
        "higher",
        "Share of the causal features whose latent has |cosine| above .9.",
        headline=2,
    ),
    Metric(
        "kl_recovered",
        "KL recovered",
        "higher",
        "Share of an ablation's divergence that the reconstruction avoids; 1 is all of it, 0 "
        "is as good as the mean activation.",
        headline=3,
    ),
    *DETECTION,
)
EVALUATION = world_evaluation(
    METRICS,
    prepare,
    measure,
    what="model whose causal features are known",
    reads=(Causal, Gated),
    title="Effects of latents",
)
