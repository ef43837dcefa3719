"""A synthetic world: activations whose true features are known, as the stream of batches that a
language model also is.

Legend: F true features | N activations | B windows | T positions | D width | V vocabulary of the
model behind the world.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from saelab.store import content_id
from saelab.types import (
    Batch,
    Cursor,
    Hook,
    InputStats,
    Labelled,
    LanguageModel,
    Pairs,
    Pieces,
    Tokens,
    View,
    Views,
    Windows,
    refuse_missing,
)

STATS_ROWS = 20_000  # activations that mean and scale are estimated from


@dataclass(frozen=True)
class Sample:
    """Activations with what is true of them. A world without order has no B: its tensors start with
    N.
    """

    x: Tensor  # [N, D], or [B, T, D] where order means something
    # [N, F] or [B, T, F]: how strongly each true feature is present, > 0 where it is active
    codes: Tensor
    # [N, C] or [B, C] or [B, T, C]: what else is true; the world's file says what C are
    labels: Tensor | None = None
    # [B, T] positions in the sequence, where they are not 0, 1, ..., T - 1
    pos: Tensor | None = None

    @property
    def flat(self) -> "Sample":
        """The same with `x [N, D]` and `codes [N, F]`; labels and positions are left out."""
        return Sample(
            self.x.reshape(-1, self.x.shape[-1]), self.codes.reshape(-1, self.codes.shape[-1])
        )


def strengths(active: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """How strongly features are present: |N(1, spread)| where `active [..., F]`, else 0.

    Numbers are drawn for what is active only, in its order.
    """
    codes = torch.zeros(active.shape)
    places = active.flatten().nonzero().squeeze(1)
    codes.view(-1)[places] = (1 + spread * torch.randn(len(places), generator=generator)).abs()
    return codes


@dataclass(frozen=True)
class SparseSample:
    """Activations with a list of the features active in each: what a `Sample` says, where dense
    codes would be too large.
    """

    x: Tensor  # [N, D]
    row: Tensor  # [M] ascending: which activation
    feature: Tensor  # [M] which feature is active in it
    code: Tensor  # [M] how strongly, > 0
    n_features: int

    @property
    def codes(self) -> Tensor:
        """The codes `[N, F]`."""
        codes = torch.zeros(len(self.x), self.n_features)
        codes[self.row, self.feature] = self.code
        return codes

    def active(self, start: int, stop: int) -> Tensor:
        """Which features are active in activations start ... stop - 1, `[stop - start, F]` bool."""
        low, high = torch.searchsorted(self.row, torch.tensor([start, stop])).tolist()
        active = torch.zeros(stop - start, self.n_features, dtype=torch.bool)
        active[self.row[low:high] - start, self.feature[low:high]] = True
        return active


class Process(Protocol):
    """What a world's file provides: true features, and samples drawn from a generator. A frozen
    dataclass of tensors.
    """

    @property
    def features(self) -> Tensor:
        """True features `[F, D]`, unit rows."""
        ...

    @property
    def groups(self) -> Mapping[str, range]:
        """Named ranges of features, such as parents and children; together they are all F."""
        ...

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """A sample of n activations."""
        ...


@runtime_checkable
class SparseProcess(Process, Protocol):
    """A process without order that has so many features that nobody should ask for dense codes."""

    def draw_sparse(self, n: int, generator: torch.Generator) -> SparseSample:
        """What `draw` gives for an equal generator, with a list in place of dense codes."""
        ...


@runtime_checkable
class PairProcess(Process, Protocol):
    """A process that draws pairs of windows which share something that is true of them."""

    @property
    def pair_kinds(self) -> tuple[str, ...]:
        """What the two of a pair may share, in words."""
        ...

    def pairs(self, n: int, generator: torch.Generator) -> tuple[Sample, Sample, Tensor]:
        """Pairs with about n activations in all: first and second windows with labels `[B, C]`, and
        the kind of each pair `[B]`, its number in `pair_kinds`.
        """
        ...


@runtime_checkable
class LabelledProcess(Process, Protocol):
    """A process that draws activations for supervision, with labels that say what is true."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """What the columns of the labels are."""
        ...

    def labelled(self, n: int, generator: torch.Generator) -> Sample:
        """n activations `[N, D]` with labels `[N, C]`, -1 where one is kept unknown."""
        ...


@runtime_checkable
class Downstream(Protocol):
    """A process with a small frozen model that reads the activations."""

    def logits(self, x: Tensor) -> Tensor:
        """Activations `[..., D]` -> logits `[..., V]`, differentiable, each position by itself."""
        ...


class World:
    """A process with a name and a seed: satisfies `types.ActivationSource`.

    Everything drawn is a pure function of (process, seed, name or number of the sample): equal
    seeds, equal worlds, and no activation is seen twice in training. `lm` is there when the process
    has a model that reads the activations.
    """

    def __init__(self, name: str, process: Process, *, seed: int, batch: int):
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        self.name, self.process, self.seed, self.batch = name, process, seed, batch
        self.hook, self.d_in = Hook(0), process.features.shape[1]

    @property
    def lm(self) -> LanguageModel | None:
        """The model that reads the activations, if the world has one."""
        return WorldModel(self, self.process) if isinstance(self.process, Downstream) else None

    @cached_property
    def kinds(self) -> tuple[type[Batch], ...]:
        """The kinds of batches that this world can give."""
        drawn = {
            Tokens: True,
            Windows: self.activations(self.batch, 0).ndim == 3,
            Pairs: isinstance(self.process, PairProcess),
            Labelled: isinstance(self.process, LabelledProcess),
        }
        return tuple(kind for kind in drawn if drawn[kind])

    def missing(self, kind: View) -> str:
        """What the world's process does not draw; the windows that it draws are its pieces."""
        kind = Windows if isinstance(kind, Pieces) else kind
        if kind in self.kinds:
            return ""
        why = {
            Windows: "no windows: its activations have no order",
            Pairs: "no pairs: nothing in it is shared by two windows",
            Labelled: "no labelled batches: its process gives no labels to train on",
        }[kind]
        given = ", ".join(kind.__name__ for kind in self.kinds)
        return f"world {self.name!r} has {why}. It has {given}"

    @property
    def stats(self) -> InputStats:
        """Mean and scale, from a sample that training does not see."""
        return self._stats

    @cached_property
    def _stats(self) -> InputStats:
        x = self.activations(STATS_ROWS, "stats").flatten(0, -2)
        return InputStats(x.mean(0), float(x.square().sum(1).mean().rsqrt()), len(x))

    def generator(self, sample: str | int) -> torch.Generator:
        """The randomness of a sample: a name for evaluation, the step's number for training."""
        return torch.Generator().manual_seed(
            int(content_id([self.name, self.seed, sample], 15), 16)
        )

    def sample(self, n: int, sample: str | int) -> Sample:
        """n activations, the same ones for the same `sample`."""
        return self.process.draw(n, self.generator(sample))

    def activations(self, n: int, sample: str | int) -> Tensor:
        """The `x` of `sample`, without its codes where the process can leave them out."""
        if isinstance(self.process, SparseProcess):
            return self.process.draw_sparse(n, self.generator(sample)).x
        return self.sample(n, sample).x

    def batches(
        self,
        main: type[Tokens] | type[Windows],
        start: Cursor,
        sides: Collection[View] = (),
    ) -> Iterator[tuple[Views, Cursor]]:
        """New activations for every step and every view; only `Windows` are the tokens in order.

        Raises `ValueError` for a kind of batch that the world does not have.
        """
        refuse_missing(self, (main, *sides))
        ordered = any(kind is Windows or isinstance(kind, Pieces) for kind in (main, *sides))
        number = start.batch
        while True:
            if ordered:
                first = self.windows(number)
            else:
                first = Tokens(self.activations(self.batch, number).flatten(0, -2))
            makers = {Pairs: self._pairs, Labelled: self._labelled}
            beside = {kind: makers[kind](number) if kind in makers else first for kind in sides}
            number += 1
            yield Views(first, beside), Cursor(0, 0, number)

    def _pairs(self, number: int) -> Pairs:
        process = self.process
        assert isinstance(process, PairProcess)
        first, second, shared = process.pairs(self.batch, self.generator(f"pairs {number}"))
        assert first.labels is not None and second.labels is not None
        numbers = torch.arange(2 * len(shared)).view(-1, 2) + 2 * len(shared) * number
        return Pairs(
            _in_order(first, numbers[:, 0]),
            _in_order(second, numbers[:, 1]),
            shared,
            process.pair_kinds,
            torch.stack([first.labels, second.labels], 1),
        )

    def _labelled(self, number: int) -> Labelled:
        process = self.process
        assert isinstance(process, LabelledProcess)
        sample = process.labelled(self.batch, self.generator(f"labelled {number}"))
        assert sample.labels is not None
        return Labelled(sample.x, sample.labels, process.label_names)

    def windows(self, number: int) -> Windows:
        """The batch of step `number` in order. The first token of a window is its own number, by
        which `lm.capture` finds it.

        The other tokens are drawn from the model's own predictions, where the world has a model:
        its loss is then that of a perfectly calibrated model.
        """
        sample = self.sample(self.batch, number)
        b, t = sample.x.shape[:2]
        windows = _in_order(sample, number * b + torch.arange(b))
        if isinstance(self.process, Downstream) and t > 1:
            chances = self.process.logits(sample.x[:, :-1]).softmax(-1)  # [B, T - 1, V]
            drawn = torch.multinomial(
                chances.flatten(0, 1), 1, generator=self.generator(f"tokens {number}")
            )
            windows.tokens[:, 1:] = drawn.view(b, t - 1)
        return windows


