"""What evaluations by intervention share: latents in the activations' unit, and how the effects of
two ways to change them are compared.

Legend: L latents | N positions | D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from saelab.effects.pairs import MIN_CONTEXTS, Codes, sparse_codes
from saelab.evals.common.fold import decoder_norms
from saelab.types import Dictionary

CHANGE = {  # type of intervention -> what is done
    "zero": "a latent set to 0",
    "mean": "a latent set to its mean",
    "resample": "a latent given its code on another token",
    "noise": "noise added to a latent",
    "steer": "a latent added where it is silent",
}
MIN_RANKED = 5  # latents for a rank correlation


@dataclass(frozen=True)
class Latents:
    """A dictionary on a text: codes in units of the activation's norm, and unit directions."""

    codes: Codes
    directions: Tensor  # [L, D], zero where the decoder row is

    @property
    def live(self) -> Tensor:
        """Latents that can be measured: active on at least 30 positions, with a direction."""
        return (
            ((self.codes.count >= MIN_CONTEXTS) & (self.directions.norm(dim=1) > 0))
            .nonzero()
            .squeeze(1)
        )


@torch.no_grad()
def latents_of(dictionary: Dictionary, codes: Iterable[Tensor]) -> Latents:
    """A dictionary and its codes `[n, L]`, a few positions at a time: the decoder's norms are
    folded into the codes.
    """
    norms = decoder_norms(dictionary)
    folded = sparse_codes((z.detach() * norms for z in codes), len(norms))
    return Latents(folded, (dictionary.directions.detach().float() / norms.unsqueeze(1)).cpu())


def rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation over the entries where both `[m]` are finite; None with fewer
    than 5, or without spread.
    """
    from scipy.stats import rankdata

    both = a.isfinite() & b.isfinite()
    if int(both.sum()) < MIN_RANKED:
        return None
    ranks = torch.as_tensor(rankdata(torch.stack([a[both], b[both]]).double().numpy(), axis=1))
    value = float(torch.corrcoef(ranks)[0, 1])
    return value if isfinite(value) else None
