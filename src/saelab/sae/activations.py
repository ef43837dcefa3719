"""Activation functions: pre-activations `[..., L]` -> non-negative codes `[..., L]`.

Each has two readings: `forward`, used at inference, sees one position at a time; `train_codes` is
used by the training loop and may look at the whole batch and at how far training has come.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from saelab.sae.kernels import halfway, kth_largest, support_only
from saelab.types import Number, value_at


class Activation(nn.Module, ABC):
    """What an SAE asks of its activation."""

    name: str
    own_bias = False  # whether it has biases of its own, so that the encoder's stays 0
    shrunk_by_penalty = False  # whether a penalty on its codes is what makes them sparse
    selects_over_batch = False  # whether `train_codes` looks at the whole batch

    @abstractmethod
    def forward(self, pre: Tensor) -> Tensor:
        """Codes at inference."""

    def train_codes(self, pre: Tensor, progress: float, among: Tensor | None = None) -> Tensor:
        """Codes during training at `progress` in [0, 1]; the same as at inference unless said
        otherwise.

        `among [M, L]`: the pre-activations that a selection over a batch is made among, `pre`
        itself if not given.
        """
        del progress, among
        return self(pre)

    def project_(self) -> None:
        """Back into the allowed range, after every optimizer step."""

    def rescale_(self, factor: float) -> None:
        """Follow a change of units: pre-activations are multiplied by `factor` from now on."""

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """Set what inference needs so that the mean L0 over the rows of `pre` `[N, L]` is `l0`,
        where that is possible.
        """

    def bias(self, b_enc: Tensor) -> Tensor:
        """What is added to a latent's product with x to give its code, `[L]`."""
        return b_enc

    def gate(self, pre: Tensor) -> Tensor:
        """What decides whether a latent is active, `[..., L]`: it is where this is positive."""
        return pre

    def count(self, pre: Tensor) -> Tensor:
        """Active latents of each position `[...]`; without a gradient unless said otherwise."""
        return (self(pre) > 0).sum(-1).to(pre.dtype)

    def start_above_(self, level: float, b_enc: Tensor) -> None:
        """Make only pre-activations above `level` active, before training: by the encoder's bias
        `b_enc` `[L]` where the activation has no threshold of its own.
        """
        b_enc.sub_(level)

    def per_latent(self) -> list[tuple[Tensor, float | None]]:
        """Its trained vectors `[L]`, each with what a resampled latent starts from; None: the
        median of the alive ones.
        """
        return []

    def priced(self, n_latents: int) -> "Activation | None":
        """The same selection with a price paid before ranking; None where nothing is ranked."""
        del n_latents
        return None

    def charge_(self, price: Tensor) -> None:
        """Let latents pay `price` `[L]`, in units of pre-activations, from now on; of no effect
        where nothing is ranked by price.
        """

    def config(self) -> dict[str, float]:
        """The numbers that, beside the tensors, rebuild the activation."""
        return {}


def threshold_at(pre: Tensor, l0: float) -> Tensor:
    """The threshold (scalar) above which `pre` `[N, L]` has `l0` entries a row on average: halfway
    between the last entry that is kept and the first one dropped.
    """
    return halfway(pre, min(pre.numel() - 1, max(1, round(l0 * pre.shape[0]))))


class ReLU(Activation):
    """z = max(pre, 0)."""

    name = "relu"
    shrunk_by_penalty = True

    def forward(self, pre: Tensor) -> Tensor:
        return support_only(pre.relu())


class Thresholded(Activation, ABC):
    """An activation that keeps an entry at inference when it exceeds `threshold`, one number."""

    threshold: Tensor  # in units of pre-activations

    def __init__(self):
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()))

    def rank(self, pre: Tensor) -> Tensor:
        """What is compared with the threshold, `[..., L]`."""
        return pre

    def forward(self, pre: Tensor) -> Tensor:
        return support_only(pre.relu() * (self.rank(pre) > self.threshold))

    def rescale_(self, factor: float) -> None:
        self.threshold.mul_(factor)

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        self.threshold.copy_(threshold_at(pre, l0).clamp_min(0))


class Trimmed(Thresholded):
    """Trained as ReLU; at inference an entry is kept when it exceeds `threshold`, set so that the
    mean L0 is the one asked for.

    An L1 penalty shrinks the codes it keeps; a model trained at a higher L0 and thresholded shrinks
    less at the same L0.
    """

    name = "trimmed"

    def train_codes(self, pre: Tensor, progress: float, among: Tensor | None = None) -> Tensor:
        del progress, among
        return support_only(pre.relu())


class TopK(Activation):
    """The k largest positive entries of each row (Gao et al. 2024, 2406.04093, section 2.3). k may
    follow a schedule.
    """

    name = "topk"

    def __init__(self, k: Number):
        super().__init__()
        self.k = k

    def forward(self, pre: Tensor) -> Tensor:
        return self.train_codes(pre, 1.0)

    def train_codes(self, pre: Tensor, progress: float, among: Tensor | None = None) -> Tensor:
        del among
        k = min(pre.shape[-1], max(1, round(value_at(self.k, progress))))
        top = pre.relu().topk(k, dim=-1, sorted=False)
        return support_only(torch.zeros_like(pre).scatter(-1, top.indices, top.values))

    def config(self) -> dict[str, float]:
        return {"k": value_at(self.k, 1.0)}


