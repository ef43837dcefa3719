"""Effects of latents on a model's predictions, exact and estimated, and NCES = (E - C) / (E + C) of
them.

E is the mean effect of a latent over positions (`effects.intervene`), C that of random directions
of the activations' covariance, of the same length and on the same positions. NCES lies in [-1, 1]:
-1 inert, 0 no more causal than such a direction.

Estimate without a forward, from the gradient g of sampled labels: E = E[f^2 (d . g)^2] / 2 over the
positions on which the latent is active, C = E[f^2 g' S g / tr S] / 2, S the covariance with d
projected out. Both are what zero ablation does, to second order. Legend: L latents | m measured
ones | N positions | M pairs | C documents | R resamples.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from saelab.effects.intervene import FOLLOWING, ON_SILENT, changes, check_types, intervene
from saelab.effects.pairs import (
    MIN_CONTEXTS,
    Codes,
    Pairs,
    active_pairs,
    check_latents,
    silent_pairs,
    sparse_codes,
)
from saelab.effects.reactions import MAX_BYTES, Text
from saelab.evals.common.fold import decoder_norms
from saelab.types import Dictionary

N_BOOT = 500  # resamples of a latent's contexts
MIN_RANKED = 5  # latents for a rank correlation


@dataclass(frozen=True)
class Latents:
    """A dictionary on a text: codes in units of the activation's norm, and unit directions."""

    codes: Codes
    directions: Tensor  # [L, D], zero where the decoder row is

    @property
    def live(self) -> Tensor:
        """Latents that can be measured: active on at least 30 positions, with a direction."""
        return (
            ((self.codes.count >= MIN_CONTEXTS) & (self.directions.norm(dim=1) > 0))
            .nonzero()
            .squeeze(1)
        )

    @property
    def dead(self) -> int:
        """Latents that are never active."""
        return int((self.codes.count == 0).sum())


@torch.no_grad()
def latents_of(dictionary: Dictionary, parts: Iterable[Tensor]) -> Latents:
    """A dictionary and its codes `[n, L]`, a few positions at a time: the decoder's norms are
    folded into the codes.
    """
    norms = decoder_norms(dictionary)
    codes = sparse_codes((z.detach() * norms for z in parts), len(norms))
    return Latents(codes, (dictionary.directions.detach().float() / norms.unsqueeze(1)).cpu())


def nces(effect: Tensor, control: Tensor) -> Tensor:
    """(E - C) / (E + C), NaN where both are 0."""
    return (effect - control) / (effect + control)


def rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation over the latents where both `[m]` are finite; None with fewer
    than 5, or without spread.
    """
    from scipy.stats import rankdata

    both = a.isfinite() & b.isfinite()
    if int(both.sum()) < MIN_RANKED:
        return None
    ranks = torch.as_tensor(rankdata(torch.stack([a[both], b[both]]).double().numpy(), axis=1))
    value = float(torch.corrcoef(ranks)[0, 1])
    return value if isfinite(value) else None


# Estimated ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """Fisher estimates, summed over a latent's active positions and split by groups of them.
    Latents not live have NaN.
    """

    effect: Tensor  # [G, L]
    control: Tensor  # [G, L]
    count: Tensor  # [G, L]

    @property
    def mean_effect(self) -> Tensor:
        """E of each latent `[L]`, nats."""
        return (self.effect.sum(0) / self.count.sum(0)).float()

    @property
    def mean_control(self) -> Tensor:
        """C of each latent `[L]`, nats."""
        return (self.control.sum(0) / self.count.sum(0)).float()


def estimate(latents: Latents, gradients: Tensor, covariance: Tensor, group: Tensor) -> Estimate:
    """Fisher estimates from gradients `[K, N, D]` of K label samples, positions being in groups
    `[N]`, numbered from 0.
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
    return Estimate(*sums)


# Exact --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contexts:
    """Effects of one type on the contexts of m latents."""

    which: Tensor  # [M] number of the latent among the measured ones
    row: Tensor  # [M] position
    own: Tensor  # [M] nats
    control: Tensor  # [M] nats
    m: int

    def sums(self, group: Tensor) -> Tensor:
        """Own effects, control effects and contexts of each latent, summed by the group `[N]` of
        the position, `[G, 3 m]`.
        """
        values = torch.stack([self.own, self.control, torch.ones(len(self.own))]).double()
        sums = torch.zeros(3, (int(group.max()) + 1) * self.m, dtype=torch.double)
        sums.index_add_(1, group[self.row] * self.m + self.which, values)
        return sums.view(3, -1, self.m).transpose(0, 1).flatten(1)

    @property
    def effect(self) -> Tensor:
        """E of each latent `[m]`, NaN without contexts."""
        return self._mean(self.own)

    @property
    def against(self) -> Tensor:
        """C of each latent `[m]`."""
        return self._mean(self.control)

    @property
    def nces(self) -> Tensor:
        """NCES of each latent `[m]`."""
        return nces(self.effect, self.against)

    def intervals(self, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """95 % percentile interval `[m]` of each latent's NCES over its contexts; NaN with fewer
        than 30 of them.
        """
        generator = torch.Generator().manual_seed(seed)
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

    def _mean(self, values: Tensor) -> Tensor:
        sums = torch.zeros(self.m, dtype=torch.double).index_add_(0, self.which, values.double())
        return (sums / self.which.bincount(minlength=self.m)).float()


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


def exact(
    text: Text, latents: Latents, chosen: Tensor, covariance: Tensor, budget: Budget
) -> dict[str, Contexts]:
    """Effects of the `chosen` latents `[m]` under every type. Raises `ValueError` for latents that
    cannot be measured.
    """
    chosen = check_latents(latents.codes, chosen)
    found: dict[str, Contexts] = {}
    for number, (draw, silent) in enumerate(((active_pairs, False), (silent_pairs, True))):
        types = [name for name in budget.types if (name in ON_SILENT) == silent]
        if not types:
            continue
        generator = torch.Generator().manual_seed(2 * budget.seed + number)
        pairs = draw(latents.codes, chosen, budget.contexts, generator)
        amounts = changes(types, latents.codes, pairs, generator)
        found |= _measured(
            text, latents, pairs, amounts, covariance, budget=budget, types=types, chosen=chosen
        )
    return {name: found[name] for name in budget.types}


def _measured(
    text: Text,
    latents: Latents,
    pairs: Pairs,
    amounts: Tensor,
    covariance: Tensor,
    *,
    budget: Budget,
    types: Sequence[str],
    chosen: Tensor,
) -> Mapping[str, Contexts]:
    effects = intervene(
        text,
        latents.directions,
        pairs,
        amounts,
        covariance,
        draws=budget.draws,
        seed=2 * budget.seed + (types[0] in ON_SILENT),
        following=budget.following,
        max_bytes=budget.max_bytes,
    )
    number = torch.zeros(len(latents.directions), dtype=torch.long)
    number[chosen] = torch.arange(len(chosen))
    which = number[pairs.latent]
    each = zip(types, effects.own, effects.control, strict=True)
    return {
        name: Contexts(which, pairs.row, own, control, len(chosen)) for name, own, control in each
    }
