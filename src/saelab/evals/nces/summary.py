"""What the NCES of single latents says of a whole dictionary: scores, and a row per latent.

Intervals are over documents and over which latents were drawn to stand for the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from saelab.evals.nces.effects import Contexts, Estimate, Latents, nces, rank_correlation
from saelab.evals.nces.figures import figures_of, mass_table
from saelab.evals.result import Result
from saelab.stats import Resampling
from saelab.types import Score

MASS_TYPE = "zero"  # the intervention whose effects are summed, and that the estimate stands for
GROUPS = 64  # documents are resampled in at most this many groups where all latents are summed
N_BOOT = 200  # resamples there
NO_LATENT = "no latent is active on 30 tokens"
OVER_LATENTS = "no interval: a statistic over the measured latents"


@dataclass(frozen=True)
class Measured:
    """What was measured of a dictionary."""

    latents: Latents
    estimate: Estimate  # of all live latents, by document
    exact: Mapping[str, Contexts]  # by type, of the measured latents
    latent: Tensor  # [m] which ones these are
    weight: Tensor  # [m] how many live latents each stands for
    doc: Tensor  # [N] document of each position


def summarise(found: Measured, types: Sequence[str], facts: Mapping[str, Any]) -> Result:
    """Scores of a dictionary. Dead and rare latents are in none of them but `nces_excluded`, their
    share.

    - `nces_<type>`: mean NCES of live latents weighted by activity (share of tokens on which a
      latent is active), in [-1, 1]; `nces_<type>_median`: of latents, unweighted;
      `nces_<type>_share_positive`: share of live latents whose interval over contexts lies above 0;
    - `causal_mass`: sum over live latents of activity times effect of zero ablation, nats per
      token;
    - `nces_agreement`: mean rank correlation of NCES between types, over the measured latents;
    - `nces_fisher`, `causal_mass_fisher`: the same from the estimate, over all live latents;
      `nces_fisher_spearman`: rank correlation of estimated and exact effects of zero ablation, over
      the measured latents.
    """
    details: dict[str, Any] = {
        "eval": "nces",
        "facts": facts,
        "agreement": {},
        "latents": [],
        "estimates": estimates_of(found.latents, found.estimate),
    }
    if not found.exact:
        return Result(_nothing(found, types), details=details)
    scores = {"nces_excluded": _excluded(found)}
    bounds = {name: contexts.intervals() for name, contexts in found.exact.items()}
    for name, contexts in found.exact.items():
        scores |= _of_type(name, contexts, bounds[name][0], found)
    if MASS_TYPE in found.exact:
        scores["causal_mass"] = _mass(found, found.exact[MASS_TYPE])
    agreement = {
        f"{a} {b}": rank_correlation(found.exact[a].nces, found.exact[b].nces)
        for a, b in combinations(found.exact, 2)
    }
    known = [value for value in agreement.values() if value is not None]
    few = "fewer than 2 types, or too few latents, to compare"
    mean = sum(known) / len(known) if known else None
    scores["nces_agreement"] = Score(
        mean, n=len(found.latent), reason=OVER_LATENTS if known else few
    )
    scores |= _estimated(found)
    return Result(
        scores,
        tables=mass_table(found.latents, found.estimate),
        figures=figures_of(
            found.latents, found.estimate, found.exact, found.latent, weight=found.weight
        ),
        details=details | {"agreement": agreement, "latents": _rows(found, bounds)},
    )


def _nothing(found: Measured, types: Sequence[str]) -> dict[str, Score]:
    """The scores of a dictionary without a live latent."""
    names = [f"nces_{name}{part}" for name in types for part in ("", "_median", "_share_positive")]
    names += [
        "causal_mass",
        "nces_agreement",
        "nces_fisher",
        "causal_mass_fisher",
        "nces_fisher_spearman",
    ]
    return {"nces_excluded": _excluded(found)} | dict.fromkeys(names, Score(None, reason=NO_LATENT))


def _excluded(found: Measured) -> Score:
    n = len(found.latents.directions)
    return Score(
        1 - len(found.latents.live) / n,
        n=n,
        reason="no interval: a count over the whole text",
    )


def _of_type(name: str, contexts: Contexts, low: Tensor, found: Measured) -> dict[str, Score]:
    """The scores of one type, resampled by document and by which latents were drawn."""
    resampling = _resampled(contexts.sums(found.doc), found.weight)
    activity = (found.weight * found.latents.codes.frequency[found.latent]).double()
    undefined = "no measured latent has an effect or a control's"
    weighted = resampling.score(_over_latents(_mean, activity), undefined=undefined)
    median = resampling.score(_over_latents(_median, found.weight.double()), undefined=undefined)
    share = float((found.weight * (low > 0)).sum() / found.weight.sum())
    positive = Score(share, n=contexts.m, reason=OVER_LATENTS)
    return {
        f"nces_{name}": weighted,
        f"nces_{name}_median": median,
        f"nces_{name}_share_positive": positive,
    }


def _over_latents(
    statistic: Callable[[Tensor, Tensor], Tensor], weight: Tensor
) -> Callable[[Tensor], Tensor]:
    """A statistic of sums `[R, 4 m]`: NCES of each latent, then over the latents that have one in
    the resample.
    """

    def of(sums: Tensor) -> Tensor:
        own, control, _, times = sums.unflatten(1, (4, -1)).unbind(1)
        value = nces(own, control)  # [R, m]
        there = value.isfinite()
        # 2: sorted behind all values
        return statistic(value.where(there, 2.0), weight * times * there)

    return of


def _resampled(sums: Tensor, weight: Tensor, n_boot: int = 1000) -> Resampling:
    """Sums `[C, 3 m]` by document, and behind them how often each latent counts `[m]`.

    Once in the sample. In a resample, latents that stand for others (weight above 1) were drawn,
    and are drawn again with replacement; those that stand for themselves are in every one.
    """
    resampling = Resampling(sums[sums.any(1)], n_boot=n_boot)  # documents with a context
    times = torch.ones(len(resampling.samples), len(weight), dtype=torch.double)
    (drawn,) = (weight > 1).nonzero(as_tuple=True)
    if len(drawn):
        again = torch.randint(
            len(drawn), (len(times), len(drawn)), generator=torch.Generator().manual_seed(1)
        )
        times[:, drawn] = torch.zeros_like(again, dtype=torch.double).scatter_add_(
            1, again, torch.ones_like(times[:, drawn])
        )
    return resampling.beside(torch.ones_like(times[:1]), times)


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum(1) / weight.sum(1)


def _median(value: Tensor, weight: Tensor) -> Tensor:
    """Weighted lower median of each row; NaN where nothing has weight."""
    value, order = value.sort(dim=1)
    reached = weight.gather(1, order).cumsum(1)
    first = (reached < reached[:, -1:] / 2).sum(1, keepdim=True).clamp(max=value.shape[1] - 1)
    return value.gather(1, first).squeeze(1).where(reached[:, -1] > 0, torch.nan)


def _summed(frequency: Tensor) -> Callable[[Tensor], Tensor]:
    """Sum over latents of frequency times mean effect, nats per token, of sums `[R, 4 m]`."""

    def of(sums: Tensor) -> Tensor:
        own, _, count, times = sums.unflatten(1, (4, -1)).unbind(1)
        return (frequency.double() * times * (own / count).nan_to_num()).sum(1)

    return of


def _mass(found: Measured, contexts: Contexts) -> Score:
    each = found.weight * found.latents.codes.frequency[found.latent]
    return _resampled(contexts.sums(found.doc), found.weight).score(_summed(each))


def _estimated(found: Measured) -> dict[str, Score]:
    """Scores from the estimate, over all live latents, documents resampled in groups."""
    live = found.latents.live
    guess = found.estimate
    parts = torch.stack([guess.effect, guess.control, guess.count])[:, :, live]  # [3, C, live]
    group = torch.arange(parts.shape[1]) % GROUPS
    sums = torch.zeros(3, int(group.max()) + 1, len(live), dtype=torch.double).index_add_(
        1, group, parts
    )
    resampling = _resampled(sums.transpose(0, 1).flatten(1), torch.ones(len(live)), N_BOOT)
    activity = found.latents.codes.frequency[live]
    exact = found.exact.get(MASS_TYPE)
    value = (
        None if exact is None else rank_correlation(guess.mean_effect[found.latent], exact.effect)
    )
    reason = (
        "zero ablation was not measured, or on too few latents" if value is None else OVER_LATENTS
    )
    return {
        "nces_fisher": resampling.score(
            _over_latents(_mean, activity.double()),
            undefined="every estimated effect is 0",
        ),
        "causal_mass_fisher": resampling.score(_summed(activity)),
        "nces_fisher_spearman": Score(value, n=len(found.latent), reason=reason),
    }


def _rows(found: Measured, bounds: Mapping[str, tuple[Tensor, Tensor]]) -> list[dict[str, Any]]:
    """One row per measured latent."""
    codes, guess = found.latents.codes, found.estimate
    columns = {
        name: {
            "effect": c.effect,
            "control": c.against,
            "nces": c.nces,
            "low": bounds[name][0],
            "high": bounds[name][1],
        }
        for name, c in found.exact.items()
    }
    rows = []
    for i, j in enumerate(found.latent.tolist()):
        row = {
            "latent": j,
            "weight": float(found.weight[i]),
            "frequency": float(codes.frequency[j]),
        }
        row |= {"mean_code": float(codes.mean_active[j]), "estimate": float(guess.mean_effect[j])}
        rows.append(
            row
            | {
                name: {key: float(c[i]) for key, c in each.items()}
                for name, each in columns.items()
            }
        )
    return rows


def estimates_of(latents: Latents, guess: Estimate) -> dict[str, list[float]]:
    """Of all live latents: number, activity, mean code, estimated effect and control."""
    live, codes = latents.live, latents.codes
    columns = (codes.frequency, codes.mean_active, guess.mean_effect, guess.mean_control)
    names = ("frequency", "mean_code", "effect", "control")
    return {"latent": live.tolist()} | {
        name: column[live].tolist() for name, column in zip(names, columns, strict=True)
    }
