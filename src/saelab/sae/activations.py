"""Activation functions: pre-activations `[..., L]` -> non-negative codes `[..., L]`.

Each has two readings: `forward`, used at inference, sees one position at a time; `train_codes` is
used by the training loop and may look at the whole batch and at how far training has come.
"""

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from saelab.sae.kernels import kth_largest, support_only
from saelab.types import Number, value_at


class Activation(nn.Module, ABC):
    """What an SAE asks of its activation."""

    name: str
    selects_over_batch = False  # whether `train_codes` looks at the whole batch

    @abstractmethod
    def forward(self, pre: Tensor) -> Tensor:
        """Codes at inference."""

    def train_codes(self, pre: Tensor, progress: float) -> Tensor:
        """Codes during training at `progress` in [0, 1]; the same as at inference unless said
        otherwise.
        """
        del progress
        return self(pre)

    def project_(self) -> None:
        """Back into the allowed range, after every optimizer step."""

    def rescale_(self, factor: float) -> None:
        """Follow a change of units: pre-activations are multiplied by `factor` from now on."""

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """Set what inference needs so that the mean L0 over the rows of `pre` `[N, L]` is `l0`,
        where that is possible.
        """

    def config(self) -> dict[str, float]:
        """The numbers that, beside the tensors, rebuild the activation."""
        return {}


def threshold_at(pre: Tensor, l0: float) -> Tensor:
    """The threshold >= 0 (scalar) above which `pre` `[N, L]` has `l0` entries a row on average:
    halfway between two entries.
    """
    kept, dropped = (kth_largest(pre, count) for count in counts_at(pre, l0))
    return ((kept + dropped) / 2).clamp_min(0)


def counts_at(pre: Tensor, l0: float) -> tuple[int, int]:
    """Ranks of the last entry of `pre` `[N, L]` that is kept at `l0` entries a row on average, and
    of the first dropped.
    """
    count = min(pre.numel() - 1, max(1, round(l0 * pre.shape[0])))
    return count, count + 1


class ReLU(Activation):
    """z = max(pre, 0)."""

    name = "relu"

    def forward(self, pre: Tensor) -> Tensor:
        """Codes."""
        return support_only(pre.relu())


class Trimmed(Activation):
    """Trained as ReLU; at inference an entry is kept when it exceeds `threshold`, set so that the
    mean L0 is the one asked for.

    An L1 penalty shrinks the codes it keeps; a model trained at a higher L0 and thresholded shrinks
    less at the same L0.
    """

    name = "trimmed"
    threshold: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, pre: Tensor) -> Tensor:
        """Codes by the threshold."""
        return support_only(pre.relu() * (pre > self.threshold))

    def train_codes(self, pre: Tensor, progress: float) -> Tensor:
        """max(pre, 0)."""
        del progress
        return support_only(pre.relu())

    def rescale_(self, factor: float) -> None:
        """The threshold is in units of pre-activations."""
        self.threshold.mul_(factor)

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """The threshold between the last entry kept and the first one dropped."""
        self.threshold.copy_(threshold_at(pre, l0))


class TopK(Activation):
    """The k largest positive entries of each row (Gao et al. 2024, 2406.04093, section 2.3). k may
    follow a schedule.
    """

    name = "topk"

    def __init__(self, k: Number):
        super().__init__()
        self.k = k

    def forward(self, pre: Tensor) -> Tensor:
        """Codes with the final k."""
        return self.train_codes(pre, 1.0)

    def train_codes(self, pre: Tensor, progress: float) -> Tensor:
        """Codes with k at `progress`."""
        k = min(pre.shape[-1], max(1, round(value_at(self.k, progress))))
        top = pre.relu().topk(k, dim=-1, sorted=False)
        return support_only(torch.zeros_like(pre).scatter(-1, top.indices, top.values))

    def config(self) -> dict[str, float]:
        """`k` at the end of training."""
        return {"k": value_at(self.k, 1.0)}


