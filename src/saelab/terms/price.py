"""A price on latents that the model does not use: interventions during training, without a
gradient.

Every so often some latents are changed where they are active and the model's reaction is compared
with that to random directions of the same length (`effects.intervene`). Running means of both give
each latent's NCES = (E - C) / (E + C), and a latent pays (1 - NCES) / 2: 0 when it is
all-important, 1 when it is inert. The price decides who is active, never where a decoder row
points: rewarding effect by gradient would turn rows into directions that the model is sensitive to,
    whatever the data say.

Legend: S types | L latents | m measured ones | N kept positions | D width.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from saelab.effects.intervene import (
    ON_SILENT,
    TYPES,
    Effects,
    changes,
    control_covariance,
    intervene,
    sampled_gradients,
)
from saelab.effects.pairs import Codes, Pairs, active_pairs, silent_pairs, sparse_codes
from saelab.effects.reactions import captured_text
from saelab.sae.kernels import products_on_support
from saelab.sae.module import SAE
from saelab.terms.base import Step, TermFunction

MEMORY = 0.01  # weight of one measurement in a latent's running means, beside those before it


class Price(nn.Module):
    """Running effects of latents and what they make each pay; a term (1 - mean NCES, no gradient),
    and an event, `measure`.

    `strength`: the highest price, over the mean active code. `mix`: weight of each intervention
    type's NCES in a latent's own. `m`: latents changed each time, half of them those whose Fisher
    estimate is largest in the batch, half drawn evenly from the other active ones. `contexts`:
    positions each. Latents not measured yet pay what the measured ones do on average.
    """

    effect: Tensor  # [S, L] running mean of E, up to a factor that `control` shares
    control: Tensor  # [S, L] of C

    def __init__(
        self, n_latents: int, mix: Mapping[str, float], *, strength: float, m: int, contexts: int
    ):
        super().__init__()
        self.mix = {name: weight for name, weight in mix.items() if weight > 0}
        if not self.mix or set(self.mix) - set(TYPES):
            raise ValueError(
                f"a price needs a weight above 0 for some of {', '.join(TYPES)}; given {dict(mix)}"
            )
        self.strength, self.m, self.contexts = strength, m, contexts
        for name in ("effect", "control"):
            self.register_buffer(name, torch.zeros(len(self.mix), n_latents))

    def forward(self, step: Step) -> Tensor:
        """1 - mean NCES over the latents measured so far: in [0, 2], 1 before the first
        measurement. Has no gradient.
        """
        del step
        return 1 - self.nces.nanmean().nan_to_num(0.0)

    @property
    def nces(self) -> Tensor:
        """Mean NCES of each latent over the types `[L]`; NaN where nothing was measured.

        The ratio of running means, not the running mean of ratios: of few contexts each, the latter
        is biased.
        """
        share = self.effect.new_tensor(list(self.mix.values())).unsqueeze(1)
        # the common weight cancels; 0 / 0 is NaN
        ratio = (self.effect - self.control) / (self.effect + self.control)
        return (ratio.nan_to_num(0.0) * share).sum(0) / (share * ratio.isfinite()).sum(0)

    @property
    def surcharge(self) -> Tensor:
        """(1 - NCES) / 2 of each latent `[L]`, in [0, 1]; where not measured, the others' mean."""
        due = (1 - self.nces) / 2
        return due.where(due.isfinite(), due.nanmean().nan_to_num(0.5))

    def on(self, penalty: TermFunction) -> TermFunction:
        """A penalty linear in the codes, a latent's share of it times 1 + strength * surcharge."""
        return lambda step: penalty(replace(step, z=step.z * (1 + self.strength * self.surcharge)))

    @torch.no_grad()
    def measure(self, sae: SAE, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """Change some latents of this batch, and move prices. Returns the old order `[L]`."""
        del optimizer
        step = step.on_windows()
        if step.lm is None:
            raise TypeError("a price runs the model; its variant must say lm=True")
        text = captured_text(step.lm, [step.windows])
        codes = sparse_codes([step.z.detach() / step.scale], sae.n_latents)
        chosen = self._choose(sae, step, codes)
        if len(chosen):
            directions = (sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)).cpu()
            covariance = control_covariance(step.batch.flat.float().cpu())
            for draw, silent in ((active_pairs, False), (silent_pairs, True)):
                types = [name for name in self.mix if (name in ON_SILENT) == silent]
                if types:
                    pairs = draw(codes, chosen, self.contexts, step.generator)
                    amounts = changes(types, codes, pairs, step.generator)
                    seed = int(torch.randint(2**62, (1,), generator=step.generator))
                    effects = intervene(
                        text, directions, pairs, amounts, covariance, draws=1, seed=seed
                    )
                    self._remember(types, pairs, effects)
        active = step.z[step.z > 0]
        unit = active.mean() if len(active) else active.new_zeros(())
        sae.act.charge_(self.strength * unit * self.surcharge)
        return torch.arange(sae.n_latents, device=sae.W_dec.device)

    def _choose(self, sae: SAE, step: Step, codes: Codes) -> Tensor:
        """Latents `[m]` active in this batch, ascending; to change any other changes nothing."""
        assert step.lm is not None
        x, state = step.lm.capture(step.windows.tokens)
        # [N, D]
        g = sampled_gradients(step.lm, x, state, step.generator)[step.windows.keep].to(step.z)
        mass = (step.z * products_on_support(g, sae.W_dec, step.z)).square().sum(0).cpu()  # [L]
        active = codes.count.nonzero().squeeze(1)
        order = active[mass[active].argsort(descending=True, stable=True)]
        n_top = min(len(order), (self.m + 1) // 2)
        rest = order[n_top:]
        drawn = rest[torch.randperm(len(rest), generator=step.generator)[: self.m - n_top]]
        return torch.cat([order[:n_top], drawn]).sort().values

    def _remember(self, types: list[str], pairs: Pairs, effects: Effects) -> None:
        """Move the running means of the latents that were changed."""
        measured, count = pairs.latent.unique(return_counts=True)
        for name, own, control in zip(types, effects.own, effects.control, strict=True):
            row = list(self.mix).index(name)
            for total, values in ((self.effect, own), (self.control, control)):
                sums = values.new_zeros(total.shape[1]).index_add_(0, pairs.latent, values)
                mean = sums[measured] / count
                at = measured.to(total.device)
                total[row, at] = (1 - MEMORY) * total[row, at] + MEMORY * mean.to(total)
