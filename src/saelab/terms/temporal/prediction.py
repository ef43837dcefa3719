"""A slow block that predicts the activations further on and back: the term, and what it needs of
the stream.

Legend: B pieces | T positions of one | S latents of the slow block.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from saelab.terms.base import Need, Step
from saelab.terms.temporal.pieces import SLOW, Gap, doubling, slow_codes
from saelab.types import ActivationSource, Cursor, Windows


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
        windows, z = slow_codes(step, self.pieces)  # [B, T, S]
        means = step.stats[f"{self.need}.mean"][windows.pos]
        y = (windows.x.to(means) - means) * step.scale  # [B, T, D]
        if self.permuted:
            y = y.roll(1, 0)  # pieces lie in random order
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