class BatchTopK(Activation):
    """The k * N largest positive entries of a batch of N rows (Bussmann et al. 2024, 2412.06410,
    section 3).

    At inference an entry is kept when it exceeds `threshold`, a number: the mean L0 is k, that of
    one position varies.
    """

    name = "batch_topk"
    selects_over_batch = True
    threshold: Tensor

    def __init__(self, k: Number):
        super().__init__()
        self.k = k
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, pre: Tensor) -> Tensor:
        """Codes by the threshold."""
        return support_only(pre.relu() * (pre > self.threshold))

    def train_codes(self, pre: Tensor, progress: float) -> Tensor:
        """Codes by selection over the batch."""
        rows = pre.numel() // pre.shape[-1]
        count = min(pre.numel(), max(1, round(value_at(self.k, progress) * rows)))
        return support_only(pre.relu() * (pre >= kth_largest(pre, count)))

    def rescale_(self, factor: float) -> None:
        """The threshold is in units of pre-activations."""
        self.threshold.mul_(factor)

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """The threshold between the last entry kept and the first one dropped."""
        self.threshold.copy_(threshold_at(pre, l0))

    def config(self) -> dict[str, float]:
        """`k` at the end of training."""
        return {"k": value_at(self.k, 1.0)}


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
        """Codes."""
        threshold = self.threshold.clamp_min(0)
        return cast(Tensor, _JumpReLU.apply(pre, threshold, self.width))

    def count(self, pre: Tensor) -> Tensor:
        """Number of active latents of each position `[...]`, differentiable in the thresholds
        (section 4).
        """
        return cast(Tensor, _Heaviside.apply(pre, self.threshold.clamp_min(0), self.width)).sum(-1)

    @torch.no_grad()
    def project_(self) -> None:
        """Thresholds >= 0: below 0 the clamp passes no gradient, and a latent would stay there for
        good.
        """
        self.threshold.clamp_(min=0)

    def rescale_(self, factor: float) -> None:
        """Thresholds and bandwidth are in units of pre-activations."""
        with torch.no_grad():
            self.threshold.mul_(factor)
        self.width *= factor

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """Multiply all thresholds by one factor, found by bisection; a last correction of a few per
        cent.
        """
        with torch.no_grad():
            base = self.threshold.clamp_min(1e-6)
            low, high = 0.25, 4.0
            for _ in range(30):
                factor = (low * high) ** 0.5
                too_many = (pre > base * factor).sum().item() / pre.shape[0] > l0
                low, high = (factor, high) if too_many else (low, factor)
            self.threshold.copy_(base * (low * high) ** 0.5)

    def config(self) -> dict[str, float]:
        """The bandwidth."""
        return {"width": self.width}


class Gated(Activation):
    """A gate decides which latents are active, a magnitude how much (Rajamanoharan et al. 2024,
    2404.16014, section 3.2).

    With u = (x - b_dec) @ W_enc: gate = u + b_gate, magnitude = exp(r_mag) * u + b_mag, z =
    relu(magnitude) * (gate > 0). The SAE's own `b_enc` stays 0: `pre` is u.
    """

    name = "gated"

    def __init__(self, n_latents: int):
        super().__init__()
        self.b_gate = nn.Parameter(torch.zeros(n_latents))  # [L]
        self.b_mag = nn.Parameter(torch.zeros(n_latents))  # [L]
        self.r_mag = nn.Parameter(torch.zeros(n_latents))  # [L]

    def forward(self, pre: Tensor) -> Tensor:
        """Codes."""
        return support_only((self.r_mag.exp() * pre + self.b_mag).relu() * (self.gate(pre) > 0))

    def gate(self, pre: Tensor) -> Tensor:
        """Pre-activation of the gate `[..., L]`; its positive part is what the sparsity penalty and
        auxiliary loss see.
        """
        return pre + self.b_gate

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """Shift all gates by one number; a last correction of a few per cent.

        Where features are equally strong, the L0 jumps as the penalty grows, and steering alone
        cannot stop in between.
        """
        with torch.no_grad():
            magnitude = self.r_mag.exp() * pre + self.b_mag
            gate = self.gate(pre).masked_fill(magnitude <= 0, -torch.inf)
            kept, dropped = (kth_largest(gate, count) for count in counts_at(gate, l0))
            level = (kept + dropped) / 2
            if level.isfinite():  # else fewer entries than asked for can be active at all
                self.b_gate.sub_(level)

    def rescale_(self, factor: float) -> None:
        """Both biases are in units of pre-activations; r_mag is a ratio."""
        with torch.no_grad():
            self.b_gate.mul_(factor)
            self.b_mag.mul_(factor)
