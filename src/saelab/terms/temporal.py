"""Terms that ask of a block of latents, the slow one, that it persists along the text.

All read pieces of text in order, a batch beside the main one whose name they are given, and compare
positions of one document only.
Legend: B pieces | T positions of one | S latents of the slow block | O offsets between positions.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from saelab.sae.module import SAE
from saelab.terms.base import Need, Step
from saelab.types import ActivationSource, Cursor, Windows

log = logging.getLogger("saelab.terms")
SLOW = "slow"  # the block's name in `SAE.blocks`
SILENT = 0.02  # latents of the block per position, below which it counts as silent
HARMONICS = 4  # of the position, each a sine and a cosine


def position_means_need(*, rows: int = 50_000) -> Need:
    """The mean activation at every position of a window, from the first windows of the stream, and
    how far activations lie from it: what a slow latent could predict without knowing any text.
    """

    def compute(source: ActivationSource) -> Mapping[str, Tensor]:
        mean = source.stats.mean
        total, count = mean.new_zeros(1, len(mean)), mean.new_zeros(1)
        square, seen = 0.0, 0
        for views, _ in source.batches(Windows, Cursor()):
            windows = views.main
            assert isinstance(windows, Windows)
            pos, x = windows.pos[windows.keep].to(mean.device), windows.flat.to(mean) - mean
            more = int(pos.max()) + 1 - len(total)
            if more > 0:
                total = torch.cat([total, total.new_zeros(more, len(mean))])
                count = torch.cat([count, count.new_zeros(more)])
            total.index_add_(0, pos, x)
            count.index_add_(0, pos, torch.ones_like(pos, dtype=count.dtype))
            square, seen = square + float(x.square().sum()), seen + len(x)
            if seen >= rows:
                break
        at = total / count.clamp_min(1).unsqueeze(1)  # [T, D] of x - mean
        spread = (square - float((count * at.square().sum(1)).sum())) / seen
        return {"mean": mean + at, "spread": mean.new_tensor(spread)}

    return Need(f"position means rows={rows}", compute)


def _slow(step: Step, pieces: str) -> tuple[Windows, Tensor]:
    """The pieces of a step, and the codes of the slow block there `[B, T, S]`."""
    part = step.side(pieces)
    block = part.sae.blocks[SLOW]
    return part.windows, part.in_windows(part.z[:, block.start : block.stop])


@dataclass(frozen=True)
class Gap:
    """Pairs of positions of pieces, `offset` apart in them."""

    windows: Windows
    offset: int

    @cached_property
    def lag(self) -> Tensor:
        """Positions of the text between the two `[B, T - offset]`."""
        return self.later(self.windows.pos) - self.earlier(self.windows.pos)

    @cached_property
    def together(self) -> Tensor:
        """Whether both are kept and of one document, in order `[B, T - offset]`."""
        keep, doc = self.windows.keep, self.windows.doc
        same = self.earlier(doc) == self.later(doc)
        return self.earlier(keep) & self.later(keep) & same & (self.lag > 0)

    def earlier(self, values: Tensor) -> Tensor:
        """Of values `[B, T, *]` those at the first of each pair, `[B, T - offset, *]`."""
        return values[:, : values.shape[1] - self.offset]

    def later(self, values: Tensor) -> Tensor:
        """Those at the second of each pair."""
        return values[:, self.offset :]


def doubling(length: int) -> tuple[int, ...]:
    """The offsets 1, 2, 4, ... below the length of a piece."""
    return tuple(1 << i for i in range(max(0, (length - 1).bit_length())))


class Prediction(nn.Module):
    """XPRED: the slow block predicts the activation some tokens on and some tokens back.

    mean of ||y(t + lag) - g_lag R(t)||^2 / E||y||^2 over pairs of positions of one piece, both
    directions; y = x less the mean at its position, R the slow block's part of the reconstruction,
    and g_lag one learned gain that all latents share: a latent that does not persist only adds to
    the error. 1 for a silent block. Gains estimate how the block's content persists, and go to 0
    where nothing does. Pairs further apart than `reach` are left out. Nearest in print: T-SAE
    (2511.05541), which contrasts instead of predicting.

    `untied` predicts through a matrix of its own, which only training uses, instead of the decoder,
    whose rows then are free to reconstruct. `permuted`, a null: what is predicted comes from
    another piece.
    """

    def __init__(
        self,
        need: str,
        pieces: str,
        block: range,
        d_in: int,
        *,
        reach: int,
        untied: bool,
        permuted: bool,
    ):
        super().__init__()
        self.need, self.pieces, self.reach = need, pieces, reach
        self.permuted = permuted
        self.gain = nn.Parameter(torch.full((reach + 1,), 0.5))
        self.predictor = nn.Parameter(torch.zeros(len(block), d_in)) if untied else None

    def forward(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss, and for the log the gains at lags 1, 2, 4, ... and the block's L0."""
        windows, z = _slow(step, self.pieces)  # [B, T, S]
        means = step.stats[f"{self.need}.mean"][windows.pos]
        y = (windows.x.to(means) - means) * step.scale  # [B, T, D]
        if self.permuted:
            y = y.roll(1 + len(y) // 2, 0)
        block = step.sae.blocks[SLOW]
        tied = step.sae.W_dec[block.start : block.stop]
        guess = z @ (tied if self.predictor is None else self.predictor)  # [B, T, D]
        errors, used = [], torch.zeros(self.reach + 1, dtype=torch.bool, device=y.device)
        for gap in (Gap(windows, offset) for offset in doubling(y.shape[1])):
            together = gap.together & (gap.lag <= self.reach)
            lag = gap.lag[together]
            if len(lag):
                used[lag] = True
                gain = self.gain[lag].unsqueeze(1)
                for source, target in ((gap.earlier, gap.later), (gap.later, gap.earlier)):
                    error = target(y)[together] - gain * source(guess)[together]
                    errors.append(error.square().sum(1).mean())
        if not errors:
            raise ValueError(
                f"no two positions of a piece are {self.reach} tokens apart or less; raise reach, "
                "or make the pieces denser"
            )
        spread = step.stats[f"{self.need}.spread"] * step.scale**2
        value = torch.stack(errors).mean() / spread
        pieces = {f"gain_{lag}": self.gain[lag] for lag in doubling(self.reach + 1) if used[lag]}
        l0 = (z > 0).sum() / windows.keep.sum()
        return value, pieces | {"slow_l0": l0}


def warn_if_silent(sae: SAE, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
    """An event for the end of training: says when the slow block no longer fires. Reorders
    nothing.
    """
    del optimizer
    block = sae.blocks[SLOW]
    l0 = float((step.z[:, block.start : block.stop] > 0).sum()) / len(step.z)
    if l0 < SILENT:
        log.warning(
            f"the slow block of {len(block)} latents went silent: {l0:.2g} of them fire at a "
            "position. Either nothing in these activations persists (read the evaluation's "
            "ceiling: what the activations themselves predict at that distance), or the weight is "
            "too high"
        )
    return torch.arange(sae.n_latents, device=sae.W_dec.device)


# The other forms, for comparison ------------------------------------------------------------------


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
        windows, z = _slow(step, self.pieces)
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
        windows, z = _slow(step, self.pieces)
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
        windows, z = _slow(step, self.pieces)
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

    As written: cosine over a temperature. With `product`, as released: the plain inner product. `pre`
    contrasts pre-activations (their positive part) instead of codes, which are often all zero in a
    small block. One pair a piece: its first token and its second.
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
