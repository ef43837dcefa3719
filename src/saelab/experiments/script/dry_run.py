"""Two training steps on random activations of the right shape: finds what is wrong in a script
before a model loads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from saelab.lm.hooks import parse_hook
from saelab.lm.weights import load_config
from saelab.runs import Run, Source
from saelab.terms.base import Objective, Step, TermFunction, Variant
from saelab.train import Training
from saelab.train.loop import Build
from saelab.types import Batch, BatchKind, Cursor, Hook, InputStats, Tokens, Windows

STEPS, ROWS, WINDOW = 2, 64, 8  # steps, activations per step, tokens per window
WORDS = 32  # of the model that stands for the real one


@dataclass(frozen=True)
class Noise:
    """Gaussian activations; satisfies `types.ActivationSource`."""

    hook: Hook
    d_in: int
    vocabulary: int

    @property
    def lm(self) -> "NoiseModel":
        """A model of the same width."""
        return self._lm

    @cached_property
    def _lm(self) -> "NoiseModel":
        return NoiseModel(self.hook, self.d_in)

    @property
    def stats(self) -> InputStats:
        """Those of a standard Gaussian, scaled to mean squared norm 1."""
        return InputStats(torch.zeros(self.d_in), self.d_in**-0.5, ROWS)

    def batches(self, kind: BatchKind, start: Cursor) -> Iterator[tuple[Batch, Cursor]]:
        """Batches of `ROWS` activations."""
        at = start
        while True:
            generator = torch.Generator().manual_seed(at.batch)
            at = Cursor(batch=at.batch + 1)
            if kind == "tokens":
                yield Tokens(torch.randn(ROWS, self.d_in, generator=generator)), at
            else:
                yield self._windows(generator), at

    def _windows(self, generator: torch.Generator) -> Windows:
        count = ROWS // WINDOW
        tokens = torch.randint(self.vocabulary, (count, WINDOW), generator=generator)
        pos = torch.arange(WINDOW).expand(count, -1)
        return Windows(
            self.lm.capture(tokens)[0],
            tokens,
            torch.arange(count)[:, None].expand(-1, WINDOW),
            pos,
            pos > 0,
        )


class NoiseModel:
    """Gaussian activations by token, and a random readout of them; satisfies
    `types.LanguageModel`.
    """

    def __init__(self, hook: Hook, d_in: int):
        generator = torch.Generator().manual_seed(0)
        self.hook, self.d_in = hook, d_in
        self.table = torch.randn(WORDS, d_in, generator=generator)
        self.readout = torch.randn(d_in, WORDS, generator=generator) / d_in**0.5

    def capture(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Activations `[B, T, D]` of tokens `[B, T]`."""
        return self.table[tokens % WORDS], None

    def resume(self, x: Tensor, state: None, since: int = 0) -> Tensor:
        """Logits `[B, T - since, WORDS]`."""
        del state
        return x[:, since:] @ self.readout

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Next-token cross-entropy `[B, T - 1]`, nats."""
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), tokens[:, 1:] % WORDS, reduction="none"
        )


def dry_run(run: Run, build: Build) -> None:
    """Train `run`'s variant for two steps on noise, calibrate and encode. Raises whatever the
    variant raises.
    """
    source = run.source
    assert isinstance(source, Source), "a script trains on a language model"
    config = load_config(source.model)
    text = config.get_text_config()
    noise = Noise(parse_hook(source.hook, config), text.hidden_size, text.vocab_size)
    short = replace(run, source=replace(run.source, tokens=STEPS * ROWS, batch=ROWS))
    training = Training([short], noise, build=lambda *asked: _watched(build(*asked)))
    for _ in training:
        pass
    training.results()


def _watched(variant: Variant) -> Variant:
    """The variant with every term that is a plain function checked for what it returns."""
    terms = (
        replace(t, fn=t.fn if isinstance(t.fn, nn.Module) else _scalar(t.name, t.fn))
        for t in variant.objective.terms
    )
    return replace(variant, objective=Objective(*terms))


def _scalar(name: str, fn: TermFunction) -> TermFunction:
    def checked(step: Step) -> Tensor:
        value = fn(step)
        if not isinstance(value, Tensor) or value.ndim:
            what = (
                f"a tensor of shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise ValueError(
                f"the term {name!r} returned {what}; a term returns a scalar tensor: take its "
                ".mean() or .sum()"
            )
        return value

    return checked
