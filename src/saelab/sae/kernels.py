"""Selection without sorting: the exact k-th largest of many numbers, faster than `topk` over all of them."""

import math

import torch
from torch import Tensor

SAMPLE = 65_536  # entries looked at to guess where the threshold lies


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest entry of `values` (any shape), exact; a scalar tensor.

    A strided sample bounds the answer from below with slack; only the entries above that bound are selected from.
    If the bound was too high (too few entries above it) the whole tensor is searched, so the result is always exact.
    Raises `ValueError` when k is not in 1..numel.
    """
    flat = values.detach().reshape(-1)
    if not 1 <= k <= flat.numel():
        raise ValueError(f"k is {k}; it must lie in 1..{flat.numel()}, the number of entries")
    stride = flat.numel() // SAMPLE
    if stride >= 4:
        sample = flat[:: stride | 1]  # odd, so that it walks over all columns
        share = k / flat.numel()
        slack = 4 * math.sqrt(share * sample.numel()) + 4  # four standard deviations of the sampled rank
        rank = min(sample.numel(), math.ceil(share * sample.numel() + slack))
        bound = torch.kthvalue(sample, sample.numel() - rank + 1).values
        candidates = flat[flat >= bound]
        if candidates.numel() >= k:
            flat = candidates
    return torch.kthvalue(flat, flat.numel() - k + 1).values