class OverBatch(Thresholded, ABC):
    """One that keeps k * N entries of a batch of N rows in training; k may follow a schedule."""

    selects_over_batch = True

    def __init__(self, k: Number):
        super().__init__()
        self.k = k

    def kept(self, among: Tensor, progress: float) -> int:
        """How many entries of `among [M, L]` are kept at `progress`: k * M."""
        rows = among.numel() // among.shape[-1]
        return min(among.numel(), max(1, round(value_at(self.k, progress) * rows)))

    def priced(self, n_latents: int) -> "Activation":
        return Priced(self.k, n_latents)

    def config(self) -> dict[str, float]:
        return {"k": value_at(self.k, 1.0)}


class BatchTopK(OverBatch):
    """The k * N largest positive entries of a batch of N rows (Bussmann et al. 2024, 2412.06410,
    section 3).

    At inference an entry is kept when it exceeds `threshold`, a number: the mean L0 is k, that of
    one position varies.
    """

    name = "batch_topk"

    def train_codes(self, pre: Tensor, progress: float, among: Tensor | None = None) -> Tensor:
        among = pre if among is None else among
        return support_only(pre.relu() * (pre >= kth_largest(among, self.kept(among, progress))))


class Priced(OverBatch):
    """BatchTopK ranked by pre - price: what a price keeps out of a batch is another latent's place,
    not a smaller code.

    `price [L]` is a number to the gradient. At inference latent j is active above threshold +
    price_j. With equal prices it selects what BatchTopK does.
    """

    name = "priced_batch_topk"
    price: Tensor  # [L] in units of pre-activations

    def __init__(self, k: Number, n_latents: int):
        super().__init__(k)
        self.register_buffer("price", torch.zeros(n_latents))

    def rank(self, pre: Tensor) -> Tensor:
        return pre - self.price

    def train_codes(self, pre: Tensor, progress: float, among: Tensor | None = None) -> Tensor:
        among = (pre if among is None else among).detach()
        count = self.kept(among, progress)
        worth = self.rank(among)[among > 0]  # what could be active, however cheap the rest is
        least = kth_largest(worth, count) if len(worth) > count else -torch.inf
        return support_only(pre.relu() * (self.rank(pre.detach()) >= least))

    def charge_(self, price: Tensor) -> None:
        self.price.copy_(price)

    def rescale_(self, factor: float) -> None:
        super().rescale_(factor)
        self.price.mul_(factor)

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """The threshold is of what is left after the prices, and may be negative."""
        rank = self.rank(pre).masked_fill(pre <= 0, -torch.inf)  # no price makes these active
        self.threshold.copy_(threshold_at(rank, l0))


class Gated(Activation):
    """A gate decides which latents are active, a magnitude how much (Rajamanoharan et al. 2024,
    2404.16014, section 3.2).

    With u = (x - b_dec) @ W_enc: gate = u + b_gate, magnitude = exp(r_mag) * u + b_mag, z =
    relu(magnitude) * (gate > 0). The SAE's own `b_enc` stays 0: `pre` is u.
    """

    name = "gated"
    own_bias = True

    def __init__(self, n_latents: int):
        super().__init__()
        self.b_gate = nn.Parameter(torch.zeros(n_latents))  # [L]
        self.b_mag = nn.Parameter(torch.zeros(n_latents))  # [L]
        self.r_mag = nn.Parameter(torch.zeros(n_latents))  # [L]

    def forward(self, pre: Tensor) -> Tensor:
        return support_only((self.r_mag.exp() * pre + self.b_mag).relu() * (self.gate(pre) > 0))

    def gate(self, pre: Tensor) -> Tensor:
        """Pre-activation of the gate `[..., L]`; its positive part is what the sparsity penalty and
        auxiliary loss see.
        """
        return pre + self.b_gate

    def bias(self, b_enc: Tensor) -> Tensor:
        del b_enc
        return self.b_mag

    def start_above_(self, level: float, b_enc: Tensor) -> None:
        del b_enc
        self.b_gate.sub_(level)

    def per_latent(self) -> list[tuple[Tensor, float | None]]:
        return [(self.b_gate, 0.0), (self.b_mag, 0.0), (self.r_mag, 0.0)]

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """Shift all gates by one number; a last correction of a few per cent.

        Where features are equally strong, the L0 jumps as the penalty grows, and steering alone
        cannot stop in between.
        """
        with torch.no_grad():
            magnitude = self.r_mag.exp() * pre + self.b_mag
            gate = self.gate(pre).masked_fill(magnitude <= 0, -torch.inf)
            level = threshold_at(gate, l0)
            if level.isfinite():  # else fewer entries than asked for can be active at all
                self.b_gate.sub_(level)

    def rescale_(self, factor: float) -> None:
        """Both biases are in units of pre-activations; r_mag is a ratio."""
        with torch.no_grad():
            self.b_gate.mul_(factor)
            self.b_mag.mul_(factor)