def _in_order(sample: Sample, numbers: Tensor) -> Windows:
    """Windows of a sample whose documents, and tokens, are their numbers `[B]`."""
    b, t = sample.x.shape[:2]
    doc = numbers.unsqueeze(1).expand(b, t)
    pos = torch.arange(t).expand(b, t) if sample.pos is None else sample.pos
    return Windows(sample.x, doc.clone(), doc, pos, torch.ones(b, t, dtype=torch.bool))


class WorldModel:
    """The model behind a world, as `types.LanguageModel`: what lies above the hook is the process's
    `logits`.
    """

    def __init__(self, world: World, process: Downstream):
        self.world, self.process = world, process
        self.hook, self.d_in = world.hook, world.d_in

    def capture(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Activations `[B, T, D]` of windows `[B, T]`, found by the number in their first token."""
        per_batch = len(self.world.sample(self.world.batch, 0).x)
        places = [divmod(number, per_batch) for number in tokens[:, 0].tolist()]
        batches = {
            number: self.world.sample(self.world.batch, number).x
            for number in {batch for batch, _ in places}
        }
        return torch.stack([batches[batch][row] for batch, row in places]), None

    def resume(self, x: Tensor, state: None, since: int = 0) -> Tensor:
        """Logits of positions `since` on `[B, T - since, V]`, from activations `[B, T, D]`."""
        del state
        return self.process.logits(x[:, since:])

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Next-token cross-entropy `[B, T-1]`, nats."""
        return cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        ).view(len(tokens), -1)
