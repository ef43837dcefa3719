"""Norms of decoder rows, which put the codes of different dictionaries into the same unit."""

from torch import Tensor

from saelab.types import Dictionary


def decoder_norms(dictionary: Dictionary) -> Tensor:
    """|W_dec| per latent `[L]`, 1 where a direction is zero (its codes add nothing). Codes times
    this belong to unit directions: the same reconstruction.
    """
    norms = dictionary.directions.detach().float().norm(dim=1)
    return norms.where(norms > 0, 1.0)
