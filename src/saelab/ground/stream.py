"""Text windows -> batches of activations, in a seeded order that any step can be resumed in.

An epoch is a seeded permutation of the windows. A block is one load of the shuffle buffer: `buffer
// context` windows, run through the language model, whose kept positions are shuffled together.
Everything is a function of (seed, epoch, block), so a `Cursor` is all a checkpoint needs, and
resuming recomputes one block.
"""

import functools
import logging
import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saelab.ground.views import Block, read_batches, seeded, too_long
from saelab.runs import Source
from saelab.text.corpora import EMBEDDED_CORPUS
from saelab.text.labels.labelled import at_windows, label_tokens, stdlib_labels
from saelab.text.windows import TokenWindows
from saelab.types import (
    Cursor,
    InputStats,
    Labelled,
    Tokens,
    View,
    Views,
    Windows,
    refuse_missing,
)

if TYPE_CHECKING:
    from saelab.lm.model import HFModel, State

log = logging.getLogger("saelab.lm")
STATS_FROM = 8_192  # kept activations that scale, mean and median norm are estimated from, at least


class BrokenModelError(ValueError):
    """The language model's activations are NaN or infinite; the message names layer and batch."""


class ActivationStream:
    """A language model's activations at its hook as an endless stream; satisfies
    `types.ActivationSource`.
    """

    def __init__(self, lm: "HFModel", windows: TokenWindows, source: Source):
        """Raises `ValueError` when the text holds fewer kept activations than one batch."""
        self.lm, self.windows, self.source = lm, windows, source
        self.hook, self.d_in = lm.hook, lm.d_in
        self.per_block = min(max(source.buffer // source.context, 1), len(windows))  # windows
        self.n_blocks = math.ceil(len(windows) / self.per_block)  # per epoch
        if windows.n_kept < source.batch:
            raise ValueError(
                f"corpus {source.corpus} holds {windows.n_kept:,} activations, fewer than one "
                f"batch of {source.batch:,}; "
                "give a longer text or a smaller batch"
            )

    # Statistics, from the first windows of the stream ---------------------------------------------

    @functools.cached_property
    def _sample(self) -> Tensor:
        """At least `STATS_FROM` kept activations `[N, D]`, when there are so many, before the
        outlier mask.
        """
        need = math.ceil(STATS_FROM / max(self.windows.n_kept / len(self.windows), 1e-9))
        rows = self._order(0)[: math.ceil(need / self.source.lm_batch) * self.source.lm_batch]
        captured = self._captured(rows, "at the start of the stream")
        return torch.cat([windows.flat.float() for windows in captured])

    @functools.cached_property
    def norm_bound(self) -> float | None:
        """Largest norm that is kept, or None."""
        if self.source.max_norm is None:
            return None
        return self.source.max_norm * self._sample.norm(dim=-1).median().item()

    @property
    def stats(self) -> InputStats:
        return self._stats

    @functools.cached_property
    def _stats(self) -> InputStats:
        """Mean, and scale = 1 / sqrt(E|x|^2), of the kept activations at the start of the
        stream.
        """
        x = self._sample
        if self.norm_bound is not None:
            x = x[x.norm(dim=-1) <= self.norm_bound]
        square = x.double().square().sum(-1).mean().item()
        if square == 0:
            raise ValueError(
                f"all activations at {self.hook.name} of {self.lm.name} are zero: there is "
                "nothing to code"
            )
        return InputStats(x.double().mean(0).float(), 1 / math.sqrt(square), len(x))

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What the run's record and the report say about the data."""
        source, windows = self.source, self.windows
        norms = self._sample.norm(dim=-1)
        outliers = (
            0.0 if self.norm_bound is None else (norms > self.norm_bound).float().mean().item()
        )
        kept = windows.n_kept * (1 - outliers)
        epochs = source.steps * source.batch / kept
        return {
            "corpus": source.corpus,
            "corpus_hash": windows.corpus_hash,
            "documents": windows.n_documents,
            "tokens_read": windows.n_tokens,
            "windows": len(windows),
            "context": windows.context,
            "window_start": windows.start,
            "kept_activations": round(kept),
            "dropped": windows.dropped | {"norm": outliers},
            "norm_bound": "none" if self.norm_bound is None else self.norm_bound,
            "epochs": epochs,
            "repeats": epochs > 1,
            "left_over_per_block": f"fewer than {source.batch} activations",
            "buffer_bytes": self.buffer_bytes,
            "stats_from": self.stats.n,
            "scale": self.stats.scale,
        }

    @property
    def buffer_bytes(self) -> int:
        """Memory of one buffer load: its activations, and their copy in shuffled order batch by
        batch.
        """
        per_activation = self.d_in * self.lm.dtype.itemsize
        return (
            self.per_block * self.windows.context * per_activation
            + self.source.batch * self.d_in * 4
        )

    # Batches --------------------------------------------------------------------------------------

    def missing(self, kind: View) -> str:
        """Labels of tokens are known for the embedded text alone; a piece must fit a window."""
        if kind is Labelled and self.source.corpus != EMBEDDED_CORPUS:
            return (
                f"corpus {self.source.corpus} has no labels of tokens; read the embedded text, "
                f"corpus {EMBEDDED_CORPUS!r}"
            )
        return too_long(kind, self.source)

    def batches(
        self,
        main: type[Tokens] | type[Windows],
        start: Cursor,
        sides: Collection[View] = (),
    ) -> Iterator[tuple[Views, Cursor]]:
        """Batches from `start` on, without end, each with the cursor that follows it. Equal
        cursors, equal batches.

        `Tokens`: exactly `batch` shuffled activations; what a block has left over is dropped.
        `Windows`: whole windows of about `batch` positions in all. `Pairs`: halves of windows, as
        many, of one document and of two in turn. `Pieces`: short stretches of one document.
        `Labelled`: `batch` shuffled activations, in another order, with the labels of their tokens.
        """
        refuse_missing(self, (main, *sides))

        def load(epoch: int, block: int) -> Block:
            labels = None
            if Labelled in sides:
                values, names = self._labels
                labels = values[self.rows(epoch, block)], names
            return Block(self.block(epoch, block), self.source, (epoch, block), labels)

        yield from read_batches(load, self.n_blocks, main, start, sides)

    @functools.cached_property
    def _labels(self) -> tuple[Tensor, tuple[str, ...]]:
        """Labels of every position `[W, T, C]`, -1 where unknown, and the names of the columns."""
        log.info("labelling the tokens of %d documents", self.windows.n_documents)
        tokenizer = self.lm.tokenizer
        corpus = stdlib_labels(self.windows.split, tokenizer, int(self.windows.doc.max()) + 1)
        labels = label_tokens(corpus, tokenizer)
        place = at_windows(labels, self.windows)
        values = labels.values[place.clamp_min(0)].masked_fill((place < 0).unsqueeze(2), -1)
        return values, tuple(family.name for family in labels.families)

    def block(self, epoch: int, block: int) -> Windows:
        """All windows of one buffer load `[W, T, D]`, in the order of the epoch."""
        rows, whole, device = self.rows(epoch, block), self.windows, self.lm.device
        shape = (len(rows), whole.context)
        x = torch.empty(*shape, self.d_in, dtype=self.lm.dtype, device=device)
        keep = torch.empty(*shape, dtype=torch.bool, device=device)
        done = 0
        for windows in self._captured(rows, f"of block {block} in epoch {epoch}", self.norm_bound):
            end = done + len(windows.x)
            x[done:end], keep[done:end] = windows.x, windows.keep
            done = end
        tokens, doc = whole.tokens[rows].to(device), whole.doc[rows].to(device)
        return Windows(x, tokens, doc, whole.pos[rows].to(device), keep)

    def rows(self, epoch: int, block: int) -> Tensor:
        """Numbers of the windows in one buffer load."""
        return self._order(epoch)[block * self.per_block : (block + 1) * self.per_block]

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.windows), generator=seeded(self.source.seed, epoch, 0))

    def _captured(
        self, rows: Tensor, where: str, norm_bound: float | None = None
    ) -> Iterator[Windows]:
        size = self.source.lm_batch
        captured = capture_windows(
            self.lm, self.windows, size, norm_bound=norm_bound, rows=rows, where=f" {where}"
        )
        for windows, _ in captured:
            yield windows


