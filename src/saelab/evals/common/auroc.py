"""How well every latent of a dictionary tells every concept, all at once on sparse codes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def auroc_of_latents(codes: Any, y: Array) -> Array:
    """How well the codes of each latent tell the tokens with a concept from those without it: AUROC
    `[L, C]`, P(code of a positive > code of a negative) + P(equal) / 2.

    `codes [n, L]`: a scipy csc array of non-negative codes; `y [n, C]` bool. Only the non-zero
    codes are sorted: all zeros share one rank. NaN where a concept has no positive or no negative.
    """
    from scipy.sparse import csc_array

    n, n_latents = codes.shape
    latent = np.repeat(np.arange(n_latents), np.diff(codes.indptr))
    order = np.lexsort((codes.data, latent))
    value, column, row = codes.data[order], latent[order], codes.indices[order]
    zeros = n - np.diff(codes.indptr)  # [L]
    new = np.ones(len(value), bool)
    new[1:] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
    group = np.cumsum(new) - 1
    place = np.arange(len(value)) - codes.indptr[column] + 1.0 + zeros[column]
    # mean rank of equal codes
    rank = (np.bincount(group, place) / np.bincount(group))[group] if len(value) else place
    of_zero = (zeros + 1) / 2  # [L]
    above = csc_array((rank - of_zero[column], row, codes.indptr), shape=codes.shape)
    positive = y.sum(0).astype(float)  # [C]
    negative = n - positive
    ranks = above.T @ y.astype(float) + of_zero[:, None] * positive
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks - positive * (positive + 1) / 2) / (positive * negative)
