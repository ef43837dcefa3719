"""A small stream with known sparse features and a small model behind it, for checks that must not
take minutes.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from saelab.types import Batch, BatchKind, Cursor, Hook, InputStats, Tokens, Windows

WINDOW, HIDDEN, VOCABULARY = 16, 48, 20  # positions of a window; of the model behind the stream


class SparseSource:
    """A stream whose true features are sparse: x = b + sum_j c_j f_j + noise. Batches depend on the
    cursor alone.

    24 unit directions f_j in `d_in` dimensions, each active with probability 1/8 and c_j uniform on
    [1, 2]. The model behind it, `lm`, is a small random network.
    """

    def __init__(self, *, d_in: int = 16, batch: int = 128, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(24, d_in, generator=generator)
        self.features = rows / rows.norm(dim=1, keepdim=True)
        self.offset = torch.randn(d_in, generator=generator) / 2
        self.hook, self.d_in, self.batch, self.seed = Hook(0), d_in, batch, seed
        x = self.draw(8_192, generator)
        self.stats = InputStats(x.mean(0), float(x.square().sum(1).mean() ** -0.5), len(x))
        self.lm = SparseModel(self)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` activations `[N, D]`."""
        active = torch.rand(n, len(self.features), generator=generator) < 1 / 8
        size = 1 + torch.rand(n, len(self.features), generator=generator)
        noise = 0.02 * torch.randn(n, self.d_in, generator=generator)
        return self.offset + (active * size) @ self.features + noise

    def batches(self, kind: BatchKind, start: Cursor) -> Iterator[tuple[Batch, Cursor]]:
        """Batches from `start` on, without end; windows are 16 positions of one document, and
        "both" are windows.
        """
        while True:
            x, following = self.numbered(start.batch), replace(start, batch=start.batch + 1)
            yield (Tokens(x) if kind == "tokens" else _windows(x, start.batch)), following
            start = following

    def numbered(self, batch: int) -> Tensor:
        """The activations `[N, D]` of a batch by its number."""
        return self.draw(
            self.batch, torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + batch)
        )


class SparseModel:
    """logits = relu(x @ V) @ U, each position by itself; satisfies `types.LanguageModel`.

    A window's first token is its number, by which `capture` finds it. The network reads every
    direction of x.
    """

    def __init__(self, source: SparseSource):
        generator = torch.Generator().manual_seed(source.seed)
        self.source, self.hook, self.d_in = source, source.hook, source.d_in
        self.V = torch.randn(source.d_in, HIDDEN, generator=generator) / source.d_in**0.5
        self.U = torch.randn(HIDDEN, VOCABULARY, generator=generator) / HIDDEN**0.5

    def capture(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Activations `[B, T, D]` of windows `[B, T]`."""
        per_batch = self.source.batch // WINDOW
        found = {
            i: self.source.numbered(i).view(per_batch, WINDOW, -1)
            for i in set((tokens[:, 0] // per_batch).tolist())
        }
        return torch.stack(
            [found[i // per_batch][i % per_batch] for i in tokens[:, 0].tolist()]
        ), None

    def resume(self, x: Tensor, state: None, since: int = 0) -> Tensor:
        """Logits `[B, T - since, V]`."""
        del state
        return torch.relu(x[:, since:] @ self.V) @ self.U

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Next-token cross-entropy `[B, T - 1]`, nats."""
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
        )


def _windows(x: Tensor, number: int) -> Windows:
    """Windows of one batch; their tokens after the first are words in turn."""
    grid = (len(x) // WINDOW, WINDOW)
    doc = (torch.arange(grid[0]) + number * grid[0]).unsqueeze(1).expand(grid)
    pos = torch.arange(WINDOW).expand(grid)
    tokens = torch.where(pos == 0, doc, (doc + pos) % VOCABULARY)
    return Windows(x.reshape(*grid, -1), tokens, doc, pos, torch.ones(grid, dtype=torch.bool))
