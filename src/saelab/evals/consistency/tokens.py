"""Which next tokens a concept decides, and at which positions."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saelab.evals.common.halves import Halves

if TYPE_CHECKING:
    from saelab.text.labels.labelled import Concept, TokenLabels

RATIO = 4.0  # P(next | concept) / P(next | not) from which a token counts as decided
MIN_NEXT = 20  # times it follows the concept in the training files
MIN_FILES = 3  # training files in which it does, and test files with a decided position
MIN_DECIDED = 30  # decided positions on the test files
MAX_CONCEPTS = 16
SHOWN = 6  # tokens named in tables


@dataclass(frozen=True, eq=False)
class Question:
    """A concept, the tokens it decides, and the test positions that it is asked about."""

    concept: "Concept"
    members: Tensor  # [m] token ids, those that follow it most often first
    shown: tuple[str, ...]  # the first of them as text
    n_decided: int  # decided test positions, drawn or not
    decided: Tensor  # [n] drawn ones: with the concept, and one of the tokens next
    elsewhere: Tensor  # [n'] with the concept, and another token next
    without: Tensor  # [n'] without the concept


def questions_of(
    labels: "TokenLabels",
    halves: Halves,
    concepts: Sequence["Concept"],
    *,
    positions: int,
    decode: Callable[[list[int]], list[str]],
) -> tuple[list[Question], dict[str, str]]:
    """A question for each concept that decides tokens, at most 16, and why the other concepts have
    none.

    What is decided is counted on all tokens of the training files, in windows or not. Of each
    family in turn the concept with the most decided positions is taken. Raises `ValueError` when no
    concept is left.
    """
    following, file, rule = (
        next_tokens(labels),
        labels.file,
        halves.tokens_of_training_files(labels),
    )
    rows, place = halves.test, halves.place[halves.test]
    questions: list[Question] = []
    skipped: dict[str, str] = {}
    for concept in concepts:
        holds = labels.holds(concept) == 1
        members = decided_tokens(following[rule], holds[rule], file[rule])
        if not len(members):
            skipped[concept.name] = "it decides no next token"
            continue
        here, inside = holds[place], torch.isin(following[place], members)
        decided = here & inside
        n, n_files = int(decided.sum()), len(file[place][decided].unique())
        if n < MIN_DECIDED or n_files < MIN_FILES:
            skipped[concept.name] = (
                f"{n} decided positions in {n_files} test files, fewer than {MIN_DECIDED} in "
                f"{MIN_FILES}"
            )
            continue
        elsewhere = here & ~inside & (following[place] >= 0)
        question = Question(
            concept,
            members,
            tuple(decode(members[:SHOWN].tolist())),
            n,
            _even(rows[decided], positions),
            _even(rows[elsewhere], positions // 2),
            _even(rows[~here], positions // 2),
        )
        questions.append(question)
    if not questions:
        few = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise ValueError(f"no concept decides tokens often enough ({few}); evaluate more windows")
    ranked = _by_turns(questions)
    skipped |= {
        question.concept.name: f"{MAX_CONCEPTS} other concepts are asked about"
        for question in ranked[MAX_CONCEPTS:]
    }
    return ranked[:MAX_CONCEPTS], skipped


def _by_turns(questions: Sequence[Question]) -> list[Question]:
    """First the question with the most decided positions of every family, then the second ones, and
    so on.
    """
    asked: Counter[str] = Counter()
    turns: list[tuple[int, Question]] = []
    for question in sorted(questions, key=lambda q: -q.n_decided):
        asked[question.concept.family] += 1
        turns.append((asked[question.concept.family], question))
    return [question for _, question in sorted(turns, key=lambda turn: turn[0])]


def next_tokens(labels: "TokenLabels") -> Tensor:
    """Id of the token after each labelled one `[N]`, -1 at the end of a document."""
    following = torch.full((len(labels.tokens),), -1)
    same = labels.doc[1:] == labels.doc[:-1]
    following[:-1][same] = labels.tokens[1:][same].long()
    return following


def decided_tokens(following: Tensor, holds: Tensor, file: Tensor) -> Tensor:
    """Next tokens that a concept decides `[m]`, those that follow it most often first.

    From next tokens `[N]` (-1: none), whether the concept holds `[N]`, and files `[N]`. A token is
    decided when it follows the concept 20 times and in 3 files, and P(next | concept) / P(next |
    not) >= 4, one being added to what follows without it, so that a token never seen there needs a
    count too.
    """
    followed = following >= 0
    following, holds, file = following[followed], holds[followed], file[followed]
    if not holds.any():
        return following[:0]
    size, n_files = int(following.max()) + 1, int(file.max()) + 1
    on = following[holds].bincount(minlength=size)
    off = following[~holds].bincount(minlength=size)
    pairs = (following[holds] * n_files + file[holds]).unique()
    in_files = (pairs // n_files).bincount(minlength=size)
    ratio = on / on.sum().clamp(min=1) * (off.sum() + 1) / (off + 1)
    members = ((on >= MIN_NEXT) & (in_files >= MIN_FILES) & (ratio >= RATIO)).nonzero().squeeze(1)
    return members[on[members].argsort(descending=True, stable=True)]


def _even(rows: Tensor, n: int) -> Tensor:
    """Up to n rows, evenly spaced."""
    n = min(n, len(rows))
    return rows[torch.arange(n) * len(rows) // max(n, 1)]
