"""Which latent is changed where: sparse codes of a text, and (latent, position) pairs drawn from
them.

Legend: L latents | N kept positions, in the order of the text | A active codes | M pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_CONTEXTS = 30  # a latent that is active on fewer positions is dead or too rare to be measured


@dataclass(frozen=True)
class Codes:
    """The active codes of all latents, latent by latent: those of latent j are entries `start[j]`
    to `start[j + 1]`.
    """

    start: Tensor  # [L + 1]
    row: Tensor  # [A] position, ascending within a latent
    value: Tensor  # [A] code, > 0
    n: int  # positions N

    @property
    def count(self) -> Tensor:
        """Positions on which each latent is active `[L]`."""
        return self.start.diff()

    @property
    def frequency(self) -> Tensor:
        """Share of the positions on which each latent is active `[L]`."""
        return self.count / self.n

    @property
    def mean(self) -> Tensor:
        """Mean code of each latent over all positions, silent ones included `[L]`."""
        return (self._sums(self.value.double()) / self.n).float()

    @property
    def mean_active(self) -> Tensor:
        """Mean code of each latent where it is active `[L]`, 0 for a latent that never is."""
        return (self._sums(self.value.double()) / self.count.clamp(min=1)).float()

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each latent's active codes `[L]`, 0 for fewer than two."""
        apart = self.value.double() - self.mean_active.double()[self.latent]
        return (self._sums(apart**2) / (self.count - 1).clamp(min=1)).sqrt().float()

    @property
    def latent(self) -> Tensor:
        """Which latent each entry belongs to `[A]`."""
        return torch.repeat_interleave(self.count)

    def of(self, latent: int) -> tuple[Tensor, Tensor]:
        """Positions on which a latent is active, ascending, and its codes there."""
        part = slice(int(self.start[latent]), int(self.start[latent + 1]))
        return self.row[part], self.value[part]

    def at(self, latent: Tensor, row: Tensor) -> Tensor:
        """Codes `[M]` of latents `[M]` on positions `[M]`, 0 where they are silent."""
        keys = self.latent * self.n + self.row  # ascending
        wanted = latent * self.n + row
        place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        return (
            self.value[place].where(keys[place] == wanted, 0.0)
            if len(keys)
            else torch.zeros(len(wanted))
        )

    def _sums(self, values: Tensor) -> Tensor:
        return torch.zeros(len(self.count), dtype=torch.double).index_add_(0, self.latent, values)


def sparse_codes(parts: Iterable[Tensor], n_latents: int) -> Codes:
    """The active entries of dense codes `[n, L]`, given a few positions at a time and in order."""
    rows, latents, values, n = [], [], [], 0
    for z in parts:
        row, latent = z.nonzero(as_tuple=True)
        rows.append(row.cpu() + n)
        latents.append(latent.cpu())
        values.append(z[row, latent].float().cpu())
        n += len(z)
    if n == 0:
        raise ValueError(
            "no position is left to intervene on: every window is empty or masked; give a longer "
            "text"
        )
    latent, order = torch.cat(latents).sort(stable=True)
    start = torch.zeros(n_latents + 1, dtype=torch.long)
    start[1:] = latent.bincount(minlength=n_latents).cumsum(0)
    return Codes(start, torch.cat(rows)[order], torch.cat(values)[order], n)


@dataclass(frozen=True)
class Pairs:
    """Interventions: a latent, a position and the code there; sorted by latent, then position."""

    latent: Tensor  # [M]
    row: Tensor  # [M]
    code: Tensor  # [M]


def check_latents(codes: Codes, latents: Tensor) -> Tensor:
    """The latents `[m]`, once they are known to exist, to differ and to be active on at least 30
    positions.

    Raises `ValueError` otherwise: an intervention on a dead latent changes nothing, and its
    "effect" of 0 is no finding.
    """
    latents, n = torch.as_tensor(latents, dtype=torch.long), len(codes.count)
    wrong = latents[(latents < 0) | (latents >= n)].tolist()
    if wrong:
        raise ValueError(
            f"latents {_few(wrong)} do not exist; the dictionary has latents 0 to {n - 1}"
        )
    if len(latents) != len(latents.unique()):
        raise ValueError(
            f"{len(latents) - len(latents.unique())} latents are given more than once; give each "
            "once"
        )
    rare = latents[codes.count[latents] < MIN_CONTEXTS].tolist()
    if rare:
        raise ValueError(
            f"latents {_few(rare)} are active on fewer than {MIN_CONTEXTS} of {codes.n:,} "
            "positions (dead or rare); "
            "leave them out or give more text"
        )
    return latents


def active_pairs(codes: Codes, latents: Tensor, contexts: int, generator: torch.Generator) -> Pairs:
    """Up to `contexts` positions on which each latent is active, one drawn from each of equal parts
    of its text.

    The parts stratify over windows and documents, whose order is that of the positions.
    """
    counts = codes.count[latents]
    drawn = [_strata(int(count), contexts, generator) for count in counts]
    entry = torch.cat([codes.start[j] + d for j, d in zip(latents, drawn, strict=True)])
    latent = torch.repeat_interleave(latents, torch.tensor([len(d) for d in drawn]))
    return Pairs(latent, codes.row[entry], codes.value[entry])


def silent_pairs(codes: Codes, latents: Tensor, contexts: int, generator: torch.Generator) -> Pairs:
    """The same on positions on which the latent is silent; none for a latent that never is."""
    rows, lengths = [], []
    for j in latents.tolist():
        active, _ = codes.of(j)
        drawn = _strata(codes.n - len(active), contexts, generator)
        # The k-th silent position lies behind all active ones with fewer than k + 1 silent
        # positions before them.
        before = torch.searchsorted(active - torch.arange(len(active)), drawn, right=True)
        rows.append(drawn + before)
        lengths.append(len(drawn))
    latent = torch.repeat_interleave(latents, torch.tensor(lengths))
    return Pairs(latent, torch.cat(rows), torch.zeros(len(latent)))


def _strata(count: int, contexts: int, generator: torch.Generator) -> Tensor:
    """One number below `count` from each of `contexts` equal parts, ascending; all of them where
    there are no more.
    """
    n = min(count, contexts)
    edges = torch.arange(n + 1) * count // max(n, 1)
    return (
        edges[:-1] + (torch.rand(n, generator=generator, dtype=torch.double) * edges.diff()).long()
    )


def _few(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
