"""Which next tokens a concept decides, and at which positions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.lm.labels import Concept, TokenLabels

RATIO = 4.0  # P(next | concept) / P(next | not) from which a token counts as decided
MIN_NEXT = 20  # times it follows the concept in the training files
MIN_FILES = 3  # training files in which it does, and test files with a decided position
MIN_DECIDED = 30  # decided positions on the test files
SHOWN = 6  # tokens named in tables


@dataclass(frozen=True, eq=False)
class Question:
    """A concept, the tokens it decides, and the test positions that it is asked about."""

    concept: Concept
    members: Tensor  # [m] token ids, those that follow it most often first
    shown: tuple[str, ...]  # the first of them as text
    n_decided: int  # decided test positions, drawn or not
    decided: Tensor  # [n] drawn ones: with the concept, and one of the tokens next
    elsewhere: Tensor  # [n'] with the concept, and another token next
    without: Tensor  # [n'] without the concept


@dataclass(frozen=True, eq=False)
class TestTokens:
    """The labelled positions of the test files, in the order of the text."""

    row: Tensor  # [n] position in the text
    following: Tensor  # [n] id of the next token, -1 at the end of a document
    file: Tensor  # [n]

    def question(
        self, concept: Concept, members: Tensor, holds: Tensor, *, positions: int, decode: Callable[[list[int]], list[str]]
    ) -> Question | str:
        """The question about a concept that `holds [n]`, or why there is none."""
        if len(members) == 0:
            return "it decides no next token"
        inside = torch.isin(self.following, members)
        decided = holds & inside
        n, n_files = int(decided.sum()), len(self.file[decided].unique())
        if n < MIN_DECIDED or n_files < MIN_FILES:
            return f"{n} decided positions in {n_files} test files, fewer than {MIN_DECIDED} in {MIN_FILES}"
        rest = holds & ~inside & (self.following >= 0)
        drawn = (
            _even(self.row[mask], k) for mask, k in ((decided, positions), (rest, positions // 2), (~holds, positions // 2))
        )
        return Question(concept, members, tuple(decode(members[:SHOWN].tolist())), n, *drawn)


def next_tokens(labels: TokenLabels) -> Tensor:
    """Id of the token after each labelled one `[N]`, -1 at the end of a document."""
    following = torch.full((len(labels.tokens),), -1)
    same = labels.doc[1:] == labels.doc[:-1]
    following[:-1][same] = labels.tokens[1:][same].long()
    return following


def decided_tokens(following: Tensor, holds: Tensor, file: Tensor) -> Tensor:
    """Next tokens that a concept decides `[m]`, those that follow it most often first.

    From next tokens `[N]` (-1: none), whether the concept holds `[N]`, and files `[N]`. A token is decided when it follows
    the concept 20 times and in 3 files, and P(next | concept) / P(next | not) >= 4, one being added to what follows
    without it, so that a token never seen there needs a count too.
    """
    there = following >= 0
    following, holds, file = following[there], holds[there], file[there]
    size = int(following.max()) + 1 if len(following) else 0
    on, off = (following[mask].bincount(minlength=size) for mask in (holds, ~holds))
    pairs = (following[holds] * (int(file.max()) + 1) + file[holds]).unique() if bool(holds.any()) else following[:0]
    in_files = (pairs // (int(file.max()) + 1)).bincount(minlength=size) if len(pairs) else on
    ratio = on / on.sum().clamp(min=1) * (off.sum() + 1) / (off + 1)
    members = ((on >= MIN_NEXT) & (in_files >= MIN_FILES) & (ratio >= RATIO)).nonzero().squeeze(1)
    return members[on[members].argsort(descending=True, stable=True)]


def _even(rows: Tensor, n: int) -> Tensor:
    """Up to n rows, evenly spaced."""
    n = min(n, len(rows))
    return rows[torch.arange(n) * len(rows) // max(n, 1)]
