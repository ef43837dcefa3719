"""Views of windows: one load of the shuffle buffer becomes shuffled tokens, whole windows, pairs of
stretches of text, or labelled tokens. A live stream and a cache on disk are cut alike.

Each view has randomness of its own, a function of (seed, epoch, block) and of the number of the
batch: which views are asked for changes none of them.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from saelab.runs import Source
from saelab.types import Batch, Cursor, Labelled, Pairs, Pieces, Tokens, View, Views, Windows

SAME, OTHER = 0, 1  # kinds of pair
KINDS = ("same document", "other document")
# distinguish the random streams of views; that of tokens came first
_PAIRS, _LABELLED, _PIECES = 1, 2, 3


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator that is a function of a few small numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 62)
    return torch.Generator().manual_seed(seed)


def windows_per_batch(source: Source) -> int:
    """Windows with about `batch` positions in all, at least one."""
    return max(1, round(source.batch / source.context))


def too_long(kind: View, source: Source) -> str:
    """Why windows of a source hold no pieces of this kind; empty where they may."""
    if not isinstance(kind, Pieces) or kind.span < source.context:
        return ""
    return (
        f"{kind.name} span {kind.span}, and windows of "
        f"context {source.context} keep {source.context - 1} at most; make the pieces shorter or "
        "the context longer"
    )


class Block:
    """One load of the shuffle buffer, from which every view of it is made when it is asked for, so
    that the activations are in memory once.

    `labels [W, T, C]` with the names of the columns are there where the text has labels.
    """

    def __init__(
        self,
        windows: Windows,
        source: Source,
        place: tuple[int, int],
        labels: tuple[Tensor, tuple[str, ...]] | None = None,
    ):
        self.windows, self.source, self.labels = windows, source, labels
        epoch, number = place
        self.seeds = (source.seed, epoch, number + 1)
        self.per_batch = min(windows_per_batch(source), len(windows.x))  # windows
        self._starts: dict[Pieces, Tensor] = {}

    def count(self, main: type[Tokens] | type[Windows]) -> int:
        """Whole batches of this kind; what is left over, less than a batch, is dropped."""
        if main is Tokens:
            return len(self._shuffled) // self.source.batch
        return len(self.windows.x) // self.per_batch

    def view(self, kind: View, number: int) -> Batch:
        """The batch of a kind with this number; a kind with fewer batches begins again."""
        if kind is Tokens:
            return Tokens(self._at(self._batch(self._shuffled, number, self.source.batch)))
        if kind is Windows:
            first = number * self.per_batch
            rows = torch.arange(first, first + self.per_batch) % len(self.windows.x)
            picked = self.windows.rows(rows)  # they are in the epoch's random order already
            return replace(picked, x=picked.x.float())
        if kind is Pairs:
            return self._pairs(number)
        if isinstance(kind, Pieces):
            return self._pieces(kind, number)
        assert self.labels is not None
        values, names = self.labels
        positions = self._batch(self._relabelled, number, self.source.batch)
        x = self._at(positions)
        return Labelled(x, values.flatten(0, 1)[positions].long().to(x.device), names)

    def _at(self, positions: Tensor) -> Tensor:
        """Activations `[N, D]` of positions by their number in the block."""
        return self.windows.x.flatten(0, 1)[positions.to(self.windows.x.device)].float()

    def _batch(self, order: Tensor, number: int, size: int) -> Tensor:
        """The positions of one batch of this size, of all in `order`."""
        first = number % max(1, len(order) // size) * size
        return order[first : first + size]

    @cached_property
    def _shuffled(self) -> Tensor:
        """Kept positions in random order `[N]`, where the activations are."""
        return self._permuted(*self.seeds).to(self.windows.x.device)

    @cached_property
    def _relabelled(self) -> Tensor:
        """Kept positions in another random order `[N]`."""
        return self._permuted(*self.seeds, _LABELLED)

    def _permuted(self, *seeds: int) -> Tensor:
        kept = self.windows.keep.flatten().cpu().nonzero().squeeze(1)
        return kept[torch.randperm(len(kept), generator=seeded(*seeds))]

    # Pieces ---------------------------------------------------------------------------------------

    def _pieces(self, kind: Pieces, number: int) -> Windows:
        """Pieces with as many positions as a batch has, drawn without repeats until none is left.
        Raises `ValueError` where the documents of this block are all shorter than a piece.
        """
        if kind not in self._starts:
            self._starts[kind] = self._piece_starts(kind)
        n = max(1, self.source.batch // kind.length)
        first = self._batch(self._starts[kind], number, n).unsqueeze(1)
        pieces = self.windows.stretches(first + torch.arange(kind.length) * kind.every)
        return replace(pieces, x=pieces.x.float())

    def _piece_starts(self, kind: Pieces) -> Tensor:
        """Where pieces may begin `[M]`, numbers of positions in the block, in random order."""
        keep, doc = self.windows.keep.cpu(), self.windows.doc.cpu()
        pieces = doc.where(keep, -1).unfold(1, kind.span, 1)[..., :: kind.every]  # [W, first, T]
        fits = (pieces[..., :1] == pieces).all(2) & (pieces[..., 0] >= 0)
        row, first = fits.nonzero(as_tuple=True)
        starts = row * keep.shape[1] + first
        if not kind.sliding:
            starts = starts[first % kind.span == 1 % kind.span]  # 0 is the window's BOS
        if not len(starts):
            sizes = doc[keep].unique(return_counts=True)[1]
            raise ValueError(
                f"no piece of {kind.length} positions, {kind.every} apart, lies in one document: "
                f"it spans {kind.span}, and of {len(sizes)} documents in a buffer load "
                f"{int((sizes >= kind.span).sum())} have so many kept tokens, most "
                f"{int(sizes.median()) if len(sizes) else 0}; make the pieces shorter, or give a "
                "text of longer documents"
            )
        seeds = (*self.seeds, _PIECES, kind.length, kind.every, int(kind.sliding))
        return starts[torch.randperm(len(starts), generator=seeded(*seeds))]

    # Pairs ----------------------------------------------------------------------------------------

    @cached_property
    def _stretches(self) -> "_Stretches":
        return _Stretches(self.windows)

    def _pairs(self, number: int) -> Pairs:
        n = max(len(KINDS), windows_per_batch(self.source))
        generator = seeded(*self.seeds, _PAIRS, number)
        stretches = self._stretches
        first, second, kind = stretches.draw(n, generator)
        device = self.windows.x.device
        return Pairs(stretches.cut(first), stretches.cut(second), kind.to(device), KINDS)


class _Stretches:
    """The halves of windows, each with the document that most of its kept positions belong to."""

    def __init__(self, windows: Windows):
        self.windows = windows
        n_windows, length = windows.keep.shape
        self.length = max(1, length // 2)
        self.per_window = length // self.length
        used = slice(0, self.per_window * self.length)
        shape = (n_windows * self.per_window, self.length)
        doc = windows.doc[:, used].reshape(shape).cpu()
        keep = windows.keep[:, used].reshape(shape).cpu()
        votes = ((doc.unsqueeze(2) == doc.unsqueeze(1)) & keep.unsqueeze(1)).sum(2) * keep
        most, place = votes.max(1)
        self.doc = doc.gather(1, place.unsqueeze(1)).squeeze(1)
        usable = (most > 0).nonzero().squeeze(1)
        # [M] stretches, those of one document beside each other
        self.order = usable[self.doc[usable].sort(stable=True).indices]
        _, size = self.doc[self.order].unique_consecutive(return_counts=True)
        self.size = size.repeat_interleave(size)  # [M] of the document's run in `order`
        self.start = (size.cumsum(0) - size).repeat_interleave(size)  # [M] its first place there

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of the first and the second stretches of n pairs `[n]`, and their kinds in turn.

        Raises `ValueError` when no two stretches are of one document, or all are.
        """
        total = len(self.order)
        shared = (self.size > 1).nonzero().squeeze(1)
        if not len(shared) or not (self.size < total).all():
            what = "all from one document" if len(shared) else "each from a document of its own"
            raise ValueError(
                f"a buffer load of {len(self.windows.x)} windows makes no pairs: its stretches of "
                f"{self.length} tokens are {what}; raise the buffer, or give a text of more and "
                "longer documents"
            )
        kind = torch.arange(n) % len(KINDS)
        chance = torch.rand(2, n, generator=generator, dtype=torch.float64)

        def up_to(i: int, limit: Tensor) -> Tensor:
            return torch.minimum((chance[i] * limit).long(), limit - 1)

        first = torch.where(
            kind == SAME,
            shared[up_to(0, torch.full((n,), len(shared)))],
            up_to(0, torch.full((n,), total)),
        )
        start, size = self.start[first], self.size[first]
        # the same run without the first itself, and all without the run
        step = 1 + up_to(1, (size - 1).clamp_min(1))
        same = start + (first - start + step) % size
        other = up_to(1, total - size)
        other = torch.where(other >= start, other + size, other)
        second = torch.where(kind == SAME, same, other)
        return self.order[first], self.order[second], kind

    def cut(self, numbers: Tensor) -> Windows:
        """Stretches `[B, S]` of windows; of each only the positions of its document are kept."""
        window, place = numbers // self.per_window, numbers % self.per_window
        first = window * self.windows.keep.shape[1] + place * self.length
        cut = self.windows.stretches(first.unsqueeze(1) + torch.arange(self.length))
        mine = cut.doc == self.doc[numbers].to(cut.doc.device).unsqueeze(1)
        return replace(cut, x=cut.x.float(), keep=cut.keep & mine)


