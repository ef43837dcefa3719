"""Does a dictionary hold what the model behind it uses? On worlds where it is known which features
those are.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from saelab.evals.common.matching import match
from saelab.evals.common.world_result import WorldResult, exact, undefined
from saelab.evals.nces.detect import Known, detection, known
from saelab.evals.nces.effects import latents_of
from saelab.synth.world import World, WorldModel
from saelab.synth.worlds.s1_causal import Causal, Gated
from saelab.types import Dictionary

ROWS = 20_000  # held-out activations
RECOVERED = 0.9  # |cosine| above which a feature counts as recovered
NOT_FINITE = "the model's predictions on the reconstruction are not finite"
NO_INERT = "the model reads every feature in some context: none is inert"


@dataclass(frozen=True)
class CausalData:
    """Held-out activations and what the model behind the world says on them."""

    process: Causal | Gated
    x: Tensor  # [N, D]
    log_p: Tensor  # [N, V] of the model on x
    kl_ablated: float  # KL of the reference ablation, nats
    known: Known  # what effects of latents are measured on


@torch.no_grad()
def prepare(world: World) -> CausalData:
    """Held-out activations and the model's predictions on them. Raises `TypeError` for a world
    without such a model.
    """
    process = world.process
    if not isinstance(process, (Causal, Gated)):
        raise TypeError(
            "nces reads the worlds s1, s1b and s1d, whose causal features are known; "
            f"{world.name!r} is none of them"
        )
    x = world.sample(ROWS, "nces").flat.x
    log_p = process.logits(x).log_softmax(-1)
    features = torch.cat([process.features[process.causal], process.features[process.inert]])
    about = known(WorldModel(world, process), x, log_p, features, len(process.causal))
    return CausalData(
        process, x, log_p, kl(log_p, process.logits(process.ablated(x, world.stats.mean))), about
    )


def kl(log_p: Tensor, logits: Tensor) -> float:
    """KL(p || q), nats, mean over positions; p as log-probabilities `[N, V]`, q as logits `[N,
    V]`.
    """
    return float((log_p.exp() * (log_p - logits.log_softmax(-1))).sum(-1).mean())


@torch.no_grad()
def measure(dictionary: Dictionary, data: CausalData) -> WorldResult:
    """Features that the model uses, in the dictionary and in what it reconstructs.

    - `causal_mcc`: mean over causal features of |cosine| with the latent matched to it (Hungarian
      among the causal features alone; 0 for a feature without a latent), in [0, 1]; `inert_mcc` the
      same for the inert ones;
    - `recovered_share`: share of causal features matched with |cosine| > .9;
    - `kl_recovered`: 1 - KL(model || model on the reconstruction) / KL(model || model on the
      reference ablation), at most 1; 0 is as good as the mean activation. The ablation is the mean,
      with the context kept where there is one;
    - `nces_...`: whether effects of single latents tell causal from inert ones
      (`nces_detect.detection`).
    """
    process = data.process
    causal, inert = (
        _cosines(dictionary, process, group) for group in (process.causal, process.inert)
    )
    z = dictionary.encode(data.x)
    spliced = kl(data.log_p, process.logits(dictionary.decode(z)))
    scores = {
        "causal_mcc": exact(float(causal.mean()), len(causal), "higher"),
        "inert_mcc": exact(float(inert.mean()), len(inert)) if len(inert) else undefined(NO_INERT),
        "recovered_share": exact(float((causal > RECOVERED).float().mean()), len(causal), "higher"),
        "kl_recovered": exact(1 - spliced / data.kl_ablated, len(data.x), "higher")
        if isfinite(spliced)
        else undefined(NOT_FINITE, "higher"),
    }
    detected, details = detection(latents_of(dictionary, [z]), data.known, z)
    return WorldResult("nces", scores | detected, details)


def _cosines(dictionary: Dictionary, process: Causal | Gated, group: range) -> Tensor:
    """|cosine| `[F]` of each feature of a group with its latent, matched within the group."""
    return match(dictionary.directions, process.features[group]).cosine
