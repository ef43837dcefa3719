"""Which next tokens a concept decides, and at which positions."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.evals.concepts.measure import BY_FILE
from saelab.text.labels.labelled import Concept, TokenLabels, at_windows
from saelab.text.labels.sets import split_by_file
from saelab.text.windows import TokenWindows

RATIO = 4.0  # P(next | concept) / P(next | not) from which a token counts as decided
MIN_NEXT = 20  # times it follows the concept in the training files
MIN_FILES = 3  # training files in which it does, and test files with a decided position
MIN_DECIDED = 30  # decided positions on the test files
MAX_CONCEPTS = 16
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
class Halves:
    """The labelled positions of a text, split by file."""

    place: Tensor  # [N] number of each position among the labelled tokens
    file: Tensor  # [N] number of its file, -1 where a label is unknown
    train: Tensor  # [n] positions of the training files
    test: Tensor  # [n'] positions of the test files

    @property
    def rows(self) -> Tensor:
        """All of them, those for training first `[n + n']`."""
        return torch.cat([self.train, self.test])


def halves_of(labels: TokenLabels, windows: TokenWindows, keep: Tensor, *, seed: int) -> Halves:
    """The positions of the windows that are kept `[W, T]` and whose labels are all known, in two
    halves by file.

    Raises `ValueError` when the windows show another text than the labels, or there are fewer than
    two files.
    """
    place = at_windows(labels, windows)[keep]
    known = ((place >= 0) & fully_labelled(labels)[place.clamp(min=0)]).nonzero().squeeze(1)
    file = torch.full((len(place),), -1)
    file[known] = labels.file[place[known]]
    train = split_by_file(file[known], seed=seed)
    return Halves(place, file, known[train], known[~train])


def fully_labelled(labels: TokenLabels) -> Tensor:
    """Tokens `[tokens]` whose labels are all known, but for the families that name the file."""
    used = [i for i, family in enumerate(labels.families) if family.name not in BY_FILE]
    return (labels.values[:, used] >= 0).all(1)


def questions_of(
    labels: TokenLabels,
    halves: Halves,
    concepts: Sequence[Concept],
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
    following = next_tokens(labels)
    rule = fully_labelled(labels) & torch.isin(labels.file, halves.file[halves.train].unique())
    test = _TestTokens(halves.test, following[halves.place[halves.test]], halves.file[halves.test])
    questions: list[Question] = []
    skipped: dict[str, str] = {}
    for concept in concepts:
        holds = labels.holds(concept) == 1
        members = decided_tokens(following[rule], holds[rule], labels.file[rule])
        found = test.question(
            concept, members, holds[halves.place[halves.test]], positions=positions, decode=decode
        )
        if isinstance(found, Question):
            questions.append(found)
        else:
            skipped[concept.name] = found
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
    taken: Counter[str] = Counter()
    ranked: list[tuple[int, Question]] = []
    for question in sorted(questions, key=lambda q: -q.n_decided):
        taken[question.concept.family] += 1
        ranked.append((taken[question.concept.family], question))
    return [question for _, question in sorted(ranked, key=lambda pair: pair[0])]


@dataclass(frozen=True, eq=False)
class _TestTokens:
    """The labelled positions of the test files, in the order of the text."""

    row: Tensor  # [n] position in the text
    following: Tensor  # [n] id of the next token, -1 at the end of a document
    file: Tensor  # [n]

    def question(
        self,
        concept: Concept,
        members: Tensor,
        holds: Tensor,
        *,
        positions: int,
        decode: Callable[[list[int]], list[str]],
    ) -> Question | str:
        """The question about a concept that `holds [n]`, or why there is none."""
        if len(members) == 0:
            return "it decides no next token"
        inside = torch.isin(self.following, members)
        decided = holds & inside
        n, n_files = int(decided.sum()), len(self.file[decided].unique())
        if n < MIN_DECIDED or n_files < MIN_FILES:
            return (
                f"{n} decided positions in {n_files} test files, fewer than {MIN_DECIDED} in "
                f"{MIN_FILES}"
            )
        rest = holds & ~inside & (self.following >= 0)
        drawn = (
            _even(self.row[mask], k)
            for mask, k in ((decided, positions), (rest, positions // 2), (~holds, positions // 2))
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

    From next tokens `[N]` (-1: none), whether the concept holds `[N]`, and files `[N]`. A token is
    decided when it follows the concept 20 times and in 3 files, and P(next | concept) / P(next |
    not) >= 4, one being added to what follows without it, so that a token never seen there needs a
    count too.
    """
    there = following >= 0
    following, holds, file = following[there], holds[there], file[there]
    size = int(following.max()) + 1 if len(following) else 0
    on, off = (following[mask].bincount(minlength=size) for mask in (holds, ~holds))
    pairs = (
        (following[holds] * (int(file.max()) + 1) + file[holds]).unique()
        if bool(holds.any())
        else following[:0]
    )
    in_files = (pairs // (int(file.max()) + 1)).bincount(minlength=size) if len(pairs) else on
    ratio = on / on.sum().clamp(min=1) * (off.sum() + 1) / (off + 1)
    members = ((on >= MIN_NEXT) & (in_files >= MIN_FILES) & (ratio >= RATIO)).nonzero().squeeze(1)
    return members[on[members].argsort(descending=True, stable=True)]


def _even(rows: Tensor, n: int) -> Tensor:
    """Up to n rows, evenly spaced."""
    n = min(n, len(rows))
    return rows[torch.arange(n) * len(rows) // max(n, 1)]
