"""Sets made of labelled tokens: splits by file, spans, paired factors, and `types.Labelled` from
any of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.text.labels.labelled import TokenLabels
from saelab.types import Labelled


@dataclass(frozen=True, eq=False)
class Spans:
    """Runs of neighbouring tokens of one text with the same known label: span-level items."""

    start: Tensor  # [S] number of the first token
    end: Tensor  # [S] number after the last token
    value: Tensor  # [S] number of the label's value
    doc: Tensor  # [S] number of the text

    def mean(self, x: Tensor) -> Tensor:
        """Mean over each span `[S, D]` of token rows `x [N, D]`."""
        total = torch.cat([x.new_zeros(1, x.shape[1], dtype=torch.double), x.double().cumsum(0)])
        return ((total[self.end] - total[self.start]) / (self.end - self.start).unsqueeze(1)).to(
            x.dtype
        )


def split_by_file(file: Tensor, *, seed: int = 0) -> Tensor:
    """Whether a token is for training, `[N]` bool, from file numbers `[N]`: whole files, about half
    of the tokens each.

    Files come in random order; each goes to the side that has fewer tokens so far. Raises
    `ValueError` for one file.
    """
    return parts_by_file(file, (1, 1), seed=seed) == 0


def parts_by_file(file: Tensor, shares: tuple[float, ...], *, seed: int = 0) -> Tensor:
    """Number of the part `[N]` of every token, from file numbers `[N]`: whole files, about as many
    tokens in each part as its share says.

    Files come in random order; each goes to the part that has fewest tokens so far for its share.
    Raises `ValueError` for fewer files than parts.
    """
    files, where, size = file.unique(return_inverse=True, return_counts=True)
    if len(files) < len(shares):
        raise ValueError(
            f"{len(files)} file cannot be split into training and test files; give at least "
            f"{len(shares)}"
        )
    part = torch.zeros(len(files), dtype=torch.long)
    filled = [0.0] * len(shares)
    for i in torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist():
        part[i] = filled.index(min(filled))
        filled[int(part[i])] += int(size[i]) / shares[int(part[i])]
    return part[where]


def spans(labels: TokenLabels, family: str) -> Spans:
    """The runs of equal labels of one family, never across texts; unknown labels belong to none.

    Raises `ValueError` for an unknown family.
    """
    value = labels.of(family).long()
    new = torch.ones(len(value), dtype=torch.bool)
    new[1:] = (value[1:] != value[:-1]) | (labels.doc[1:] != labels.doc[:-1])
    start = new.nonzero().squeeze(1)
    end = torch.cat([start[1:], torch.tensor([len(value)])])
    labelled = value[start] >= 0
    start, end = start[labelled], end[labelled]
    return Spans(start, end, value[start], labels.doc[start])


def cells(labels: TokenLabels, first: str, second: str) -> Tensor:
    """Tokens in every pair of values of two families `[A, B]`: how the two factors go together."""
    a, b = labels.of(first).long(), labels.of(second).long()
    n_a, n_b = (len(labels.families[labels.column(name)].values) for name in (first, second))
    both = (a >= 0) & (b >= 0)
    return (a[both] * n_b + b[both]).bincount(minlength=n_a * n_b).view(n_a, n_b)


def balanced(first: Tensor, second: Tensor, *, seed: int = 0) -> Tensor:
    """Numbers of tokens, in order, with as many in each of the four cells of two binary factors
    `[N]` (-1 is left out).

    Raises `ValueError` when a cell is empty, saying which.
    """
    generator = torch.Generator().manual_seed(seed)
    quarters = [((first == i) & (second == j)).nonzero().squeeze(1) for i in (0, 1) for j in (0, 1)]
    smallest = min(map(len, quarters))
    if smallest == 0:
        empty = [f"({n // 2}, {n % 2})" for n, cell in enumerate(quarters) if len(cell) == 0]
        raise ValueError(
            f"no token has the two factors at {', '.join(empty)}: they cannot be balanced; choose "
            "another pair"
        )
    drawn = [cell[torch.randperm(len(cell), generator=generator)[:smallest]] for cell in quarters]
    return torch.cat(drawn).sort().values


def labelled(x: Tensor, labels: TokenLabels, families: tuple[str, ...]) -> Labelled:
    """Token rows `x [N, D]` with the columns of some families, one or a pair. Raises `ValueError`
    where sizes differ.
    """
    if len(x) != len(labels.values):
        raise ValueError(
            f"{len(x):,} activations for {len(labels.values):,} labelled tokens; give one for each"
        )
    return Labelled(x, torch.stack([labels.of(name).long() for name in families], 1), families)
