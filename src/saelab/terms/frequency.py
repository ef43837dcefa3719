"""Latents in the order of how often they fire, the first most: prefixes of Matryoshka levels."""

import torch
from torch import Tensor, nn

from saelab.sae.module import SAE
from saelab.terms.base import Step, TermFunction
from saelab.terms.events import reorder

MEMORY = 0.01  # weight of one batch in the running rates: they look back about a hundred batches


class ByFrequency(nn.Module):
    """A term that watches how often each latent fires; `sort`, an event, puts the most frequent
    latents first.

    The rates are running means over batches, kept in the checkpoint. The value is that of the term
    alone.
    """

    rate: Tensor  # [L] share of positions at which a latent fires

    def __init__(self, term: TermFunction, n_latents: int):
        super().__init__()
        self.term = term
        self.register_buffer("rate", torch.zeros(n_latents))

    def forward(self, step: Step) -> Tensor:
        """The term's value; then the rates move."""
        with torch.no_grad():
            self.rate.lerp_((step.z > 0).to(self.rate.dtype).mean(0), MEMORY)
        return self.term(step)

    @torch.no_grad()
    def sort(self, sae: SAE, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """Reorder all latents by rate, whatever their level: levels are prefixes of this very
        order, and inside of one it has no effect. Latents that fire equally often keep their order.
        Returns the order `[L]`."""
        del step
        order = self.rate.argsort(descending=True, stable=True)
        reorder(sae, optimizer, order)
        self.rate.copy_(self.rate[order])
        return order
