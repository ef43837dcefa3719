"""A language model of random matrices and dictionaries of a few lines: evaluations against closed
forms, no download.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saelab.ground.held_out import HeldOut
from saelab.runs import Source
from saelab.testing.fakes import FakeModel
from saelab.types import Hook, Structure, Windows

D, V, BOS = 6, 11, 0


class ToyLM(FakeModel):
    """x = table[token]; logits = tanh(x + causal mean of x) @ unembedding, times `sharpness`.
    Activations scale by `unit`.
    """

    def __init__(self, *, unit: float = 1.0, sharpness: float = 2.0):
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(V, D, generator=generator) + 0.7  # a mean away from 0
        self.out = torch.randn(D, V, generator=generator)
        self.unit, self.sharpness = unit, sharpness
        super().__init__(Hook(1), D, self._embedded, self._logits)

    def _embedded(self, tokens: Tensor) -> Tensor:
        # tokens differ by position
        noise = torch.sin(torch.arange(tokens.shape[1] * D).view(-1, D) * 1.7)
        return self.unit * (self.table[tokens] + 0.3 * noise)

    def _logits(self, x: Tensor, since: int) -> Tensor:
        x = x / self.unit
        before = x.cumsum(1) / torch.arange(1, x.shape[1] + 1).view(-1, 1)
        return self.sharpness * torch.tanh(x + before)[:, since:] @ self.out

    def decode(self, ids: list[int]) -> list[str]:
        return [f"<{t}>" for t in ids]

    def unembed(self) -> Tensor:
        return self.out


def windows(
    lm: ToyLM, *, n: int = 20, context: int = 9, per_batch: int = 8, docs: int = 7
) -> list[tuple[Windows, Any]]:
    """Windows of the model's own text after a BOS, `docs` documents in turn, as LM batches of at
    most `per_batch`.
    """
    generator = torch.Generator().manual_seed(1)
    tokens = torch.full((n, context), BOS)
    for t in range(1, context):
        logits = lm.resume(*lm.capture(tokens))[:, t - 1, 1:]  # never BOS again
        tokens[:, t] = 1 + torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    doc = (torch.arange(n) * docs // n).unsqueeze(1).expand(n, context).contiguous()
    pos = torch.arange(context).expand(n, context)
    batches = []
    for at in range(0, n, per_batch):
        part = slice(at, at + per_batch)
        x, state = lm.capture(tokens[part])
        batches.append((Windows(x, tokens[part], doc[part], pos[part], tokens[part] != BOS), state))
    return batches


def held(lm: Any, batches: Sequence[tuple[Windows, Any]]) -> HeldOut:
    """Windows and their state as evaluations take them."""
    return HeldOut(Source(), lm, batches)


class ToyDictionary:
    """z = relu(x @ W_enc - threshold), x_hat = z @ W_dec + b_dec."""

    hook: Hook | None = None

    def __init__(
        self, W_enc: Tensor, W_dec: Tensor, *, b_dec: Tensor | None = None, threshold: float = 0.0
    ):
        self.W_enc, self.directions = W_enc, W_dec
        self.b_dec = torch.zeros(W_dec.shape[1]) if b_dec is None else b_dec
        self.threshold = threshold

    @property
    def structure(self) -> Structure:
        return Structure(encoder=self.W_enc)

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.W_enc - self.threshold)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.directions + self.b_dec


def identity() -> ToyDictionary:
    """relu(x) - relu(-x) = x, with 2 D latents."""
    both = torch.cat([torch.eye(D), -torch.eye(D)])  # [L, D]
    return ToyDictionary(both.T, both)


def zero() -> ToyDictionary:
    """Never fires, reconstructs 0."""
    return ToyDictionary(torch.zeros(D, 4), torch.zeros(4, D))


def constant(value: Tensor) -> ToyDictionary:
    """Never fires, reconstructs `value [D]`."""
    return ToyDictionary(torch.zeros(D, 4), torch.zeros(4, D), b_dec=value)


def random_dictionary(n_latents: int = 16) -> ToyDictionary:
    """Random directions of unequal norms, sparse codes."""
    generator = torch.Generator().manual_seed(2)
    W_dec = torch.randn(n_latents, D, generator=generator)
    return ToyDictionary(torch.randn(D, n_latents, generator=generator) * 0.5, W_dec, threshold=0.4)
