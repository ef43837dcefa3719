"""Probes of a binary label and the linear erasure of one: what the measures of spurious factors are
made of.

Legend: N activations | C columns that a probe reads (coordinates of x, or latents).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

RIDGE = 1e-3  # times |w|^2, added to the mean cross-entropy of the linear probe
MLP_HIDDEN, MLP_STEPS, MLP_BATCH, MLP_RATE, MLP_DECAY = 32, 250, 1024, 1e-2, 1e-2


@dataclass(frozen=True)
class LinearProbe:
    """A logistic regression on standardised columns."""

    mean: Tensor  # [C]
    scale: Tensor  # [C]
    weight: Tensor  # [C] of standardised columns
    bias: float

    def __call__(self, x: Tensor) -> Tensor:
        """Logits `[N]` of `x [N, C]`."""
        return _standard(x, self.mean, self.scale) @ self.weight + self.bias

    @property
    def direction(self) -> Tensor:
        """Gradient `[C]` of the logit in x."""
        return self.weight / self.scale


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[C]`, float64; a column that is constant but for rounding stays
    as good as constant.
    """
    scale = x.double().std(0)
    return x.double().mean(0), scale.clamp_min(max(1e-4 * float(scale.max()), 1e-12))


def _standard(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Columns of mean 0 and standard deviation 1, `[N, C]`."""
    return ((x.double() - mean) / scale).to(mean.dtype)


def linear_probe(x: Tensor, y: Tensor) -> LinearProbe:
    """Logistic regression of the labels `y [N]` (0 or 1) on `x [N, C]`, minimising mean
    cross-entropy + 1e-3 |w|^2.

    Raises `ValueError` if there is only one class.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = _moments(x)
    # The ridge makes the problem strongly convex on columns of unit variance: a few dozen steps of
    # L-BFGS reach the end.
    model = LogisticRegression(C=1 / (2 * RIDGE * len(x)), max_iter=2_000)
    model.fit(_standard(x, mean, scale).numpy(), y.numpy())
    weight, bias = np.ravel(model.coef_), np.ravel(model.intercept_)
    return LinearProbe(mean, scale, torch.from_numpy(weight), float(bias[0]))


def mlp_probe(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """A function to logits: 32 hidden ReLUs, 250 steps of AdamW on `x [N, C]`, labels `y [N]`."""
    mean, scale = _moments(x)
    generator = torch.Generator().manual_seed(0)

    def logits(x: Tensor) -> Tensor:
        hidden = (_standard(x, mean, scale).float() @ first + first_bias).relu()
        return hidden @ second + second_bias

    first = torch.randn(x.shape[1], MLP_HIDDEN, generator=generator) / x.shape[1] ** 0.5
    second = torch.randn(MLP_HIDDEN, generator=generator) / MLP_HIDDEN**0.5
    first_bias, second_bias = torch.zeros(MLP_HIDDEN), torch.zeros(())
    weights = [first, first_bias, second, second_bias]
    with torch.enable_grad():
        for weight in weights:
            weight.requires_grad_()
        optimizer = torch.optim.AdamW(weights, lr=MLP_RATE, weight_decay=MLP_DECAY)
        for _ in range(MLP_STEPS):
            rows = torch.randint(len(x), (MLP_BATCH,), generator=generator)
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(logits(x[rows]), y[rows].float()).backward()
            optimizer.step()
    for weight in weights:
        weight.requires_grad_(False)
    return logits


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of `logits [N]` on the side of 0 that the labels `y [N]` say."""
    return float(((logits > 0) == (y > 0)).double().mean())


def best_accuracy(logits: Tensor, y: Tensor) -> float:
    """Accuracy of `logits [N]` for labels `y [N]` at the best threshold, never between equals."""
    order = logits.argsort()
    logits, y = logits[order], (y[order] > 0).long()
    zero = y.new_zeros(1)
    below = torch.cat([zero, (1 - y).cumsum(0)])  # [N + 1] zeros under a threshold before entry i
    above = y.sum() - torch.cat([zero, y.cumsum(0)])  # [N + 1] ones over it
    distinct = torch.ones(len(y) + 1, dtype=torch.bool)
    distinct[1:-1] = logits[1:] > logits[:-1]
    return float((below + above)[distinct].max()) / len(y)


@dataclass(frozen=True)
class Eraser:
    """The smallest change of x after which no linear probe reads a binary label (LEACE, Belrose et
    al. 2023, 2306.03819).
    """

    mean: Tensor  # [D]
    read: Tensor  # [D] covariance^-1 c, scaled so that read . write = 1
    write: Tensor  # [D] c, the covariance of x and the label

    def __call__(self, x: Tensor) -> Tensor:
        """`x [N, D]` with the label's direction removed."""
        return x - ((x - self.mean) @ self.read).unsqueeze(1) * self.write


def leace(x: Tensor, y: Tensor) -> Eraser:
    """The eraser of the labels `y [N]`, fitted on `x [N, D]`."""
    mean, label = x.mean(0), y.to(x.dtype)
    write = ((x - mean) * (label - label.mean()).unsqueeze(1)).mean(0)
    read = torch.linalg.pinv(torch.cov(x.T), hermitian=True) @ write
    return Eraser(mean, read / (read @ write), write)
