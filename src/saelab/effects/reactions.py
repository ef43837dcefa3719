"""What a model predicts after changes of its activations at single positions, beside what it
predicts without them.

Two ways to the same numbers. A model that keeps keys and values runs what precedes the position
once, and of every change only the positions that count (`lm.prefix`); any other reads whole
windows, cut behind the last position that counts.

Legend: C changes | M (window, position) pairs | n and c those of one forward | q positions that
count | D width | V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from saelab.types import LanguageModel, Windows

# in memory at a time; much larger ones cost more in fresh memory than they save in calls
MAX_BYTES = 1 << 25
# numbers that a forward holds per position, over the model's width: an MLP's layer and what
# surrounds it
WIDTHS = 8
SMALLEST = -100.0  # log-probability under which a token counts as impossible


@dataclass(frozen=True)
class Text:
    """A text as interventions see it: its kept positions, and how any window is read again."""

    lm: LanguageModel
    # windows [n], length T -> x [n, T, D] and the model's state
    read: Callable[[Tensor, int], tuple[Tensor, Any]]
    window: Tensor  # [N]
    position: Tensor  # [N] in the window
    context: int  # positions per window

    def __post_init__(self) -> None:
        check_model(self.lm)


def check_model(lm: object) -> None:
    """Raise `TypeError` for what is no language model: a dictionary alone has no effects."""
    if not isinstance(lm, LanguageModel):
        raise TypeError(
            f"{type(lm).__name__} is no language model (capture, resume, loss): an effect is what "
            "a change does to a "
            "model's predictions, and a dictionary alone predicts nothing"
        )


def captured_text(lm: LanguageModel, windows: Sequence[Windows]) -> Text:
    """The kept positions of captured windows; they are captured again when they are changed."""
    check_model(lm)
    tokens = torch.cat([w.tokens for w in windows])  # [W, T]
    window, position = torch.cat([w.keep.cpu() for w in windows]).nonzero(as_tuple=True)
    read = lambda rows, length: lm.capture(tokens[rows.to(tokens.device), :length])  # noqa: E731
    return Text(lm, read, window, position, tokens.shape[1])


@runtime_checkable
class Splits(LanguageModel, Protocol):
    """A model that can run what precedes a position once."""

    def splits(self) -> bool:
        """Whether it does so with the numbers of its own forward."""
        ...

    def tail(self, x: Tensor, state: Any, at: int) -> Callable[[Tensor], Tensor]:
        """`resume` of captured windows from position `at` on, for any number of their versions."""
        ...


@dataclass(frozen=True)
class Reaction:
    """Log-probabilities of n pairs, clean and after c changes."""

    pairs: Tensor  # [n] which of the M
    changes: Tensor  # [c] which of the C
    clean: Tensor  # [n, q, V]; entry 0 is the changed position itself
    changed: Tensor  # [c, n, q, V]
    inside: Tensor  # [n, q] whether the window has that position


@torch.no_grad()
def reactions(
    text: Text, rows: Tensor, delta: Tensor, following: int, max_bytes: int = MAX_BYTES
) -> Iterator[Reaction]:
    """Add `delta [C, M, D]` at the positions `rows [M]` of `text`, one pair and change at a time,
    the rest as it is.

    Predictions of that position and the next `following` are given, in pieces of about `max_bytes`;
    every pair and change is in one of them. Pairs share forwards by position, in falling order.
    """
    order = text.position[rows].argsort(descending=True, stable=True)
    if isinstance(text.lm, Splits) and text.lm.splits():
        yield from _split(text, text.lm, rows, delta, order, following, max_bytes)
    else:
        yield from _whole(text, rows, delta, order, following, max_bytes)


def _split(
    text: Text,
    lm: Splits,
    rows: Tensor,
    delta: Tensor,
    order: Tensor,
    following: int,
    max_bytes: int,
) -> Iterator[Reaction]:
    """Windows split at the position, those of one position together."""
    window, position = text.window[rows], text.position[rows]
    vocabulary = vocabulary_of(text)
    for group in order.split(position[order].unique_consecutive(return_counts=True)[1].tolist()):
        at = int(position[group[0]])
        length = min(text.context, at + following + 1)
        most = _at_most(max_bytes, (length - at) * max(vocabulary, WIDTHS * lm.d_in))
        for pairs in group.split(min(most, _at_most(max_bytes, length * WIDTHS * lm.d_in))):
            x, state = text.read(window[pairs], length)
            tail, x = lm.tail(x, state, at), x[:, at:]  # [n, q, D]
            for changes in torch.arange(len(delta)).split(max(1, most // len(pairs) - 1)):
                versions = x.repeat(1 + len(changes), 1, 1, 1)  # the first one is left as it is
                versions[1:, :, 0] += delta[changes.unsqueeze(1), pairs].to(x)
                log_p = _log_p(tail(versions.flatten(0, 1))).unflatten(0, versions.shape[:2])
                yield Reaction(
                    pairs, changes, log_p[0], log_p[1:], torch.ones(x.shape[:2], dtype=torch.bool)
                )


def _whole(
    text: Text, rows: Tensor, delta: Tensor, order: Tensor, following: int, max_bytes: int
) -> Iterator[Reaction]:
    """Whole windows of similar positions together, one change at a time."""
    window, position = text.window[rows], text.position[rows]
    vocabulary, done = vocabulary_of(text), 0
    while done < len(order):
        length = min(text.context, int(position[order[done]]) + following + 1)
        pairs = order[done:]
        needed = ((length - position[pairs]) * vocabulary).clamp(min=WIDTHS * length * text.lm.d_in)
        # clean and changed, in float32
        fits = 2 * 4 * needed * torch.arange(1, len(pairs) + 1) <= max_bytes
        pairs = pairs[: max(1, int(fits.sum()))]
        since = int(position[pairs[-1]])  # the first position whose predictions count
        x, state = text.read(window[pairs], length)  # [n, length, D]
        row, place = torch.arange(len(x), device=x.device), position[pairs].to(x.device)
        counted = place.unsqueeze(1) + torch.arange(following + 1, device=x.device)  # [n, q]
        inside, counted = counted < length, counted.clamp(max=length - 1) - since
        read = lambda x, state=state, row=row, counted=counted, since=since: _log_p(  # noqa: E731
            text.lm.resume(x, state, since)[row.unsqueeze(1), counted]
        )
        clean = read(x)
        for change, amount in enumerate(delta[:, pairs]):
            changed = x.clone()
            changed[row, place] += amount.to(x)
            yield Reaction(
                pairs, torch.tensor([change]), clean, read(changed).unsqueeze(0), inside.cpu()
            )
        done += len(pairs)


def vocabulary_of(text: Text) -> int:
    """Size V of the model's vocabulary."""
    return text.lm.resume(*text.read(text.window[:1], 1)).shape[-1]


def _at_most(max_bytes: int, numbers: int) -> int:
    """Rows of so many numbers, clean and changed, in float32."""
    return max(1, max_bytes // (2 * 4 * numbers))


def _log_p(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).clamp(min=SMALLEST)
