"""BatchTopK in which a latent pays before it is selected."""

import torch
from torch import Tensor

from saelab.sae.activations import BatchTopK, counts_at
from saelab.sae.kernels import kth_largest, support_only
from saelab.types import Number, value_at


class Priced(BatchTopK):
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

    def forward(self, pre: Tensor) -> Tensor:
        """Codes by the threshold of each latent."""
        return support_only(pre.relu() * (pre - self.price > self.threshold))

    def train_codes(self, pre: Tensor, progress: float, among: Tensor | None = None) -> Tensor:
        """Codes by selection over the batch."""
        among = (pre if among is None else among).detach()
        rows = among.numel() // among.shape[-1]
        count = min(among.numel(), max(1, round(value_at(self.k, progress) * rows)))
        rank = pre.detach() - self.price
        worth = (among - self.price)[among > 0]  # what could be active, however cheap the rest is
        least = kth_largest(worth, count) if len(worth) > count else -torch.inf
        return support_only(pre.relu() * (rank >= least))

    def rescale_(self, factor: float) -> None:
        """Threshold and prices are in units of pre-activations."""
        super().rescale_(factor)
        self.price.mul_(factor)

    def calibrate_(self, pre: Tensor, l0: float) -> None:
        """The threshold between the last entry kept and the first one dropped, prices paid; it may
        be negative.
        """
        rank = (pre - self.price).masked_fill(pre <= 0, -torch.inf)  # no price makes these active
        kept, dropped = (kth_largest(rank, count) for count in counts_at(rank, l0))
        self.threshold.copy_((kept + dropped) / 2)
