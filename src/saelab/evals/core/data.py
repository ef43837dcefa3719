"""Held-out windows of a language model with everything that the core scores of all dictionaries at
its hook share.

Memory: `CoreData` holds the activations of all windows, B*T*D*4 bytes (32 MB for 256 windows of 128
and D 256), and clean logits up to `LOGITS_KEPT`; the others are recomputed from x.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from saelab.evals.common.reading import CODES_AT_ONCE
from saelab.evals.core.losses import Effect, ablations
from saelab.ground.held_out import HeldOut
from saelab.types import Dictionary, LanguageModel, Windows

LOGITS_KEPT = 1 << 28  # bytes of clean logits (256 MiB: 128 windows of 128 tokens and V 4,096)
PROMPTS = 16  # windows per batch in the compatible formulas: SAEBench's published setting


class Readable(LanguageModel, Protocol):
    """A language model whose vocabulary can be shown, as the text of latents needs it."""

    def decode(self, ids: list[int]) -> list[str]:
        """One display string per token id."""
        ...

    def unembed(self) -> Tensor:
        """The unembedding matrix `[D, V]`."""
        ...


@dataclass(frozen=True)
class Positions:
    """What does not depend on the dictionary, per evaluated token `[N]`, in order."""

    doc: Tensor  # which document, from 0
    window: Tensor  # which window, from 0
    scored: Tensor  # 1.0 where it predicts a token
    spread: Tensor  # |x - mean|^2, the mean over all evaluated tokens
    batch_spread: Tensor  # |x - mean|^2, the mean over its batch of `PROMPTS` windows
    share: Tensor  # 1 / evaluated tokens of that batch


@dataclass(frozen=True)
class CoreData:
    """Held-out windows with everything that all dictionaries at this hook share."""

    lm: Readable
    batches: tuple[tuple[Windows, Any], ...]  # windows and the LM's state, per LM batch
    mean: Tensor  # [D], over the evaluated tokens
    positions: Positions
    clean: tuple[Tensor, ...]  # logits `[B, T, V]` of the first LM batches, those that are kept
    clean_ce: Tensor  # [N]
    zero: Effect  # ablation: evaluated tokens set to 0, the others as they are
    mean_ablation: Effect  # ablation: evaluated tokens set to `mean`
    zero_all: Effect  # SAEBench's ablation: every token set to 0

    def read(self) -> Iterator[tuple[Windows, Any, Tensor]]:
        """Windows, the LM's state and its clean logits `[B, T, V]`, per LM batch."""
        for kept, (windows, state) in zip_longest(self.clean, self.batches):
            yield windows, state, self.lm.resume(windows.x, state) if kept is None else kept

    @property
    def n_windows(self) -> int:
        return sum(len(windows.x) for windows, _ in self.batches)

    @property
    def context(self) -> int:
        """Tokens per window, BOS included."""
        return self.batches[0][0].x.shape[1]

    @property
    def n_docs(self) -> int:
        """Documents with at least one evaluated token."""
        return int(self.positions.doc.max()) + 1


def prepare(held: HeldOut) -> CoreData:
    """Run the model's upper layers on the clean and the ablated activations of held-out windows.

    Raises `ValueError` when no token is left to evaluate or an activation is not finite.
    """
    with torch.no_grad():
        lm, kept = cast(Readable, held.model), tuple(held.batches)
        _check_batches(kept, lm)
        flat = torch.cat([windows.flat.float().cpu() for windows, _ in kept])  # [N, D]
        mean = flat.mean(0, dtype=torch.double).float()
        clean, clean_ce, (zero, mean_ablation, zero_all) = ablations(lm, kept, mean, LOGITS_KEPT)
        return CoreData(
            lm=lm,
            batches=kept,
            mean=mean,
            positions=_positions([windows for windows, _ in kept], flat, mean),
            clean=clean,
            clean_ce=clean_ce,
            zero=zero,
            mean_ablation=mean_ablation,
            zero_all=zero_all,
        )


def codes(dictionary: Dictionary, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """The evaluated tokens of a few windows at a time, in order: (x `[n, D]`, codes `[n, L]`)."""
    where = dictionary.directions
    step = max(1, CODES_AT_ONCE // (windows.x.shape[1] * len(where)))
    for x, keep in zip(windows.x.split(step), windows.keep.split(step), strict=True):
        x = x[keep].to(where.device, torch.float32)
        if len(x):
            yield x, dictionary.encode(x)


def _positions(windows: list[Windows], flat: Tensor, mean: Tensor) -> Positions:
    window, predicts, before = [], [], 0
    for w in windows:
        row, column = w.keep.cpu().nonzero(as_tuple=True)
        window.append(before + row)
        predicts.append(column < w.keep.shape[1] - 1)
        before += len(w.keep)
    window = torch.cat(window)
    _, batch = (window // PROMPTS).unique(return_inverse=True)
    size = batch.bincount()
    sums = torch.zeros(len(size), flat.shape[1], dtype=torch.double)
    batch_mean = (sums.index_add_(0, batch, flat.double()) / size.unsqueeze(1)).float()
    return Positions(
        doc=torch.cat([w.doc[w.keep].cpu() for w in windows]).unique(return_inverse=True)[1],
        window=window,
        scored=torch.cat(predicts).float(),
        spread=(flat - mean).square().sum(1),
        batch_spread=(flat - batch_mean[batch]).square().sum(1),
        share=1 / size[batch].double(),
    )


def _check_batches(batches: tuple[tuple[Windows, Any], ...], lm: LanguageModel) -> None:
    if not any(windows.keep.any() for windows, _ in batches):
        raise ValueError(
            "no token is left to evaluate: every window is empty or masked; give a longer "
            "held-out text"
        )
    for number, (windows, _) in enumerate(batches):
        if not windows.flat.isfinite().all():
            raise ValueError(
                f"activations at {lm.hook.name} are not finite in batch {number}; the model "
                "itself is broken there"
            )
