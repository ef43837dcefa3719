"""JumpReLU: one learned threshold per latent, and the pseudo-derivatives that train it."""

from typing import cast

import torch
from torch import Tensor, nn

from saelab.sae.activations import Activation


class _JumpReLU(torch.autograd.Function):
    """z = pre * H(pre - threshold), with the pseudo-derivative -(threshold / width) * K((pre -
    threshold) / width) with respect to the threshold; K is the rectangle on (-1/2, 1/2)."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, width: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return pre.relu() * (pre > threshold)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.width / 2
        to_threshold = -(grad * near * (threshold / ctx.width)).flatten(0, -2).sum(0)
        return grad * (pre > threshold), to_threshold, None


class _Heaviside(torch.autograd.Function):
    """H(pre - threshold), with the pseudo-derivative -(1 / width) * K((pre - threshold) / width)
    for the threshold.
    """

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, width: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.width / 2
        return None, -(grad * near / ctx.width).flatten(0, -2).sum(0), None


class JumpReLU(Activation):
    """z = pre * H(pre - threshold), one learned threshold per latent (Rajamanoharan et al. 2024,
    2407.14435, section 3).

    The threshold is the parameter itself, kept >= 0, in units of the pre-activations: a logarithm
    of it barely moves under Adam. `width` is the bandwidth of the pseudo-derivative, in the same
    units.
    """

    name = "jump_relu"

    def __init__(self, n_latents: int, *, threshold: float = 0.0, width: float = 0.06):
        super().__init__()
        self.threshold = nn.Parameter(torch.full((n_latents,), threshold))  # [L]
        self.width = width

    def forward(self, pre: Tensor) -> Tensor:
        threshold = self.threshold.clamp_min(0)
        return cast(Tensor, _JumpReLU.apply(pre, threshold, self.width))

    def count(self, pre: Tensor) -> Tensor:
        """Active latents of each position `[...]`, differentiable in the thresholds (section 4)."""
        return cast(Tensor, _Heaviside.apply(pre, self.threshold.clamp_min(0), self.width)).sum(-1)

    def start_above_(self, level: float, b_enc: Tensor) -> None:
        del b_enc
        self.threshold.fill_(level)

    def per_latent(self) -> list[tuple[Tensor, float | None]]:
        return [(self.threshold, None)]

    @torch.no_grad()
    def project_(self) -> None:
        """Thresholds >= 0: below, the clamp passes no gradient, and a latent would stay there."""
        self.threshold.clamp_(min=0)

    def rescale_(self, factor: float) -> None:
        """Thresholds and bandwidth are in units of pre-activations."""
        with torch.no_grad():
            self.threshold.mul_(factor)
        self.width *= factor

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """All thresholds times one factor, by bisection; a last correction of a few per cent."""
        with torch.no_grad():
            base = self.threshold.clamp_min(1e-6)
            low, high = 0.25, 4.0
            for _ in range(30):
                factor = (low * high) ** 0.5
                too_many = (pre > base * factor).sum().item() / pre.shape[0] > l0
                low, high = (factor, high) if too_many else (low, factor)
            self.threshold.copy_(base * (low * high) ** 0.5)

    def config(self) -> dict[str, float]:
        return {"width": self.width}