def capture_windows(
    lm: "HFModel",
    windows: TokenWindows,
    batch: int = 32,
    *,
    norm_bound: float | None = None,
    rows: Tensor | None = None,
    where: str = "",
) -> "Iterator[tuple[Windows, State]]":
    """Activations of windows in order, `batch` of them at a time, each with the state that the
    model resumes from.

    Activations beyond `norm_bound` are masked. `rows`: numbers of the windows to read (None: all);
    `where` ends what an error says of the place. Raises `BrokenModelError`.
    """
    rows = torch.arange(len(windows)) if rows is None else rows
    for i, numbers in enumerate(rows.split(batch)):
        tokens = windows.tokens[numbers].to(lm.device)
        x, state = lm.capture(tokens)  # [B, T, D]
        if not torch.isfinite(x).all():
            raise BrokenModelError(
                f"activations of {lm.name} become NaN or infinite at {lm.first_broken(tokens)}, "
                f"in LM batch {i}{where} ({len(numbers)} windows); check the checkpoint, or load "
                "the model in float32"
            )
        keep = windows.keep[numbers].to(lm.device)
        if norm_bound is not None:
            keep = keep & (x.float().norm(dim=-1) <= norm_bound)
        doc, pos = windows.doc[numbers].to(lm.device), windows.pos[numbers].to(lm.device)
        yield Windows(x, tokens, doc, pos, keep), state
