"""Other ways to ask for persistence, for comparison: smooth codes, correlated codes, codes without
the position, and T-SAE's contrast.

Legend: B pieces | T positions of one | S latents of the slow block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from saelab.terms.base import Step
from saelab.terms.temporal.pieces import SLOW, Gap, doubling, slow_codes

HARMONICS = 4  # of the position, each a sine and a cosine


@dataclass(frozen=True)
class Smoothness:
    """How much slow codes change within a piece, summed over the block.

    The mean of |z(t) - z(t + 1)| over neighbours, or with `variance` the mean over pieces of sum_t
    (z(t) - mean)^2 / (T - 1). Smaller codes are smoother by these; `relative` divides by the mean
    of z(t) + z(t + 1), or by that of z^2, and leaves that way out.
    """

    pieces: str
    variance: bool
    relative: bool

    def __call__(self, step: Step) -> Tensor:
        windows, z = slow_codes(step, self.pieces)
        if self.variance:
            keep = windows.keep.unsqueeze(2).to(z)
            n = keep.sum(1, keepdim=True)
            away = (z - (z * keep).sum(1, keepdim=True) / n.clamp_min(1)) * keep
            change = (away.square().sum(1) / (n.squeeze(1) - 1).clamp_min(1)).sum(1).mean()
            size = (z.square() * keep).sum() / keep.sum().clamp_min(1)
        else:
            gap = Gap(windows, 1)
            first, second = gap.earlier(z)[gap.together], gap.later(z)[gap.together]
            change = (first - second).abs().sum(1).mean()
            size = (first + second).sum(1).mean()
        return change / size.clamp_min(1e-6) if self.relative else change


@dataclass(frozen=True)
class LagCorrelation:
    """1 - the mean correlation, over slow latents that fire and over offsets 1, 2, 4, ..., of a
    latent's code with its code there; in [0, 2].
    """

    pieces: str

    def __call__(self, step: Step) -> Tensor:
        windows, z = slow_codes(step, self.pieces)
        values = []
        for gap in (Gap(windows, offset) for offset in doubling(z.shape[1])):
            first, second = gap.earlier(z)[gap.together], gap.later(z)[gap.together]
            first, second = first - first.mean(0), second - second.mean(0)
            spread = first.square().sum(0) * second.square().sum(0)
            fires = spread > 0
            if fires.any():
                together = (first * second).sum(0)[fires]
                values.append((together / spread[fires].sqrt()).mean())
        return 1 - torch.stack(values).mean() if values else z.sum() * 0


@dataclass(frozen=True)
class PositionCorrelation:
    """The squared correlations of slow codes with sines and cosines of the position, summed over
    these and averaged over the block: about the share of its variance that is the position's.
    """

    pieces: str

    def __call__(self, step: Step) -> Tensor:
        windows, z = slow_codes(step, self.pieces)
        codes, pos = z[windows.keep], windows.pos[windows.keep].to(z)
        turn = 2 * torch.pi * pos / (windows.pos.max() + 1)
        angle = turn.unsqueeze(1) * torch.arange(1, HARMONICS + 1, device=pos.device)
        waves = torch.cat([angle.sin(), angle.cos()], 1)
        waves, codes = waves - waves.mean(0), codes - codes.mean(0)
        spread = waves.square().sum(0).unsqueeze(1) * codes.square().sum(0)  # [2H, S]
        return ((waves.T @ codes).square() / spread.clamp_min(1e-12)).sum(0).mean()


@dataclass(frozen=True)
class TokenContrast:
    """T-SAE's loss: a token is to be told by its slow codes as the one that follows another, among
    the tokens of other pieces; symmetric InfoNCE, nats (2511.05541).

    As written: cosine over a temperature. With `product`, as released: the plain inner product.
    `pre` contrasts pre-activations (their positive part) instead of codes, which are often all zero
    in a small block. One pair a piece: its first token and its second.
    """

    pieces: str
    product: bool
    pre: bool
    temperature: float

    def __call__(self, step: Step) -> Tensor:
        part = step.side(self.pieces)
        windows, block = part.windows, part.sae.blocks[SLOW]
        values = (part.pre.relu() if self.pre else part.z)[:, block.start : block.stop]
        usable = Gap(windows, 1).together[:, 0]
        first, second = part.in_windows(values)[usable, :2].unbind(1)  # [B, S]
        if self.product:
            logits = first @ second.T
        else:
            logits = normalize(first, dim=1) @ normalize(second, dim=1).T / self.temperature
        doc = windows.doc[usable, 0]
        shared = (doc.unsqueeze(1) == doc).fill_diagonal_(False)  # no negatives: of one document
        logits = logits.masked_fill(shared, -torch.inf)
        own = torch.arange(len(logits), device=logits.device)
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
