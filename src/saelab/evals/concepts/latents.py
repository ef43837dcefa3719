"""Latents of a dictionary as detectors of concepts, all latents and all concepts at once, on sparse
codes.

Legend: n tokens | L latents | C concepts | K latents of a sparse probe. Codes are a scipy csc array
`[n, L]`, not negative.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array, auroc_of_latents
from saelab.evals.common.reading import encoded
from saelab.evals.concepts.scores import best_cut
from saelab.types import Dictionary

# latents by AUROC, and as many by F1 of firing, whose F1 is computed at every threshold
CANDIDATES = 8


def sparse_codes(dictionary: Dictionary, x: Tensor) -> Any:
    """Codes of `x [n, D]`; 8 bytes for every active latent."""
    from scipy.sparse import csc_array, csr_array, vstack

    pieces = [csr_array(z.float().cpu().numpy()) for z in encoded(dictionary, x)]
    return csc_array(vstack(pieces))


def column(codes: Any, latent: int) -> Array:
    """The codes `[n]` of one latent."""
    return codes[:, [latent]].toarray().ravel()


def f1_of_firing(codes: Any, y: Array) -> Array:
    """F1 `[L, C]` of "the latent fires" as a prediction of the concept; 0 where nothing fires and
    nothing is there.
    """
    hits = (codes != 0).astype(float).T @ y.astype(float)
    return 2 * hits / np.maximum(np.diff(codes.indptr)[:, None] + y.sum(0), 1)


def mean_differences(codes: Any, y: Array) -> Array:
    """Mean code of the positives minus that of the negatives `[L, C]`; how SAEBench picks latents
    for sparse probes.
    """
    total, positive = np.asarray(codes.sum(0)).ravel(), y.sum(0)
    on = codes.T @ y.astype(float)
    return on / np.maximum(positive, 1) - (total[:, None] - on) / np.maximum(len(y) - positive, 1)


def choose(codes: Any, y: Array) -> tuple[Array, Array]:
    """For every concept of `y [n, C]` the latent `[C]` of the highest AUROC, and that of the
    highest F1 at its best cut.
    """
    auroc, firing = auroc_of_latents(codes, y), f1_of_firing(codes, y)
    by_f1 = np.zeros(y.shape[1], int)
    for c in range(y.shape[1]):
        top = {
            int(latent)
            for quality in (firing, auroc)
            for latent in np.argsort(-quality[:, c], kind="stable")[:CANDIDATES]
        }
        by_f1[c] = max(
            sorted(top), key=lambda latent: best_cut(column(codes, latent), y[:, c], "f1")[0]
        )
    return auroc.argmax(0), by_f1


def top_columns(codes: Any, difference: Array, train: Array, k: int) -> Tensor:
    """For every concept the codes `[C, n, K]` of the k latents with the largest `difference [L,
    C]`.

    Standardised by the tokens `train [n]` bool.
    """
    top = np.argsort(-difference, 0, kind="stable")[:k]  # [K, C]
    # [C, n, K]
    columns = torch.stack([torch.from_numpy(codes[:, latents].toarray()) for latents in top.T])
    fitted = columns[:, torch.from_numpy(train)]
    return (columns - fitted.mean(1, keepdim=True)) / fitted.std(1, keepdim=True).clamp_min(1e-6)
