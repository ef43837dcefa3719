"""Effects of latents on a model's predictions, exact and estimated, and NCES = (E - C) / (E + C) of
them.

E is the mean effect of a latent over positions (`effects.intervene`), C that of random directions
of the activations' covariance, of the same length and on the same positions. NCES lies in [-1, 1]:
-1 inert, 0 no more causal than such a direction.

Estimate without a forward, from the gradient g of sampled labels: E = E[f^2 (d . g)^2] / 2 over the
positions on which the latent is active, C = E[f^2 g' S g / tr S] / 2, S the covariance with d
projected out. Both are what zero ablation does, to second order. Legend: L latents | m measured
ones | N positions | M pairs | G groups of positions | R
resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saelab.effects.intervene import FOLLOWING, ON_SILENT, changes, check_types, intervene
from saelab.effects.pairs import MIN_CONTEXTS, active_pairs, check_latents, silent_pairs
from saelab.effects.reactions import MAX_BYTES, Text
from saelab.evals.common.interventions import Latents

N_BOOT = 500  # resamples of a latent's contexts


def nces(effect: Tensor, control: Tensor) -> Tensor:
    """How much more a latent changes predictions than its control does: (E - C) / (E + C), in
    [-1, 1], NaN where both are 0.
    """
    return (effect - control) / (effect + control)


@dataclass(frozen=True)
class Sums:
    """Effects of L latents and of their controls, summed over positions by group of them; NaN for a
    latent that is not live.
    """

    own: Tensor  # [G, L] nats
    control: Tensor  # [G, L] nats
    count: Tensor  # [G, L] positions

    @property
    def effect(self) -> Tensor:
        """E of each latent `[L]`, NaN without positions."""
        return (self.own.sum(0) / self.count.sum(0)).float()

    @property
    def against(self) -> Tensor:
        """C of each latent `[L]`."""
        return (self.control.sum(0) / self.count.sum(0)).float()

    @property
    def nces(self) -> Tensor:
        """NCES of each latent `[L]`."""
        return nces(self.effect, self.against)


# Estimated ----------------------------------------------------------------------------------------


def estimate(latents: Latents, gradients: Tensor, covariance: Tensor, group: Tensor) -> Sums:
    """Effects of all live latents and of their controls, estimated without an intervention.

    From gradients `[K, N, D]` of K label samples; positions are in groups `[N]`, numbered from 0.
    """
    d, n_groups = latents.directions, int(group.max()) + 1
    spread = (gradients @ covariance * gradients).sum(-1)  # [K, N], g' Sigma g
    through = d @ covariance  # [L, D], Sigma d
    along = (through * d).sum(1)  # [L], d' Sigma d
    trace = covariance.trace() - along
    sums = torch.full((3, n_groups, len(d)), torch.nan, dtype=torch.double)
    for j in latents.live.tolist():
        rows, code = latents.codes.of(j)
        near = gradients[:, rows] @ torch.stack([d[j], through[j]], 1)  # [K, a, 2]
        first, second = near.unbind(-1)
        apart = spread[:, rows] - 2 * first * second + first**2 * along[j]  # of Sigma without d
        own = code**2 * first.square().mean(0) / 2  # [a]
        control = code**2 * apart.mean(0).clamp_min(0) / trace[j] / 2
        values = torch.stack([own, control, torch.ones(len(rows))]).double()
        sums[:, :, j] = torch.zeros(3, n_groups, dtype=torch.double).index_add_(
            1, group[rows], values
        )
    return Sums(*sums)


# Measured -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contexts:
    """What one type of change did, at every position (context) on which one of m latents was
    changed.
    """

    which: Tensor  # [M] number of the latent among the measured ones
    row: Tensor  # [M] position
    own: Tensor  # [M] nats
    control: Tensor  # [M] nats
    m: int

    def sums(self, group: Tensor) -> Sums:
        """Summed by the group `[N]` of the position."""
        return self._sums(group[self.row], int(group.max()) + 1)

    @cached_property
    def overall(self) -> Sums:
        """Summed over all contexts of a latent."""
        return self._sums(torch.zeros_like(self.row), 1)

    def _sums(self, group: Tensor, n_groups: int) -> Sums:
        values = torch.stack([self.own, self.control, torch.ones(len(self.own))]).double()
        sums = torch.zeros(3, n_groups * self.m, dtype=torch.double)
        sums.index_add_(1, group * self.m + self.which, values)
        return Sums(*sums.view(3, n_groups, self.m))

    def intervals(self) -> tuple[Tensor, Tensor]:
        """95 % percentile interval `[m]` of each latent's NCES over its contexts; NaN with fewer
        than 30 of them.
        """
        generator = torch.Generator().manual_seed(0)
        count = self.which.bincount(minlength=self.m)
        low, high = torch.full((self.m,), torch.nan), torch.full((self.m,), torch.nan)
        # latents with equally many share the resamples
        for n in count[count >= MIN_CONTEXTS].unique().tolist():
            members = (count == n).nonzero().squeeze(1)
            pair = torch.isin(self.which, members)  # pairs are sorted by latent
            both = torch.stack([self.own[pair], self.control[pair]]).view(2, len(members), n)
            drawn = torch.randint(n, (N_BOOT, n), generator=generator)
            weights = torch.zeros(N_BOOT, n).scatter_add_(1, drawn, torch.ones(N_BOOT, n))
            resampled = nces(*(both @ weights.T))  # [members, R]
            low[members], high[members] = resampled.quantile(torch.tensor([0.025, 0.975]), dim=1)
        return low, high


@dataclass(frozen=True)
class Measured:
    """What was measured of a dictionary."""

    latents: Latents
    estimate: Sums  # of all live latents, by group of positions
    by_type: Mapping[str, Contexts]  # type of change -> effects of the measured latents
    latent: Tensor  # [m] which ones these are
    weight: Tensor  # [m] how many live latents each stands for

    @property
    def activity(self) -> Tensor:
        """Share of positions `[m]` on which a measured latent is active, times its weight."""
        return self.weight * self.latents.codes.frequency[self.latent]


@dataclass(frozen=True)
class Budget:
    """How much is measured, and on what: the numbers of an exact pass."""

    types: Sequence[str]
    contexts: int  # positions per latent and type
    draws: int  # control directions per position
    following: int = FOLLOWING  # positions after the changed one
    max_bytes: int = MAX_BYTES
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self.types)
        if self.contexts < MIN_CONTEXTS:
            raise ValueError(
                f"{self.contexts} contexts per latent; give at least {MIN_CONTEXTS}, or there is "
                "no interval"
            )
        if self.draws < 1:
            raise ValueError(f"{self.draws} control draws; NCES compares with at least 1")


def effects_by_type(
    text: Text, latents: Latents, chosen: Tensor, covariance: Tensor, budget: Budget
) -> dict[str, Contexts]:
    """Effects of the `chosen` latents `[m]` under every type. Raises `ValueError` for latents that
    cannot be measured.
    """
    chosen = check_latents(latents.codes, chosen)
    number = torch.zeros(len(latents.directions), dtype=torch.long)
    number[chosen] = torch.arange(len(chosen))
    contexts: dict[str, Contexts] = {}
    for silent, draw in enumerate((active_pairs, silent_pairs)):
        types = [name for name in budget.types if (name in ON_SILENT) == silent]
        if not types:
            continue
        seed = 2 * budget.seed + silent
        generator = torch.Generator().manual_seed(seed)
        pairs = draw(latents.codes, chosen, budget.contexts, generator)
        effects = intervene(
            text,
            latents.directions,
            pairs,
            changes(types, latents.codes, pairs, generator),
            covariance,
            draws=budget.draws,
            seed=seed,
            following=budget.following,
            max_bytes=budget.max_bytes,
        )
        which = number[pairs.latent]
        for name, own, control in zip(types, effects.own, effects.control, strict=True):
            contexts[name] = Contexts(which, pairs.row, own, control, len(chosen))
    return {name: contexts[name] for name in budget.types}
