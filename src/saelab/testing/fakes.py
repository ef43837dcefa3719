"""A stream of activations and a language model that cost nothing, for checks that must be fast."""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from saelab.types import (
    Cursor,
    Hook,
    InputStats,
    Labelled,
    Pairs,
    Pieces,
    Tokens,
    View,
    Views,
    Windows,
)

WINDOW, HIDDEN, VOCABULARY = 16, 48, 20  # positions of a window; of the model behind the stream
HOOK = Hook(0)
LABELLED = 3  # features whose presence is known in labelled batches


class FakeModel:
    """A language model made of two functions; satisfies `types.LanguageModel`.

    `activations`: tokens `[B, T]` -> activations `[B, T, D]`. `read`: activations `[B, T, D]` and
    `since` -> logits `[B, T - since, V]` of the positions from `since` on.
    """

    def __init__(
        self,
        hook: Hook,
        d_in: int,
        activations: Callable[[Tensor], Tensor],
        read: Callable[[Tensor, int], Tensor],
    ):
        self.hook, self.d_in, self.activations, self.read = hook, d_in, activations, read

    def capture(self, tokens: Tensor) -> tuple[Tensor, torch.Size]:
        """Activations `[B, T, D]` of tokens `[B, T]`, and as state the shape of the tokens."""
        return self.activations(tokens), tokens.shape

    def resume(self, x: Tensor, state: torch.Size, since: int = 0) -> Tensor:
        """Logits `[B, T - since, V]`. Raises `AssertionError` for the state of another batch."""
        assert x.shape[:2] == state, "resumed with the state of another batch"
        return self.read(x, since)

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Next-token cross-entropy `[B, T - 1]`, nats."""
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
        )


class SparseSource:
    """A stream whose true features are sparse: x = b + sum_j c_j f_j + noise. Batches depend on the
    cursor alone.

    24 unit directions f_j in `d_in` dimensions, each active with probability 1/8 and c_j uniform on
    [1, 2]. Windows are 16 positions of one document. The two of a pair have the same features
    active at every position, or features of their own; labels say whether each of the first
    features is active. The model behind it, `lm`, is a small random network.
    """

    def __init__(self, *, d_in: int = 16, batch: int = 128, seed: int = 0, hook: Hook = HOOK):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(24, d_in, generator=generator)
        self.features = rows / rows.norm(dim=1, keepdim=True)
        self.offset = torch.randn(d_in, generator=generator) / 2
        self.hook, self.d_in, self.batch, self.seed = hook, d_in, batch, seed
        x = self.draw(8_192, generator)
        self.stats = InputStats(x.mean(0), float(x.square().sum(1).mean() ** -0.5), len(x))
        self.lm: FakeModel | None = _network(self)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` activations `[N, D]`."""
        return self.show(self.active(n, generator), generator)

    def active(self, n: int, generator: torch.Generator) -> Tensor:
        """Which features are active in `n` activations `[N, 24]`, bool."""
        return torch.rand(n, len(self.features), generator=generator) < 1 / 8

    def show(self, active: Tensor, generator: torch.Generator) -> Tensor:
        """Activations `[N, D]` in which these features are active."""
        size = 1 + torch.rand(active.shape, generator=generator)
        noise = 0.02 * torch.randn(len(active), self.d_in, generator=generator)
        return self.offset + (active * size) @ self.features + noise

    def missing(self, kind: View) -> str:
        """Nothing is missing."""
        del kind
        return ""

    def batches(
        self,
        main: type[Tokens] | type[Windows],
        start: Cursor,
        sides: Collection[View] = (),
    ) -> Iterator[tuple[Views, Cursor]]:
        """Batches from `start` on, without end; tokens are windows in order."""
        number = start.batch
        while True:
            x = self.numbered(number)
            kinds = main, *sides
            ordered = any(kind is Windows or isinstance(kind, Pieces) for kind in kinds)
            first = _windows(x, number * (len(x) // WINDOW)) if ordered else Tokens(x)
            makers = {Pairs: self._pairs, Labelled: self._labelled}
            beside = {kind: makers[kind](number) if kind in makers else first for kind in sides}
            cut = {kind: _pieces(first, kind) for kind in sides if isinstance(kind, Pieces)}
            number += 1
            yield Views(first, beside | cut), Cursor(start.epoch, start.block, number)

    def numbered(self, batch: int) -> Tensor:
        """The activations `[N, D]` of a batch by its number."""
        return self.draw(self.batch, self._generator(0, batch))

    def _generator(self, view: int, batch: int) -> torch.Generator:
        return torch.Generator().manual_seed((view << 40) + 1_000_003 * (self.seed + 1) + batch)

    def _pairs(self, number: int) -> Pairs:
        generator, n = self._generator(1, number), max(2, self.batch // (2 * WINDOW))
        kind = torch.arange(n) % 2
        first, second = self.active(2 * n * WINDOW, generator).view(2, n, WINDOW, -1)
        second = torch.where((kind == 0).view(n, 1, 1), first, second)
        one, two = (
            _windows(self.show(active.flatten(0, 1), generator), (2 * number + i) * n)
            for i, active in enumerate((first, second))
        )
        return Pairs(one, two, kind, ("same features", "others"))

    def _labelled(self, number: int) -> Labelled:
        generator = self._generator(2, number)
        active = self.active(self.batch, generator)
        names = tuple(f"feature {i}" for i in range(LABELLED))
        return Labelled(self.show(active, generator), active[:, :LABELLED].long(), names)


def _pieces(windows: Windows | Tokens, kind: Pieces) -> Windows:
    """Each window's pieces beside each other; where a window is shorter, what there is of one."""
    assert isinstance(windows, Windows)
    at = torch.arange(0, WINDOW, kind.every)[: kind.length]  # [T]
    first = torch.arange(0, max(1, WINDOW - kind.span + 1), kind.span)
    first = torch.arange(len(windows.x)).unsqueeze(1) * WINDOW + first
    return windows.stretches(first.view(-1, 1) + at)


def _network(source: SparseSource) -> FakeModel:
    """logits = relu(x @ V) @ U, each position by itself; the network reads every direction of x.

    A window's first token is its number, by which its activations are found again.
    """
    generator = torch.Generator().manual_seed(source.seed)
    inner = torch.randn(source.d_in, HIDDEN, generator=generator) / source.d_in**0.5
    outer = torch.randn(HIDDEN, VOCABULARY, generator=generator) / HIDDEN**0.5

    def activations(tokens: Tensor) -> Tensor:
        per_batch = source.batch // WINDOW
        numbers = tokens[:, 0].tolist()
        batches = {
            i: source.numbered(i).view(per_batch, WINDOW, -1)
            for i in {number // per_batch for number in numbers}
        }
        whole = torch.stack([batches[i // per_batch][i % per_batch] for i in numbers])
        return whole[:, : tokens.shape[1]]

    def read(x: Tensor, since: int) -> Tensor:
        return torch.relu(x[:, since:] @ inner) @ outer

    return FakeModel(source.hook, source.d_in, activations, read)


def _windows(x: Tensor, first: int) -> Windows:
    """Windows of documents `first`, `first` + 1, ...; tokens after the first are words in turn."""
    grid = (len(x) // WINDOW, WINDOW)
    doc = (torch.arange(grid[0]) + first).unsqueeze(1).expand(grid)
    pos = torch.arange(WINDOW).expand(grid)
    tokens = torch.where(pos == 0, doc, (doc + pos) % VOCABULARY)
    return Windows(x.reshape(*grid, -1), tokens, doc, pos, torch.ones(grid, dtype=torch.bool))
