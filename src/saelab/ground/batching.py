"""One buffer load of windows -> batches: shuffled tokens, whole windows, or both. The live stream
and the cache cut alike.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.runs import Source
from saelab.types import Batch, BatchKind, Cursor, Tokens, Windows


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator that is a function of a few small numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 62)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Cut:
    """The batches of one block, made when asked for, so that the block is in memory once."""

    windows: Windows
    picks: tuple[Tensor, ...]  # per batch: flat positions [N] of tokens, or numbers [B] of windows
    kind: BatchKind
    beside: int  # windows beside a batch of tokens

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, i: int) -> Batch:
        if self.kind == "windows":
            return self._whole(self.picks[i])
        x = self.windows.x.flatten(0, 1)[self.picks[i]].float()
        if self.kind == "tokens":
            return Tokens(x)
        rows = torch.arange(i * self.beside, (i + 1) * self.beside, device=x.device) % len(
            self.windows.x
        )
        return Tokens(x, self._whole(rows))

    def _whole(self, rows: Tensor) -> Windows:
        w = self.windows
        return Windows(w.x[rows].float(), w.tokens[rows], w.doc[rows], w.pos[rows], w.keep[rows])


def cut_block(windows: Windows, kind: BatchKind, source: Source, epoch: int, block: int) -> Cut:
    """Cut a block into batches: `batch` shuffled kept activations each, or windows with about
    `batch` positions, or both.

    Tokens are the same whether windows are beside them or not. What is left over at the end of the
    block, less than a batch, is dropped.
    """
    beside = min(windows_per_batch(source), len(windows.x))
    if kind in ("tokens", "both"):
        kept = windows.keep.flatten().cpu().nonzero().squeeze(1)  # [N]
        order = kept[torch.randperm(len(kept), generator=seeded(source.seed, epoch, block + 1))]
        size = source.batch
    elif kind == "windows":
        order = torch.arange(len(windows.x))  # already in the epoch's random order
        size = beside
    else:
        raise ValueError(f"unknown batch kind {kind!r}; choose tokens, windows or both")
    whole = len(order) // size * size
    return Cut(
        windows, order[:whole].to(windows.x.device).split(size) if whole else (), kind, beside
    )


def windows_per_batch(source: Source) -> int:
    """Windows with about `batch` positions in all, at least one."""
    return max(1, round(source.batch / source.context))


def following(cursor: Cursor, n_batches: int, n_blocks: int) -> Cursor:
    """The cursor after the batch at `cursor`, in a block of `n_batches` and an epoch of
    `n_blocks`.
    """
    if cursor.batch + 1 < n_batches:
        return Cursor(cursor.epoch, cursor.block, cursor.batch + 1)
    if cursor.block + 1 < n_blocks:
        return Cursor(cursor.epoch, cursor.block + 1, 0)
    return Cursor(cursor.epoch + 1, 0, 0)