# The loop over blocks -----------------------------------------------------------------------------


def read_batches(
    block: Callable[[int, int], Block],
    n_blocks: int,
    main: type[Tokens] | type[Windows],
    start: Cursor,
    sides: Collection[View],
) -> Iterator[tuple[Views, Cursor]]:
    """The batches of blocks in turn, epoch after epoch, as `types.ActivationSource.batches` says.

    `block`: the load at (epoch, number). Raises `ValueError` when none of an epoch holds a batch.
    """
    epoch, number, first = start.epoch, start.block, start.batch
    idle = 0  # blocks in a row without a batch
    while True:
        load = block(epoch, number)
        count = load.count(main)
        idle = 0 if count else idle + 1
        if idle > n_blocks:
            raise ValueError(
                f"no buffer load of {len(load.windows.x)} windows holds {load.source.batch:,} "
                "activations, one batch; raise max_norm or the buffer, or lower the batch"
            )
        following = (epoch, number + 1) if number + 1 < n_blocks else (epoch + 1, 0)
        for i in range(first, count):
            batch = load.view(main, i)
            assert isinstance(batch, Tokens | Windows)
            beside = {kind: batch if kind is main else load.view(kind, i) for kind in sides}
            after = Cursor(epoch, number, i + 1) if i + 1 < count else Cursor(*following, 0)
            yield Views(batch, beside), after
        del load  # the next block is computed without this one in memory
        (epoch, number), first = following, 0
