"""What the order of codes says: persistence, the share of the position, gains, linear read-out.

Every formula is free of the codes' scale and is 0 for a latent that never fires. Legend: L latents
| S sequences | T positions | P signals | N tokens.
"""

import torch
from torch import Tensor

LAGS = range(1, 16)


def standardized(z: Tensor) -> Tensor:
    """Codes `[S, T, L]` with mean 0 and variance 1 over all tokens; 0 where a latent is
    constant.
    """
    centred = z - z.mean((0, 1))
    deviation = centred.square().mean((0, 1)).sqrt()
    return centred * torch.where(deviation > 0, 1 / deviation, 0)


def lag_correlation(z: Tensor) -> Tensor:
    """Mean autocorrelation `[L]` of codes `[S, T, L]` over lags 1 to 15 below T, in [-1, 1]."""
    z = standardized(z)
    lags = [lag for lag in LAGS if lag < z.shape[1]]
    return torch.stack([(z[:, :-lag] * z[:, lag:]).mean((0, 1)) for lag in lags]).mean(0)


def position_share(z: Tensor) -> Tensor:
    """Share `[L]` of the variance of codes `[S, T, L]` that their means at positions make up."""
    return standardized(z).mean(0).square().mean(0)


def column_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation `[L]` of the columns of `[S, T, L]`; 0 where one is constant."""
    return (standardized(a) * standardized(b)).mean((0, 1))


def gain_terms(
    guess: Tensor, guess_later: Tensor, y: Tensor, y_later: Tensor
) -> tuple[Tensor, Tensor]:
    """The two terms `[...]`, for pairs of positions `[..., D]`, of the scalar g that minimises sum
    |y_later - g guess|^2 + |y - g guess_later|^2: g = sum of the first / sum of the second.
    """
    match = (guess * y_later).sum(-1) + (guess_later * y).sum(-1)
    return match, guess.square().sum(-1) + guess_later.square().sum(-1)


def explained_share(inputs: Tensor, targets: Tensor) -> Tensor:
    """R^2 `[P]` of the least-squares prediction, with intercept, of `targets [N, P]` from `inputs
    [N, L]`; at most 1.

    Constant inputs are left out; a constant target has R^2 0.
    """
    x, y = (t.double() - t.double().mean(0) for t in (inputs, targets))
    x = x[:, x.square().sum(0) > 0]
    residual = y - x @ torch.linalg.lstsq(x, y).solution if x.shape[1] else y
    total = y.square().sum(0)
    return torch.where(
        total > 0, 1 - residual.square().sum(0) / total.clamp_min(torch.finfo(y.dtype).tiny), 0.0
    ).float()
