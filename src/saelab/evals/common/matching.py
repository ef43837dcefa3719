"""Which latent stands for which true feature: one-to-one, by the cosine of their directions.

Legend: L latents | F true features | D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Matched:
    """For every true feature the latent that stands for it."""

    cosine: Tensor  # [F] |cosine| with its latent, 0 where it has none
    latent: Tensor  # [F] number of its latent, -1 where it has none


def cosines(directions: Tensor, features: Tensor) -> Tensor:
    """Signed cosines `[L, F]` of directions `[L, D]` and features `[F, D]`; 0 where a row is zero.

    A norm below 1e-8 counts as 1e-8. Raises `ValueError` where the widths differ.
    """
    if directions.ndim != 2 or features.ndim != 2 or directions.shape[1] != features.shape[1]:
        raise ValueError(
            f"directions are {list(directions.shape)} and features {list(features.shape)};"
            " they must be [L, D] and [F, D] of one width D"
        )
    features = features.to(directions)
    return normalize(directions, dim=1, eps=1e-8) @ normalize(features, dim=1, eps=1e-8).T


def match(directions: Tensor, features: Tensor) -> Matched:
    """The one-to-one matching of latents `[L, D]` and features `[F, D]` with the largest sum of
    |cosine|.

    min(L, F) features are matched, the others have cosine 0 and latent -1. The mean over the
    matched ones is the MCC of nonlinear ICA (Hyvarinen & Morioka 2016) with directions in place of
    activations. Raises `ValueError` where the widths differ or a direction is not finite.
    """
    from scipy.optimize import linear_sum_assignment

    similarity = cosines(directions, features).abs()  # [L, F]
    if not similarity.isfinite().all():
        raise ValueError("directions or features are not finite; nothing can be matched with them")
    rows, columns = linear_sum_assignment(similarity.cpu().double().numpy(), maximize=True)
    latents, matched = torch.as_tensor(rows), torch.as_tensor(columns)
    cosine = torch.zeros(len(features))
    latent = torch.full((len(features),), -1)
    cosine[matched] = similarity.cpu()[latents, matched].float()
    latent[matched] = latents
    return Matched(cosine, latent)
